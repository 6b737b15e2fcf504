"""Bodies that do not come, over real sockets."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import Iterator

import pytest
from listening import listening

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
