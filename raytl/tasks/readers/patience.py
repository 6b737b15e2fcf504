"""File systems of object stores whose patience is known: what is asked first is failed soon, what is read later not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

ANSWER_S, ATTEMPTS, RETRY_S = 5.0, 2, 5.0
"""Of what is asked first, as an address may be wrong: without a byte in so many seconds a request to S3 has failed, and
is made so often. Google's client tries for so long, and about twice that in all."""
ENDURED_ANSWER_S, ENDURED_ATTEMPTS, ENDURED_RETRY_S = 10.0, 8, 60.0
"""Of what was there once: about two minutes in all, with pauses that grow."""


def impatient(filesystem: Any) -> Any:
    """The same file system, which says within a quarter of a minute that it does not answer.

    Of themselves pyarrow's S3 takes minutes and Google's a quarter of an hour, which the user would wait for a wrong
    address. S3's puts a small object in one request instead of three. Where a URI says for how long Google's is to try
    again, that stands; others are given back as they are.
    """
    return _with_patience(filesystem, ANSWER_S, ATTEMPTS, RETRY_S, allow_delayed_open=True)


def enduring(filesystem: Any) -> Any:
    """The same file system, which asks a storage that does not answer again for about two minutes, with growing pauses.

    Others than S3's as of :func:`impatient`.
    """
    return _with_patience(filesystem, ENDURED_ANSWER_S, ENDURED_ATTEMPTS, ENDURED_RETRY_S)


def _with_patience(filesystem: Any, answer_s: float, attempts: int, retry_s: float, **more: Any) -> Any:
    from pyarrow import fs

    if isinstance(filesystem, getattr(fs, "S3FileSystem", ())):
        return _s3(_settings(filesystem) | {"connect_timeout": answer_s, "request_timeout": answer_s} | more, attempts)
    if isinstance(filesystem, getattr(fs, "GcsFileSystem", ())):
        settings = _settings(filesystem)
        if settings["retry_time_limit"] is None:
            return fs.GcsFileSystem(**settings | {"retry_time_limit": timedelta(seconds=retry_s)})
    return filesystem


def _s3(settings: dict[str, Any], attempts: int) -> Any:
    """S3's, also where it is sent to: pyarrow's own forgets how often it is to try."""
    from pyarrow import fs

    class S3(fs.S3FileSystem):  # type: ignore[misc]
        def __reduce__(self) -> tuple[Any, ...]:
            return _s3, (_settings(super()), attempts)

    return S3(**settings, retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=attempts))


def _settings(filesystem: Any) -> dict[str, Any]:
    settings, *_ = filesystem.__reduce__()[1]
    return dict(settings)
