"""Who waits for a storage is told for what: a question to one that does not answer takes its time to fail."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from raytl.core.errors import StorageWarning, UserError

TOLD_S = 15.0
"""After so long a wait it is told."""
GIVEN_UP_S, LEFT_ALONE_S = 30.0, 60.0
"""A storage of which nothing came in so long was asked again and again: it is not asked for a while then, or each of
many images would take as long to fail."""
T = TypeVar("T")

_lock = threading.Lock()
_asked: dict[int, tuple[str, float]] = {}  # what is waited for, and since when, by the question
_told = set[str]()  # storages of which it was told since they answered last
_silent: dict[str, float] = {}  # when those were given up that have not answered since
_news = threading.Event()
_thread: threading.Thread | None = None
_number = 0


@contextmanager
def waiting(shown: str, filesystem: Any) -> Iterator[None]:
    """Tell (StorageWarning) what is asked for in the block where that takes long, of a storage once until it answers.

    shown: what is asked for. filesystem: where; None for the local disk, of which nothing is told. Raises OSError where
    the storage has just been given up.
    """
    global _number, _thread
    from pyarrow import fs

    if not isinstance(filesystem, fs.FileSystem):
        yield
        return
    if is_silent(shown):
        raise TimeoutError("it has not answered for a while")
    began = time.monotonic()
    with _lock:
        _number += 1
        mine = _number
        _asked[mine] = (shown, began)
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_watch, name="raytl-waiting", daemon=True)
            _thread.start()
    _news.set()
    try:
        yield
    except BaseException as error:
        with _lock:
            del _asked[mine]
            if isinstance(error, OSError | UserError) and time.monotonic() - began > GIVEN_UP_S:
                _silent[_storage(shown)] = time.monotonic()
        raise
    with _lock:
        del _asked[mine]
        _told.discard(_storage(shown))
        _silent.pop(_storage(shown), None)


def is_silent(shown: str) -> bool:
    """Whether the storage that something lies in has just been given up."""
    return time.monotonic() - _silent.get(_storage(shown), -LEFT_ALONE_S) < LEFT_ALONE_S


def waited_for(values: Iterator[T], shown: str, filesystem: Any) -> Iterator[T]:
    """The same values, for each of which may have to be waited."""
    while True:
        with waiting(shown, filesystem):
            try:
                value = next(values)
            except StopIteration:
                return
        yield value


def _watch() -> None:
    while True:
        with _lock:
            overdue = [(shown, since) for shown, since in _asked.values() if time.monotonic() - since >= TOLD_S]
            for shown, _ in overdue:
                if _storage(shown) not in _told:
                    _told.add(_storage(shown))
                    warnings.warn(_sentence(shown), StorageWarning, stacklevel=2)
            idle = not _asked
            if idle:
                _news.clear()
        if idle:
            _news.wait()
        time.sleep(TOLD_S / 15)


def _sentence(shown: str) -> str:
    return (
        f"{shown}: waited for since {TOLD_S:.0f} s; where the storage does not answer it is asked again, for about "
        "two minutes in all"
    )


def _storage(shown: str) -> str:
    """``s3://bucket`` of what lies there."""
    return "/".join(shown.split("/")[:3])
