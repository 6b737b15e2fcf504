"""An application behind a real socket, in a thread of this process."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp


@contextmanager
def listening(app: ASGIApp, **options: Any) -> Iterator[tuple[str, int]]:
    """Host and port of it. options: of uvicorn."""
    with _running(app, **options) as server:
        yield server.servers[0].sockets[0].getsockname()


@contextmanager
def ageing(app: ASGIApp, **options: Any) -> Iterator[tuple[tuple[str, int], Clock]]:
    """The same, and the clock by which its timers go."""
    with _running(app, loop="asyncio", **options) as server:
        yield server.servers[0].sockets[0].getsockname(), Clock(server.servers[0].get_loop())


class Clock:
    """Of an event loop in another thread: time passes as it does, and when it is told to."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._real, self._ahead = loop, loop.time, 0.0
        loop.time = self._now  # type: ignore[method-assign]

    def advance(self, seconds: float) -> None:
        """Let so much time have passed."""
        self._ahead += seconds
        self._loop.call_soon_threadsafe(lambda: None)  # it sleeps for as long as it had to, when it was asked last

    def _now(self) -> float:
        return self._real() + self._ahead


@contextmanager
def _running(app: ASGIApp, **options: Any) -> Iterator[uvicorn.Server]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", **options))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield server
    finally:  # a test that fails does not leave the process waiting for this thread
        server.should_exit = True
        thread.join()
