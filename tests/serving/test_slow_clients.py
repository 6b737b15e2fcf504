"""Headers and bodies that do not come, over real sockets."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from listening import Clock, ageing, listening

from raytl.serving import waiting
from raytl.serving.connections import most_connections, protocol
from raytl.serving.http import create_http
from raytl.serving.service import Service
from raytl.serving.settings import ServingSettings


def service_of(bundle: Path, limit_s: float) -> Service:
    service = Service()
    asyncio.run(service.apply(ServingSettings(bundle=str(bundle), request_timeout_s=limit_s)))
    return service


@pytest.fixture(scope="module", params=[None, 2], ids=["in its turn", "before its turn"])
def address(request, bundles) -> Iterator[tuple[str, int]]:
    """Of one that has little patience, and reads bodies when."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waiting, "_SHARE", math.inf)  # a busy machine may take half of that time before a body is read
        with listening(create_http(service_of(bundles["first"], 0.5), most_waiting=request.param)) as address:
            yield address


def head(path: str, length: int, *more: str) -> bytes:
    lines = (f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: image/png", f"Content-Length: {length}")
    return "\r\n".join((*lines, *more, "", "")).encode()


def answer_of(client: socket.socket, told: bytes = b"") -> bytes:
    """What comes of an answer, as a whole: its head and its body are two writes. told: what has come of it already."""
    while b"\r\n\r\n" not in told and (got := client.recv(65536)):
        told += got
    top, _, body = told.partition(b"\r\n\r\n")
    lengths = [int(line.split(b":")[1]) for line in top.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while lengths and len(body) < lengths[0] and (got := client.recv(65536)):
        told, body = told + got, body + got
    return told


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/explain", "/v2/models/first/infer"])
def test_a_body_that_trickles_in_is_refused_in_time(address, path):
    with socket.create_connection(address, timeout=30) as client:
        client.sendall(head(path, 1000))
        answer = b""
        client.settimeout(0.1)
        for _ in range(100):  # ten seconds, where it is not refused
            try:
                client.sendall(b"x")
                answer = client.recv(65536)
            except TimeoutError:
                continue
            break
        client.settimeout(30)
        answer = answer_of(client, answer)
    top, _, body = answer.partition(b"\r\n\r\n")
    assert top.startswith(b"HTTP/1.1 408 ")
    assert json.loads(body)["error"].startswith("the request did not arrive within 0.5 s")


def test_headers_alone_are_refused_in_time(address):
    with socket.create_connection(address, timeout=30) as client:
        client.sendall(head("/v1/predict", 1000))
        assert answer_of(client).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(("length", "headers", "status"), [(10**9, (), 413), (10, ("Origin: http://elsewhere",), 403)])
def test_what_is_refused_by_its_headers_is_not_asked_for_its_body(address, length, headers, status):
    with socket.create_connection(address, timeout=30) as client:
        client.sendall(head("/v1/predict", length, *headers, "Expect: 100-continue"))
        assert answer_of(client).startswith(b"HTTP/1.1 %d " % status)


def test_whoever_hangs_up_leaves_no_trace(bundles, png, caplog):
    served = create_http(service_of(bundles["first"], 600))
    with caplog.at_level(logging.DEBUG), listening(served) as address:
        for _ in range(3):
            with socket.create_connection(address, timeout=30) as client:
                client.sendall(head("/v1/predict", 1000) + b"x")
        with socket.create_connection(address, timeout=60) as client:
            client.sendall(head("/v1/predict", len(png(0))) + png(0))
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")
        time.sleep(0.2)
    assert not [record for record in caplog.records if record.exc_info]


_MUCH = 4_000_000  # times five bytes: more than sockets hold
_LIMIT_S = 300.0


class Answering:
    """Answers with the path, once the whole body is there, unless it is to be refused. asked: once for each request."""

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)

    async def __call__(self, scope, receive, send):
        self.asked.release()
        while scope["path"] != "/refused" and (await receive()).get("more_body"):
            pass
        told = scope["path"].encode() * (_MUCH if scope["path"] == "/much" else 1)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(told))]})
        await send({"type": "http.response.body", "body": told})


@pytest.fixture
def app() -> Answering:
    return Answering()


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


class Waiting:
    """A client of a server whose time passes as it says."""

    def __init__(self, client: socket.socket, clock: Clock) -> None:
        self.socket, self.clock = client, clock

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> bytes:
        self.socket.settimeout(60)
        return answer_of(self.socket)

    def told_in_the_end(self, trickles: bytes = b"") -> bytes:
        """What comes until the server hangs up, whatever time it takes for that. trickles: sent meanwhile."""
        self.socket.settimeout(0.05)
        told = b""
        for _ in range(1000):
            self.clock.advance(_LIMIT_S / 3)
            if trickles and not told:
                with suppress(ConnectionError):  # it has hung up: what it said before is there to be read
                    self.socket.sendall(trickles)
            try:
                if not (got := self.socket.recv(1000)):
                    return told
                told += got
            except TimeoutError:
                continue
            except ConnectionResetError:  # it hung up before the last byte came
                return told
        raise AssertionError("nobody hung up")


