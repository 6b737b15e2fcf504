"""Requests from a process of its own: a closed loop, or an open one at a rate that does not depend on the answers.

    python benchmarks/http_load.py URL BODY_FILE CONTENT_TYPE --connections 32 --seconds 5 --lead 1
    python benchmarks/http_load.py URL BODY_FILE CONTENT_TYPE --rate 500 --seconds 5 --lead 1

In the closed loop each connection sends the next request when it has its answer: where a server is slow, less is asked
of it. In the open one requests are due at random (a Poisson process, the same at every start), on connections that are
free, on new ones up to 128, and then when one is free again. Its latencies are from when a request was due, so that one
that waited behind a slow one counts with its wait; a timer that looks once a millisecond is part of them (``late_ms``).

The lead is load that nothing is told of, but in ``answers``. Prints one JSON document: requests that were answered (of
the closed loop within the seconds, of the open one those due within), errors, latencies' percentiles in milliseconds.
What is under way at the end is waited for, and an error where it has no answer ten seconds later.
Written on bare asyncio protocols, for on two cores a comfortable client would be what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import deque
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import numpy as np
import uvloop

MOST_CONNECTIONS = 128
"""Of an open loop; as many as the largest closed one has."""
DRAIN_S = 10.0
"""After the end of a load, for answers that are still to come; what has none then is an error."""


class Connection(asyncio.Protocol):
    """One connection."""

    def __init__(self, request: bytes, load: Load) -> None:
        self._request = request
        self._load = load
        self._buffer = b""
        self._since: float | None = None  # of the request that is under way

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """There is one more."""
        self._transport = cast(asyncio.Transport, transport)
        self._load.free(self)

    def send(self, since: float) -> None:
        """Send a request. since: what its latency counts from."""
        self._since = since
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Note an answer when it is whole."""
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found or self._since is None:
            return
        lower = head.lower()
        if b"transfer-encoding: chunked" in lower:  # as Ray Serve answers; the chunks hold JSON, without such an end
            if not body.endswith(b"0\r\n\r\n"):
                return
        else:
            at = lower.find(b"content-length:")
            length = int(lower[at + 15 :].split(b"\r\n", 1)[0])
            if len(body) < length:
                return
        self._buffer = b""
        since, self._since = self._since, None
        self._load.note(since, head.split(b" ", 2)[1] == b"200")
        if b"connection: close" in lower:
            self._transport.close()
        else:
            self._load.free(self)

    def connection_lost(self, error: Exception | None) -> None:
        """What was under way, if anything, has failed."""
        if self._since is not None:
            self._load.note(self._since, False)
        self._load.lost(self)

    def close(self) -> None:
        """The load is over."""
        self._transport.close()


