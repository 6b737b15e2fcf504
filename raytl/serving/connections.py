"""What uvicorn has no limit for: connections on which no request comes, and how many there are.

Behind HAProxy neither is needed: it reads a request as a whole before it passes it on.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.server import ServerState

from raytl.serving.problems import document

HEADERS_S = 30.0
"""For the first byte of a request to the last one of its headers; as long as HAProxy gives."""
_SPARE_FILES = 100  # that the process opens beside its connections, or may have to
_FEWEST, _MOST = 16, 4096


def most_connections() -> int:
    """As many as leave the process files to open: with none left it could not even accept one more, to close it."""
    try:
        import resource
    except ImportError:  # Windows, where nothing limits them like this
        return _MOST
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = _MOST if soft == resource.RLIM_INFINITY else soft - _SPARE_FILES
    return max(_FEWEST, min(_MOST, allowed))


def protocol(headers_s: float = HEADERS_S, most: int | None = None) -> type[asyncio.Protocol]:
    """uvicorn's, with limits.

    headers_s: in which the headers of a request must come; 408 afterwards, and nothing where not a byte of it came.
    most: connections at a time, as many as files allow unless given. For one more that one goes that has been without
        a request for longest, or the new one where all have one.
    """
    allowed = most_connections() if most is None else most

    class Limited(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        """One connection."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self._timer: asyncio.TimerHandle | None = None
            self._began = False
            self.idle_since = time.monotonic()
            state: ServerState = self.server_state
            self._all = state.connections

        @property
        def idle(self) -> bool:
            """Whether no request is under way."""
            return self.cycle is None or bool(self.cycle.response_complete)

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self._all) > allowed:
                self._make_room()
            self._wait_for_headers()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            before = self.cycle
            super().data_received(data)
            became_websocket = self.transport.get_protocol() is not self  # and is another one's
            if became_websocket or self.cycle is not before:
                self._stop_waiting()
            elif self.idle:
                self._began = True
                if self._timer is None:
                    self._wait_for_headers()

        def on_response_complete(self) -> None:
            self.idle_since = time.monotonic()
            super().on_response_complete()

        def _make_room(self) -> None:
            still = [one for one in self._all if isinstance(one, Limited) and not one.transport.is_closing()]
            if len(still) > allowed:
                # An answer that was given may be on its way still.
                idle = [
                    one for one in still if one is not self and one.idle and not one.transport.get_write_buffer_size()
                ]
                min(idle, key=lambda one: one.idle_since, default=self).transport.abort()

        def _wait_for_headers(self) -> None:
            self._timer = self.loop.call_later(headers_s, self._end)

        def _stop_waiting(self) -> None:
            self._began = False
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _end(self) -> None:
            refused = self.cycle is not None and self.cycle.more_body  # was answered, and its body came nevertheless
            if self._began and self.idle and not refused and not self.transport.is_closing():
                self.transport.write(_late(headers_s))
            self.transport.close()

    return Limited


def _late(headers_s: float) -> bytes:
    told = json.dumps(document(408, f"the request did not arrive within {headers_s:g} s; send it again")).encode()
    head = ("HTTP/1.1 408 Request Timeout", "Content-Type: application/problem+json", f"Content-Length: {len(told)}")
    return "\r\n".join((*head, "Connection: close", "", "")).encode() + told
