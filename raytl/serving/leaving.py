"""Stops the work for a client that has gone away.

Ray Serve would see to that itself, with a queue and two tasks more for every request: a fifth of what a small one
costs. Here nobody looks until an answer has taken a while, and most never do. So HAProxy is told to have Serve leave it
be (``haproxy/configuration.py``); behind Serve's own proxy both look, which does no harm. uvicorn alone, as in the
runtime without Ray, goes on with work that nobody waits for.
"""

from __future__ import annotations

import asyncio

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOK_AFTER_S = 0.1
_GONE = 499  # what HTTP servers write down of a client that closed the connection; nobody is there to get it


class Leaving:
    """Cancels the handling of a request whose connection is closed before it is answered."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        watch = _Watch(receive, send)
        try:
            await self._app(scope, watch.receive, watch.send)
        except asyncio.CancelledError:
            if not watch.gone or watch.handling.uncancel() > 0:
                raise  # somebody else wants it to end, too
            await Response(status_code=_GONE)(scope, receive, send)
        finally:
            watch.stop()


class _Watch:
    """Of one request, from the end of its body to that of its answer.

    receive, send: of the server, which tells that the client has gone, and after an answer too.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        handling = asyncio.current_task()
        assert handling is not None
        self.handling = handling
        self.gone = False
        self._receive = receive
        self._send = send
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None

    async def receive(self) -> Message:
        """As the server's, for the application."""
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body") and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_AFTER_S, self._look)
        return message

    async def send(self, message: Message) -> None:
        """As the server's, for the application."""
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.stop()
        await self._send(message)

    def stop(self) -> None:
        """Nobody need look any more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()

    def _look(self) -> None:
        self._looking = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        if (await self._receive())["type"] == "http.disconnect":
            self.gone = True
            self.handling.cancel()