class Load:
    """A closed loop, and what all connections of a run share."""

    def __init__(self, url: str, body: bytes, content_type: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = str(parts.hostname), int(parts.port or 80)
        head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: {content_type}\r\n"
        self._request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        self._tasks: set[asyncio.Task[None]] = set()
        self._from = self._until = float("inf")  # what is told of
        self.latencies: list[float] = []
        self.late: list[float] = []
        self.answers = 0
        self.errors = 0
        self.over = False
        self._unanswered = 0

    async def run(self, connections: int, seconds: float, lead_s: float = 0.0) -> None:
        """Load the server for so long."""
        self._from = time.perf_counter() + lead_s
        self._until = self._from + seconds
        for _ in range(connections):
            self._connect()
        await asyncio.sleep(lead_s + seconds)
        self.over = True  # nothing more is asked
        await self._drain()

    async def _drain(self) -> None:
        """Wait for what is still to be answered: a server that hangs would look like one that nobody asks."""
        stop = time.perf_counter() + DRAIN_S
        while self._unanswered and time.perf_counter() < stop:
            await asyncio.sleep(0.01)
        self.errors += self._unanswered

    def free(self, connection: Connection) -> None:
        """It can take a request."""
        if self.over:
            connection.close()
        else:
            self._unanswered += 1
            connection.send(time.perf_counter())

    def note(self, since: float, fine: bool) -> None:
        """One answer, or what came in its place."""
        self._unanswered -= 1
        self._ended(since, fine)

    def _ended(self, since: float, fine: bool) -> None:
        now = time.perf_counter()
        self.answers += fine
        if not self._told_of(since, now, fine):
            return
        if fine:
            self.latencies.append(now - since)
        else:
            self.errors += 1

    def lost(self, connection: Connection) -> None:
        """It is closed."""
        if not self.over:
            self._connect()

    def refused(self) -> None:
        """A connection could not be opened."""
        if not self.over:
            self.errors += 1

    def _told_of(self, since: float, now: float, fine: bool) -> bool:
        """An answer within the seconds; what is cut off after them was asked for within them, and failed."""
        return self._from <= now and (now <= self._until or not fine)

    def _connect(self) -> None:
        """Open a connection as soon as there is somebody to answer."""
        task = asyncio.get_running_loop().create_task(self._opened())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _opened(self) -> None:
        while not self.over:
            try:
                loop = asyncio.get_running_loop()
                await loop.create_connection(lambda: Connection(self._request, self), self._host, self._port)
            except OSError:
                self.refused()
                await asyncio.sleep(0.05)
            else:
                return


class OpenLoad(Load):
    """An open loop."""

    def __init__(self, url: str, body: bytes, content_type: str) -> None:
        super().__init__(url, body, content_type)
        self._idle: list[Connection] = []
        self._waiting: deque[float] = deque()
        self._connections = 0

    async def run_at(self, rate: float, seconds: float, lead_s: float = 0.0, most: int = MOST_CONNECTIONS) -> None:
        """Send ``rate`` requests a second for so long, and wait for their answers. most: connections."""
        rng = np.random.default_rng(0)
        begin = time.perf_counter()
        self._from = begin + lead_s
        self._until = self._from + seconds
        due = begin + float(rng.exponential(1 / rate))
        while due < self._until:
            while (now := time.perf_counter()) < due:
                await asyncio.sleep(due - now)
            self.late.append(now - due)
            self._unanswered += self._told_of(due, now, True)
            self._waiting.append(due)
            if self._idle:
                self._take_up(self._idle.pop())
            elif self._connections < most:
                self._connections += 1
                self._connect()
            due += float(rng.exponential(1 / rate))
        await self._drain()  # what waits for a connection is sent meanwhile
        self.over = True

    def free(self, connection: Connection) -> None:
        """It takes what waits for one, or waits itself."""
        if self.over:
            connection.close()
        elif self._waiting:
            self._take_up(connection)
        else:
            self._idle.append(connection)

    def note(self, since: float, fine: bool) -> None:
        """One answer, or what came in its place; after the end nothing counts, for it was counted as an error."""
        if not self.over:
            self._unanswered -= self._told_of(since, since, True)
            self._ended(since, fine)

    def lost(self, connection: Connection) -> None:
        """It is closed: another one is opened when there is need of it."""
        if connection in self._idle:
            self._idle.remove(connection)
        if self._waiting and not self.over:
            self._connect()
        else:
            self._connections -= 1

    def refused(self) -> None:
        """What waits for a connection goes on waiting, and its latency with it."""

    def _take_up(self, connection: Connection) -> None:
        connection.send(self._waiting.popleft())

    def _told_of(self, since: float, now: float, fine: bool) -> bool:
        return self._from <= since <= self._until


def main() -> None:
    """Run the load that the command line asks for."""
    parser = argparse.ArgumentParser()
    for name in ("url", "body", "content_type"):
        parser.add_argument(name)
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--connections", type=int, help="of a closed loop")
    kind.add_argument("--rate", type=float, help="of an open loop, requests a second")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--lead", type=float, default=1, help="seconds before, that nothing is told of")
    given = parser.parse_args()
    where = given.url, Path(given.body).read_bytes(), given.content_type
    load: Load
    if given.connections:
        load = Load(*where)
        uvloop.run(load.run(given.connections, given.seconds, given.lead))
    else:
        load = opened = OpenLoad(*where)
        uvloop.run(opened.run_at(given.rate, given.seconds, given.lead))
    milliseconds = 1000 * np.array(load.latencies or [np.nan])
    p50, p99 = np.percentile(milliseconds, [50, 99])
    figures = {
        "requests": len(load.latencies),
        "answers": load.answers,
        "errors": load.errors,
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "max_ms": float(milliseconds.max()),
        "late_ms": 1000 * float(np.median(load.late or [0.0])),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
