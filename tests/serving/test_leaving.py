"""Whoever hangs up is worked for no longer, over real sockets."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time

import httpx
import pytest
from listening import listening
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from raytl.serving.leaving import LOOK_AFTER_S, Leaving

REQUEST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n"


class Slow:
    """Answers after so long; ``ended`` is set where it is not to any more."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.ended = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await Request(scope, receive).body()
        try:
            await asyncio.sleep(self._seconds)
        except asyncio.CancelledError:
            self.ended.set()
            raise
        await Response(body)(scope, receive, send)


@pytest.mark.parametrize("after_s", [0.2 * LOOK_AFTER_S, 3 * LOOK_AFTER_S])
def test_work_for_nobody_is_ended_without_a_trace(after_s, caplog):
    slow = Slow(600)
    with caplog.at_level(logging.DEBUG), listening(Leaving(slow)) as address:
        with socket.create_connection(address, timeout=30) as client:
            client.sendall(REQUEST + b"body")
            time.sleep(after_s)
        assert slow.ended.wait(60)
        time.sleep(0.2)
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]


def test_whoever_waits_is_answered_and_asks_again():
    slow = Slow(3 * LOOK_AFTER_S)
    with listening(Leaving(slow)) as address, httpx.Client(trust_env=False, timeout=60) as client:
        for body in (b"one", b"two"):
            assert client.post(f"http://{address[0]}:{address[1]}", content=body).content == body
    assert not slow.ended.is_set()


def test_one_that_is_cancelled_by_others_stays_so():
    async def received():
        return {"type": "http.request", "body": b""}

    async def sent(message):
        raise AssertionError(message)

    async def ask():
        task = asyncio.create_task(Leaving(Slow(60))({"type": "http"}, received, sent))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(ask())
