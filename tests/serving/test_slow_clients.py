"""Headers and bodies that do not come, over real sockets."""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from listening import listening

from raytl.serving.connections import most_connections, protocol
from raytl.serving.http import create_http
from raytl.serving.service import Service
from raytl.serving.settings import ServingSettings


@pytest.fixture(scope="module")
def address(bundles) -> Iterator[tuple[str, int]]:
    service = Service()
    asyncio.run(service.apply(ServingSettings(bundle=str(bundles["first"]), request_timeout_s=0.5)))
    with listening(create_http(service)) as address:
        yield address


def head(path: str, length: int) -> bytes:
    lines = (f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: image/png", f"Content-Length: {length}", "", "")
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/explain", "/v2/models/first/infer"])
def test_a_body_that_trickles_in_is_refused_in_time(address, path):
    with socket.create_connection(address, timeout=30) as client:
        client.sendall(head(path, 1000))
        answer = b""
        client.settimeout(0.1)
        for _ in range(100):  # ten seconds, where it is not refused
            try:
                client.sendall(b"x")
                answer += client.recv(65536)
            except TimeoutError:
                continue
            break
    top, _, body = answer.partition(b"\r\n\r\n")
    assert top.startswith(b"HTTP/1.1 408 ")
    assert json.loads(body)["error"].startswith("the request did not arrive within 0.5 s")


def test_whoever_hangs_up_leaves_no_trace(address, png, caplog):
    with caplog.at_level(logging.DEBUG):
        for _ in range(3):
            with socket.create_connection(address, timeout=30) as client:
                client.sendall(head("/v1/predict", 1000) + b"x")
        with socket.create_connection(address, timeout=30) as client:
            client.sendall(head("/v1/predict", len(png(0))) + png(0))
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")
        time.sleep(0.2)
    assert not [record for record in caplog.records if record.exc_info]


_MUCH = 4_000_000  # times five bytes: more than sockets hold


async def app(scope, receive, send):
    """Answers with the path, once the whole body is there, unless it is to be refused."""
    while scope["path"] != "/refused" and (await receive()).get("more_body"):
        pass
    told = scope["path"].encode() * (_MUCH if scope["path"] == "/much" else 1)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(told))]})
    await send({"type": "http.response.body", "body": told})


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


class TestHeadersThatDoNotCome:
    """In three tenths of a second here, and 30 s of ``raytl-serve``."""

    @pytest.fixture
    def client(self, opened) -> socket.socket:
        address = opened.enter_context(listening(app, http=protocol(0.3)))
        return opened.enter_context(socket.create_connection(address, timeout=30))

    def test_are_refused_in_time(self, client):
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        told = client.makefile("rb").read()
        assert told.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert json.loads(told.partition(b"\r\n\r\n")[2])["error"].startswith("the request did not arrive within 0.3 s")

    def test_nor_are_they_waited_for_while_they_trickle_in(self, client):
        client.settimeout(0.05)
        client.sendall(b"GET / HTTP/1.1\r\nHost: ")
        told = b""
        for _ in range(200):  # ten seconds, where they are
            try:
                client.sendall(b"x")
                told = client.recv(1000)
                break
            except TimeoutError:
                continue
        assert told.startswith(b"HTTP/1.1 408 ")

    def test_of_a_second_request_are_not_either(self, client):
        client.sendall(b"GET /one HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(1000).endswith(b"/one")
        client.sendall(b"GET /two HTTP/1.1\r\n")
        assert client.makefile("rb").read().startswith(b"HTTP/1.1 408 ")

    def test_nobody_is_told_so_whose_body_goes_on_after_the_answer(self, client):
        client.sendall(b"POST /refused HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n")
        assert client.recv(1000).endswith(b"/refused")
        client.sendall(b"the rest")
        assert client.recv(1000) == b""

    def test_of_whoever_sends_nothing_the_connection_is_closed(self, client):
        assert client.recv(1000) == b""

    def test_a_body_takes_the_time_it_takes(self, client):
        client.sendall(b"POST /slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\n")
        for _ in range(8):
            time.sleep(0.1)
            client.sendall(b"x")
        assert client.recv(1000).endswith(b"/slow")


async def echo(scope, receive, send):
    """Of a WebSocket."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


def test_a_websocket_is_no_request_that_does_not_come(opened):
    websockets = pytest.importorskip("websockets.sync.client")
    address = opened.enter_context(listening(echo, http=protocol(0.3)))
    with websockets.connect("ws://{}:{}".format(*address), proxy=None) as client:
        time.sleep(0.6)
        client.send("still there")
        assert client.recv(timeout=30) == "still there"


class TestMoreConnectionsThanThereMayBe:
    @pytest.fixture
    def address(self, opened) -> tuple[str, int]:
        return opened.enter_context(listening(app, http=protocol(30, most=3)))

    def test_push_out_the_one_that_has_been_without_a_request_for_longest(self, address, opened):
        clients = [opened.enter_context(socket.create_connection(address, timeout=30)) for _ in range(3)]
        for client in clients[:2]:  # the first waits for its body, the second for its next request
            length = 5 if client is clients[0] else 0
            client.sendall(head("/first", length))
            if not length:
                assert client.recv(1000).endswith(b"/first")
        last = opened.enter_context(socket.create_connection(address, timeout=30))
        last.sendall(head("/last", 0))
        assert last.recv(1000).endswith(b"/last")
        assert clients[2].recv(1000) == b""
        clients[0].sendall(b"12345")
        assert clients[0].recv(1000).endswith(b"/first")

    def test_do_not_push_out_one_whose_answer_is_still_being_sent(self, address, opened):
        slow = opened.enter_context(socket.create_connection(address, timeout=30))
        slow.sendall(head("/much", 0))
        told = slow.recv(1000)
        idle, _ = (opened.enter_context(socket.create_connection(address, timeout=30)) for _ in range(2))
        last = opened.enter_context(socket.create_connection(address, timeout=30))
        assert idle.recv(1000) == b""  # and not the first, which has been without a request for longer
        last.sendall(head("/last", 0))
        assert last.recv(1000).endswith(b"/last")
        whole = len(told.partition(b"\r\n\r\n")[2])
        while whole < 5 * _MUCH:
            got = slow.recv(1 << 20)
            assert got, "it was cut off"
            whole += len(got)

    def test_are_refused_where_all_have_a_request(self, address, opened):
        clients = [opened.enter_context(socket.create_connection(address, timeout=30)) for _ in range(3)]
        for client in clients:
            client.sendall(head("/busy", 5) + b"1")
        time.sleep(0.5)
        assert opened.enter_context(socket.create_connection(address, timeout=30)).recv(1000) == b""
        for client in clients:
            client.sendall(b"2345")
            assert client.recv(1000).endswith(b"/busy")


def test_as_many_connections_as_leave_files_to_open():
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert most_connections() == max(16, min(4096, soft - 100))
