"""Whoever sends slowly takes no turn from those who are ready. One request alone waits here until its time is over."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from starlette.types import Message, Receive, Scope, Send
from test_straight import FROM_HAPROXY, replica_of

from raytl.serving import straight, uploads, waiting
from raytl.serving.http import create_http
from raytl.serving.service import Service
from raytl.serving.settings import ServingSettings
from raytl.serving.tokens import hashed

TOKEN = "a token of a fitting length"
Way = Callable[[Scope, Receive, Send], Awaitable[None]]


class Slow:
    """A request whose body comes in three parts. there: of them, those that are before it is let go on."""

    def __init__(self, body: bytes, *headers: tuple[bytes, bytes], path: str = "/v1/predict", there: int = 1) -> None:
        third = len(body) // 3
        self._parts = [body[:third], body[third : 2 * third], body[2 * third :]]
        self._waits_at = len(self._parts) - there
        self._headers = [(b"host", b"localhost"), *FROM_HAPROXY, *headers]
        self._path = path
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        if len(self._parts) == self._waits_at:
            self.asked.set()
            await self.go_on.wait()
        part = self._parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(self._parts)}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def by(self, way: Way) -> int:
        """The status that it is answered with."""
        known = {"path": self._path, "raw_path": self._path.encode(), "root_path": "", "query_string": b""}
        scope = {"type": "http", "method": "POST", "headers": self._headers, "client": ("a", 1), **known}
        await way(scope, self.receive, self.send)
        return int(self.sent[0]["status"])


class Quick(Slow):
    """One that is there as a whole."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self._parts = [body]


@pytest.fixture
def settings(bundles: dict[str, Path]) -> ServingSettings:
    return ServingSettings(bundle=str(bundles["first"]))


@pytest.fixture(params=["a replica that works on one at a time", "one process that takes two"])
def way(request, settings) -> Way:
    service = Service()
    asyncio.run(service.apply(settings))
    if request.param.startswith("one"):
        app = create_http(service, "cells", most_waiting=2)
        app.service, app.replica = service, None
        return app
    app = create_http(service, "cells")
    replica = replica_of(app)

    async def through(scope: Scope, receive: Receive, send: Send) -> None:
        await straight.direct(replica, scope, receive, send)

    through.service, through.replica, through.uploads = service, replica, app.uploads
    return through


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    """By which requests wait: what a busy machine takes of a short time has them wait for their turn."""
    clock = SimpleNamespace(now=1000.0)
    for module in (uploads, waiting):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.mark.parametrize("there", [0, 1])
def test_those_who_are_ready_do_not_wait_for_those_who_are_not(way, png, there):
    async def main() -> None:
        slow = [Slow(png(0), there=there) for _ in range(4)]
        answered = [asyncio.create_task(one.by(way)) for one in slow]
        for one in slow:
            await one.asked.wait()
        assert way.uploads._under_way == 4
        if way.replica is not None:  # Serve does not end it while they come
            assert len(way.replica._reserved_slots) == 4
        assert [await Quick(png(1)).by(way) for _ in range(3)] == [200] * 3
        for number, one in enumerate(slow):
            one.go_on.set()
            assert await answered[number] == 200
        if way.replica is not None:
            assert not way.replica._reserved_slots and way.replica._num_queued_requests == 0

    asyncio.run(main())
    assert way.uploads._bytes == way.uploads._under_way == 0


def test_what_is_held_is_bounded_and_the_rest_is_read_in_its_turn(way, png, monkeypatch):
    monkeypatch.setattr(uploads, "MOST_BYTES", 2 * len(png(0)) // 3)

    async def main() -> None:
        held, beyond = Slow(png(0)), Slow(png(0))
        answered = [asyncio.create_task(held.by(way)), asyncio.create_task(beyond.by(way))]
        for one in (held, beyond):
            await one.asked.wait()
        assert way.uploads._bytes < len(png(0)) and way.uploads._under_way == 1
        for one in (beyond, held):
            one.go_on.set()
        assert [await one for one in answered] == [200, 200]

    asyncio.run(main())
    assert way.uploads._bytes == 0


@pytest.mark.parametrize(
    ("changed", "headers", "status"),
    [
        ({"token_sha256": hashed(TOKEN)}, (), 401),
        ({}, ((b"origin", b"http://elsewhere.example"),), 403),
        ({"max_body_bytes": 100}, ((b"content-length", b"101"),), 413),
    ],
)
def test_what_will_be_refused_is_not_read(way, settings, png, changed, headers, status):
    async def main() -> None:
        await way.service.apply(replace(settings, **changed))
        one = Slow(png(0), *headers, there=0)
        one.go_on.set()
        assert await one.by(way) == status
        assert not one.asked.is_set()  # so that uvicorn has not told it to go on, where it expects that

    asyncio.run(main())


def test_one_that_is_larger_than_it_says_is_refused_when_it_is(way, settings, png):
    async def main() -> None:
        await way.service.apply(replace(settings, max_body_bytes=len(png(0)) // 3 + 10))
        one = Slow(png(0))
        one.go_on.set()
        assert await one.by(way) == 413
        assert len(one._parts) == 1

    asyncio.run(main())


@pytest.mark.parametrize("there", [0, 1])
def test_one_that_does_not_come_in_its_time_is_late_and_has_not_waited_for_its_turn(way, settings, png, there, clock):
    async def main() -> None:
        await way.service.apply(replace(settings, request_timeout_s=0.2))
        slow = Slow(png(0), there=there)
        answered = asyncio.create_task(slow.by(way))
        await slow.asked.wait()
        clock.now += 0.2
        async with asyncio.timeout(60):
            assert await answered == 408

    asyncio.run(main())
    assert way.uploads._bytes == way.uploads._under_way == 0


@pytest.mark.parametrize("there", [0, 1])
def test_one_that_comes_late_but_in_its_time_has_not_waited_for_its_turn(way, settings, png, there, clock):
    async def main() -> None:
        slow = Slow(png(0), there=there)
        answered = asyncio.create_task(slow.by(way))
        await slow.asked.wait()
        clock.now += 0.8 * settings.request_timeout_s
        slow.go_on.set()
        assert await answered == 200

    asyncio.run(main())


def test_what_has_been_passed_on_is_not_held_here_as_well(settings):
    class Part(dict):
        """One that can be asked whether it is still there."""

    coming = [Part(type="http.request", body=b"x", more_body=more) for more in (True, True, False)]
    seen = [weakref.ref(part) for part in coming]

    async def receive() -> Message:
        return coming.pop(0)

    async def main() -> None:
        read_ahead = uploads.Uploads(lambda: settings)
        scope = {"method": "POST", "path": "/v1/predict", "headers": [(b"host", b"localhost")]}
        async with read_ahead.reading(scope, receive) as there:
            assert not coming and read_ahead._bytes == 3
            for part in seen:
                assert part() is not None
                assert (await there())["body"] == b"x"
                assert part() is None
            assert read_ahead._bytes == 3  # whoever has read them holds them until the answer

    asyncio.run(main())


def test_an_explanation_goes_serves_own_way_and_is_awaited_likewise(way, png):
    async def main() -> None:
        slow = Slow(png(0), path="/v1/explain")
        answered = asyncio.create_task(slow.by(way))
        await slow.asked.wait()
        assert await Quick(png(1)).by(way) == 200
        slow.go_on.set()
        assert await answered == 200

    asyncio.run(main())
