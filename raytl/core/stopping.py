"""How long work in this process is ended before its end: it looks, every now and then, whether it is to go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Event

_ASKED: ContextVar[Event | None] = ContextVar("raytl-stopping", default=None)


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
