"""Bodies that are read before their requests' turn comes: whoever sends slowly holds up nobody who waits behind.

HAProxy passes a request on once the first 64 KiB of it are there, and what is read in its turn takes one of a replica's
few places for as long as it comes; without HAProxy nothing but the headers may be there. Most requests are there as a
whole, and then nothing is waited for here. What may be held is bounded: beyond that a body is read in its request's
turn. So is one that its headers refuse, which is never: nobody is asked for a body (``Expect: 100-continue``) in vain.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raytl.serving.gate import refuses
from raytl.serving.settings import ServingSettings
from raytl.serving.waiting import UPLOADED, stamp, waited_s

MOST = 256
"""Bodies that are on their way at a time."""
MOST_BYTES = 256 * 2**20
"""Of these and of those that have come in this way and are not answered yet."""


class Uploads:
    """Of one process. settings: those that hold now."""

    def __init__(self, settings: Callable[[], ServingSettings]) -> None:
        self._settings = settings
        self._under_way = 0
        self._bytes = 0

    @asynccontextmanager
    async def reading(self, scope: Scope, receive: Receive) -> AsyncIterator[Receive]:
        """What to receive a request by whose headers are there: all of its body is there then, if it may be.

        It is not where its time is over, it is larger than a request may be, or too much is held already. Of one that
        its headers have refused nothing has been received.
        """
        settings = self._settings()
        if not self._may_wait(scope, settings):
            yield receive
            return
        came: deque[Message] = deque()  # the only place that holds them, so that whoever takes one has it alone
        more, size = True, 0
        began = time.monotonic()
        try:
            self._under_way += 1
            try:
                with suppress(TimeoutError):  # which is said in its turn
                    async with asyncio.timeout(settings.request_timeout_s - waited_s(scope)):
                        while more and size <= settings.max_body_bytes and self._bytes < MOST_BYTES:
                            came.append(await receive())
                            more = came[-1].get("more_body", False)
                            part = len(came[-1].get("body", b""))
                            size += part
                            self._bytes += part
            finally:
                self._under_way -= 1
            scope[UPLOADED] = time.monotonic() - began
            yield _again(came, receive)
        finally:
            self._bytes -= size

    def _may_wait(self, scope: Scope, settings: ServingSettings) -> bool:
        declared = dict(scope["headers"]).get(b"content-length", b"")
        too_large = declared.isdigit() and int(declared) > settings.max_body_bytes
        return self._under_way < MOST and not too_large and not refuses(scope, settings)


class ReadAhead:
    """Passes requests on once their bodies are there, where the application alone counts who has a turn."""

    def __init__(self, app: ASGIApp, uploads: Uploads) -> None:
        self._app = app
        self._uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        stamp(scope)
        async with self._uploads.reading(scope, receive) as there:
            await self._app(scope, there, send)


def _again(came: deque[Message], receive: Receive) -> Receive:
    """What to receive by what has come already, and then the rest."""

    async def next_one() -> Message:
        return came.popleft() if came else await receive()

    return next_one
