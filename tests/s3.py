"""A real S3 server on loopback, for tests that keep runs at a URI."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from raytl.serving.ports import free_port

BUCKET = "bucket"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class S3Server:
    """Moto's server in a process of its own. endpoint: its address; environment: with which clients find it."""

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.environment = CREDENTIALS | {"AWS_ENDPOINT_URL": self.endpoint}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._wait()
        httpx.put(f"{self.endpoint}/{BUCKET}", trust_env=False, timeout=60).raise_for_status()

    def uri(self, path: str = "runs") -> str:
        """Where runs can be kept; needs the environment."""
        return f"s3://{BUCKET}/{path}"

    def pause(self) -> None:
        """Stop answering, until :meth:`go_on`."""
        self._process.send_signal(19)

    def go_on(self) -> None:
        """Answer again."""
        self._process.send_signal(18)

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + 180
        while True:
            try:
                httpx.get(self.endpoint, trust_env=False)
                return
            except httpx.TransportError:
                assert self._process.poll() is None, "the S3 server did not start"
                assert time.monotonic() < deadline, "the S3 server does not answer"
                time.sleep(0.1)


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A server with an empty bucket, and this process's environment set to find it."""
    server = S3Server()
    before = {name: os.environ.get(name) for name in server.environment}
    os.environ.update(server.environment)
    try:
        yield server
    finally:
        server.stop()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
