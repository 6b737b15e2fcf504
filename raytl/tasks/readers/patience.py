"""File systems of object stores that say soon that they do not answer."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

ANSWER_S = 5.0
"""Without a byte in so many seconds, a request to S3 has failed."""
ATTEMPTS = 2
RETRY_S = 5.0
"""How long Google's client tries again, and about twice that in all; of itself it takes a quarter of an hour."""


def impatient(filesystem: Any) -> Any:
    """The same file system, which says within a quarter of a minute that it does not answer.

    Of themselves pyarrow's S3 takes five minutes and Google's fifteen, which the user would wait for a wrong address.
    S3's puts a small object in one request instead of three. Where a URI says for how long Google's is to try again,
    that stands; others are given back as they are.
    """
    from pyarrow import fs

    if isinstance(filesystem, getattr(fs, "S3FileSystem", ())):
        retries = fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS)
        own = {"connect_timeout": ANSWER_S, "request_timeout": ANSWER_S, "retry_strategy": retries}
        return fs.S3FileSystem(**_settings(filesystem) | own | {"allow_delayed_open": True})
    if isinstance(filesystem, getattr(fs, "GcsFileSystem", ())):
        settings = _settings(filesystem)
        if settings["retry_time_limit"] is None:
            return fs.GcsFileSystem(**settings | {"retry_time_limit": timedelta(seconds=RETRY_S)})
    return filesystem


def _settings(filesystem: Any) -> dict[str, Any]:
    _, (settings,) = filesystem.__reduce__()
    return dict(settings)
