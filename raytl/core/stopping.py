"""How long work in this process is ended before its end: it looks, every now and then, whether it is to go on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Event

_ASKED: ContextVar[Event | None] = ContextVar("raytl-stopping", default=None)
_UNTIL: ContextVar[float | None] = ContextVar("raytl-within", default=None)


class StoppedError(BaseException):
    """The work was asked to end. No Exception: to who takes in what goes wrong with a trial it is none of that."""


@contextmanager
def stoppable(event: Event | None) -> Iterator[None]:
    """Have what this thread does meanwhile end once the event is set, with a StoppedError; None for never."""
    token = _ASKED.set(event)
    try:
        yield
    finally:
        _ASKED.reset(token)


def check() -> None:
    """Raise StoppedError where this thread's work is to end; for where it may, and where seconds go by between."""
    event = _ASKED.get()
    if event is not None and event.is_set():
        raise StoppedError


class OutOfTimeError(Exception):
    """The work has not come to its end in the time that it was given."""


@contextmanager
def within(seconds: float | None) -> Iterator[None]:
    """Have what this thread does meanwhile end after so many seconds, with an OutOfTimeError; None for never."""
    token = _UNTIL.set(None if seconds is None else time.perf_counter() + seconds)
    try:
        yield
    finally:
        _UNTIL.reset(token)


def check_time() -> None:
    """Raise OutOfTimeError where this thread's work has had its time; for where nothing is lost but the work itself."""
    until = _UNTIL.get()
    if until is not None and time.perf_counter() > until:
        raise OutOfTimeError
