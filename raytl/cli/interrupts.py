"""Ctrl-C: exactly one KeyboardInterrupt, and none where it would be lost or would leave a lock taken for good."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType

_AGAIN_S = 0.01


def interruptible() -> None:
    """From now on, the first Ctrl-C raises KeyboardInterrupt in the main thread, and further ones nothing.

    From the first on we clean up, for seconds, and a second one must not get in the way of that. To be called in the
    main thread.
    """
    signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if frame is not None and _takes_a_lock(frame):
        _try_again()
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.unraisablehook = _lost
    raise KeyboardInterrupt


def _takes_a_lock(frame: FrameType) -> bool:
    """Whether an exception in this very frame may leave a lock taken that every thread needs.

    Python's import system and the locks of ``threading`` that are written in Python take theirs before the ``try`` that
    gives them back (bpo-29988): every later import in another thread would wait for ever.
    """
    code = frame.f_code
    if code.co_filename.startswith("<frozen importlib"):
        return True
    return code.co_filename == threading.__file__ and code.co_name in ("__enter__", "__exit__")


def _lost(unraisable: sys.UnraisableHookArgs) -> None:
    """An exception that Python cannot raise, in a destructor say: ours is tried again, others nobody wants to read."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        _try_again()


def _try_again() -> None:
    """By an alarm, for neither a signal handler nor a destructor may begin a thread: its lock may be taken."""
    signal.signal(signal.SIGALRM, _interrupt)
    signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
