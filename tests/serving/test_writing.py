"""What uvicorn writes of an answer, and in how many pieces: the bytes are the same with joined writes and without."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http import httptools_impl
from uvicorn.server import ServerState

from raytl.serving.writing import join_writes

App = Callable[[Scope, Receive, Send], object]
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Wire(asyncio.Transport):
    """A connection that keeps what is written to it, piece by piece, and the end."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        assert not self.is_closing()
        self.pieces.append(bytes(data))

    def close(self) -> None:
        if not self.is_closing():
            self.pieces.append(b"<end>")

    def is_closing(self) -> bool:
        return b"<end>" in self.pieces

    def get_extra_info(self, name: str, default: object = None) -> object:
        return default

    def pause_reading(self) -> None:
        """Nothing is read."""

    resume_reading = pause_reading


def pieces(app: App, *requests: bytes) -> list[bytes]:
    async def main() -> list[bytes]:
        config = uvicorn.Config(
            app, http="httptools", lifespan="off", date_header=False, server_header=False, log_config=None
        )
        config.load()
        state, wire = ServerState(), Wire()
        protocol = httptools_impl.HttpToolsProtocol(config, state, app_state={}, _loop=asyncio.get_running_loop())
        protocol.connection_made(wire)
        for request in requests:
            protocol.data_received(request)
        while state.tasks:
            await asyncio.wait(state.tasks)
        found = list(wire.pieces)
        protocol.connection_lost(None)
        return found

    return asyncio.run(main())


@pytest.fixture
def both(monkeypatch) -> Callable[..., list[bytes]]:
    """The pieces with joined writes; without, the same bytes were written."""
    monkeypatch.setattr(httptools_impl, "RequestResponseCycle", httptools_impl.RequestResponseCycle)

    def ask(app: App, *requests: bytes) -> list[bytes]:
        before = pieces(app, *requests)
        join_writes()
        found = pieces(app, *requests)
        assert b"".join(found) == b"".join(before)
        return found

    return ask


def answering(*bodies: bytes, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for number, body in enumerate(bodies, 1):
            await send({"type": "http.response.body", "body": body, "more_body": number < len(bodies)})

    return app


LENGTH = ((b"content-length", b"2"),)


def test_head_and_body_are_one_piece(both):
    (one,) = both(answering(b"ok", headers=LENGTH), GET)
    assert one.startswith(b"HTTP/1.1 200 OK\r\n") and one.endswith(b"\r\n\r\nok")


def test_each_answer_of_a_connection_is_one(both):
    assert len(both(answering(b"ok", headers=LENGTH), GET, GET, GET + GET)) == 4


def test_what_comes_later_is_written_when_it_comes(both):
    first, second, last = both(answering(b"ok", b"so", b""), GET)
    assert first.endswith(b"\r\n\r\n2\r\nok\r\n") and (second, last) == (b"2\r\nso\r\n", b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("app", "request_"),
    [
        (answering(b"ok", headers=LENGTH), GET.replace(b"GET", b"HEAD")),
        (answering(b"", status=204), GET),
        (answering(b"", headers=((b"content-length", b"0"),)), GET),
    ],
)
def test_a_head_without_a_body_is_written_too(both, app, request_):
    (one, *_) = both(app, request_)
    assert one.startswith(b"HTTP/1.1 20") and one.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_and_before_the_connection_is_closed(both, method):
    asked = GET.replace(b"GET", method).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert both(answering(b"ok", headers=LENGTH), asked)[-1] == b"<end>"


def test_a_client_that_waits_to_be_asked_for_the_body_is_asked_at_once(both):
    asked = GET.replace(b"GET", b"POST").replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
    assert both(answering(b"ok", headers=LENGTH), asked, b"a")[0].startswith(b"HTTP/1.1 100")


def test_an_application_that_fails_between_the_two(both):
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": LENGTH})
        raise ValueError("no")

    head, end = both(app, GET)
    assert head.startswith(b"HTTP/1.1 200") and end == b"<end>"
