"""``raytl-serve``: a bundle's ONNX model over HTTP in one small process, with neither Ray nor torch.

The requests' path is that of a replica on Ray Serve: the same routes, limits, decoding, batching and checks. What is
not here is what needs several processes: replicas, versions on trial, captured images.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from raytl.bundles.onnx_model import INT8_FILE, ONNX_FILE, OnnxModel
from raytl.core.errors import UserError
from raytl.core.machine import cores
from raytl.serving.connections import protocol
from raytl.serving.http import create_http
from raytl.serving.live import warmed
from raytl.serving.service import Service
from raytl.serving.settings import ServingSettings, bundle_version
from raytl.serving.tokens import hashed, is_loopback

MOST_WAITING = 288
"""Requests under way, as many as with one replica on Ray Serve: 32 that it works on and 256 that wait."""
_SHORTEST_TOKEN = 16
_LOOK_AGAIN_S = 1.0
_GRACE_S = 35  # a request takes 30 at most


@dataclass(frozen=True)
class Options:
    """What the command line gives. threads: that compute a batch, 0 for as many as there are cores."""

    bundle: Path
    host: str
    port: int
    token_file: Path | None
    allow_host: Sequence[str]
    int8: bool
    threads: int


def main(arguments: Sequence[str] | None = None) -> None:
    """The command ``raytl-serve``. Ends with 0 when it is told to (SIGTERM, Ctrl-C), 2 for a user's mistake."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    try:
        serve(_parse(arguments))
    except UserError as error:
        print(f"raytl-serve: {error}", file=sys.stderr)
        sys.exit(2)


def serve(options: Options) -> None:
    """Serve until a signal comes, then answer what is under way. Raises UserError."""
    token = _token(options)
    file = INT8_FILE if options.int8 else ONNX_FILE
    read = partial(OnnxModel.load, file=file, threads=options.threads or cores())
    settings = ServingSettings(
        bundle=str(options.bundle),
        version=bundle_version(options.bundle),
        token_sha256="" if token is None else hashed(token),
        hosts=tuple(options.allow_host),
    )
    listening = _listen(options.host, options.port)
    with listening, asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(Service(partial(warmed, read=read)), settings, listening, options))


async def _serve(service: Service, settings: ServingSettings, listening: socket.socket, options: Options) -> None:
    import uvicorn

    await service.apply(settings)
    config = uvicorn.Config(
        create_http(service, most_waiting=MOST_WAITING),
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
        http=protocol(),
        timeout_graceful_shutdown=_GRACE_S,
    )
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"serving {service.live.name} ({service.live.version}) on http://{shown}:{port}", flush=True)
    tasks = [] if options.token_file is None else [asyncio.create_task(_rotate(service, settings, options))]
    try:
        await uvicorn.Server(config).serve(sockets=[listening])
    finally:
        for task in tasks:
            task.cancel()
        service.close()


async def _rotate(service: Service, settings: ServingSettings, options: Options) -> None:
    """Another token in the file counts from then on; while it holds none, the last one does."""
    while True:
        await asyncio.sleep(_LOOK_AGAIN_S)
        try:
            token = _token(options)
        except UserError:
            continue
        assert token is not None
        if hashed(token) != service.live.settings.token_sha256:
            await service.apply(replace(settings, token_sha256=hashed(token)))


def _parse(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(
        prog="raytl-serve", description="Serve a bundle over HTTP from its ONNX file, without Ray and torch."
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder that 'raytl export RUN DIR --onnx' wrote")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on, 0 for any that is free (8000)")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="the bearer token that requests must bring")
    named = "a name to answer to without a token, beside localhost and addresses; may be given again"
    parser.add_argument("--allow-host", action="append", default=[], metavar="NAME", help=named)
    parser.add_argument("--int8", action="store_true", help=f"answer with {INT8_FILE}")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="that compute a batch (one for each core)")
    given = parser.parse_args(arguments)
    if not 0 <= given.port < 65536:
        parser.error(f"--port is {given.port}; give 0 to 65535")
    if given.threads < 0:
        parser.error(f"--threads is {given.threads}; give a number above 0")
    return Options(**vars(given))


def _token(options: Options) -> str | None:
    file = options.token_file
    if file is None:
        if is_loopback(options.host):
            return None
        raise UserError(
            f"--host {options.host} lets others in, so requests must bring a token: write 16 characters or more into a "
            "file that only you can read (openssl rand -hex 32), and name it with --token-file"
        )
    try:
        token = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UserError(f"{file}: the token cannot be read ({why})") from None
    if len(token) < _SHORTEST_TOKEN or any(character.isspace() for character in token):
        raise UserError(f"{file}: holds no token of {_SHORTEST_TOKEN} characters or more on one line")
    return token


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        raise UserError(
            f"{host}:{port} cannot be listened on ({error.strerror or error}); choose another --host or --port"
        ) from None


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _leave(number: int, frame: Any) -> None:
    """Before the server has taken the signals over, and when it hands them on at its end."""
    raise SystemExit(0)