class TestHeadersThatDoNotCome:
    """In five minutes here, which pass in a moment, and 30 s of ``raytl-serve``."""

    @pytest.fixture
    def client(self, opened, app) -> Waiting:
        address, clock = opened.enter_context(ageing(app, http=protocol(_LIMIT_S), timeout_keep_alive=10**6))
        return Waiting(opened.enter_context(socket.create_connection(address, timeout=60)), clock)

    def test_are_refused_in_time(self, client):
        client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        told = client.told_in_the_end()
        assert told.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert json.loads(told.partition(b"\r\n\r\n")[2])["error"].startswith("the request did not arrive within 300 s")

    def test_nor_are_they_waited_for_while_they_trickle_in(self, client):
        client.send(b"GET / HTTP/1.1\r\nHost: ")
        assert client.told_in_the_end(trickles=b"x").startswith(b"HTTP/1.1 408 ")

    def test_of_a_second_request_are_not_either(self, client):
        client.send(b"GET /one HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.answer().endswith(b"/one")
        client.send(b"GET /two HTTP/1.1\r\n")
        assert client.told_in_the_end().startswith(b"HTTP/1.1 408 ")

    def test_nobody_is_told_so_whose_body_goes_on_after_the_answer(self, client):
        client.send(b"POST /refused HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n")
        assert client.answer().endswith(b"/refused")
        client.send(b"the rest")
        assert client.told_in_the_end() == b""

    def test_of_whoever_sends_nothing_the_connection_is_closed(self, client):
        assert client.told_in_the_end() == b""

    def test_a_body_takes_the_time_it_takes(self, client, app):
        client.send(b"POST /slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\n")
        assert app.asked.acquire(timeout=60)
        for _ in range(8):
            client.clock.advance(_LIMIT_S)
            client.send(b"x")
        assert client.answer().endswith(b"/slow")


async def echo(scope, receive, send):
    """Of a WebSocket."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


def test_a_websocket_is_no_request_that_does_not_come(opened):
    websockets = pytest.importorskip("websockets.sync.client")
    address, clock = opened.enter_context(ageing(echo, http=protocol(_LIMIT_S), ws_ping_interval=None))
    with websockets.connect("ws://{}:{}".format(*address), proxy=None) as client:
        clock.advance(2 * _LIMIT_S)
        client.send("still there")
        assert client.recv(timeout=30) == "still there"


class TestMoreConnectionsThanThereMayBe:
    @pytest.fixture
    def address(self, opened, app) -> tuple[str, int]:
        return opened.enter_context(listening(app, http=protocol(_LIMIT_S, most=3)))

    def test_push_out_the_one_that_has_been_without_a_request_for_longest(self, address, opened):
        clients = [opened.enter_context(socket.create_connection(address, timeout=30)) for _ in range(3)]
        for client in clients[:2]:  # the first waits for its body, the second for its next request
            length = 5 if client is clients[0] else 0
            client.sendall(head("/first", length))
            if not length:
                assert answer_of(client).endswith(b"/first")
        last = opened.enter_context(socket.create_connection(address, timeout=30))
        last.sendall(head("/last", 0))
        assert answer_of(last).endswith(b"/last")
        assert clients[2].recv(1000) == b""
        clients[0].sendall(b"12345")
        assert answer_of(clients[0]).endswith(b"/first")

    def test_do_not_push_out_one_whose_answer_is_still_being_sent(self, address, opened):
        slow = opened.enter_context(socket.create_connection(address, timeout=30))
        slow.sendall(head("/much", 0))
        told = slow.recv(1000)
        idle, _ = (opened.enter_context(socket.create_connection(address, timeout=30)) for _ in range(2))
        last = opened.enter_context(socket.create_connection(address, timeout=30))
        assert idle.recv(1000) == b""  # and not the first, which has been without a request for longer
        last.sendall(head("/last", 0))
        assert answer_of(last).endswith(b"/last")
        whole = len(told.partition(b"\r\n\r\n")[2])
        while whole < 5 * _MUCH:
            got = slow.recv(1 << 20)
            assert got, "it was cut off"
            whole += len(got)

    def test_are_refused_where_all_have_a_request(self, address, opened, app):
        clients = [opened.enter_context(socket.create_connection(address, timeout=30)) for _ in range(3)]
        for client in clients:
            client.sendall(head("/busy", 5) + b"1")
            assert app.asked.acquire(timeout=60)
        assert opened.enter_context(socket.create_connection(address, timeout=30)).recv(1000) == b""
        for client in clients:
            client.sendall(b"2345")
            assert answer_of(client).endswith(b"/busy")


def test_as_many_connections_as_leave_files_to_open():
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert most_connections() == max(16, min(4096, soft - 100))
