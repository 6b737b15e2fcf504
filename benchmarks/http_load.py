"""A closed loop of requests from a process of its own: each connection sends the next when it has its answer.

    python benchmarks/http_load.py URL BODY_FILE CONTENT_TYPE CONNECTIONS SECONDS

Prints one JSON document: requests, errors, seconds and the latencies' percentiles in milliseconds. Written on bare
asyncio protocols, for on two cores a comfortable client would be what is measured.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import numpy as np
import uvloop


class Connection(asyncio.Protocol):
    """One connection."""

    def __init__(self, request: bytes, load: Load) -> None:
        self._request = request
        self._load = load
        self._buffer = b""
        self._sent = 0.0
        self._answered = False  # and told to close

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        """Note an answer when it is whole, and send the next request."""
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lower = head.lower()
        at = lower.find(b"content-length:")
        length = int(lower[at + 15 :].split(b"\r\n", 1)[0])
        if len(body) < length:
            return
        self._buffer = b""
        self._load.note(time.perf_counter() - self._sent, head.split(b" ", 2)[1] == b"200")
        if b"connection: close" in lower:
            self._answered = True
            self._transport.close()
        else:
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        """Open another one: what was under way, if anything, has failed."""
        if not self._load.over:
            if not self._answered:
                self._load.note(time.perf_counter() - self._sent, False)
            self._load.reconnect()

    def _send(self) -> None:
        if self._load.over:
            self._transport.close()
            return
        self._sent = time.perf_counter()
        self._transport.write(self._request)


class Load:
    """What all connections of a run share."""

    def __init__(self, url: str, body: bytes, content_type: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = str(parts.hostname), int(parts.port or 80)
        head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: {content_type}\r\n"
        self._request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        self._tasks: set[asyncio.Task[None]] = set()
        self.latencies: list[float] = []
        self.errors = 0
        self.over = False

    def note(self, seconds: float, fine: bool) -> None:
        """One answer."""
        if self.over:
            return
        if fine:
            self.latencies.append(seconds)
        else:
            self.errors += 1

    def reconnect(self) -> None:
        """Open a connection as soon as there is somebody to answer."""
        task = asyncio.get_running_loop().create_task(self._connect())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        while not self.over:
            try:
                loop = asyncio.get_running_loop()
                await loop.create_connection(lambda: Connection(self._request, self), self._host, self._port)
            except OSError:
                self.errors += 1
                await asyncio.sleep(0.05)
            else:
                return

    async def run(self, connections: int, seconds: float) -> None:
        """Load the server for so long."""
        for _ in range(connections):
            self.reconnect()
        await asyncio.sleep(seconds)
        self.over = True


def main() -> None:
    """Run the load that the command line asks for."""
    url, body, content_type, connections, seconds = sys.argv[1:]
    load = Load(url, Path(body).read_bytes(), content_type)
    uvloop.run(load.run(int(connections), float(seconds)))
    milliseconds = 1000 * np.array(load.latencies or [np.nan])
    p50, p99 = np.percentile(milliseconds, [50, 99])
    figures = {"requests": len(load.latencies), "errors": load.errors, "seconds": float(seconds)}
    print(json.dumps({**figures, "p50_ms": float(p50), "p99_ms": float(p99), "max_ms": float(milliseconds.max())}))


if __name__ == "__main__":
    main()
