"""The control room as a process: where it listens, and who may come in."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Sequence
from urllib.parse import quote

import uvicorn

from raytl.core.errors import UserError
from raytl.serving.tokens import is_loopback
from raytl.ui.app import make_app

TOKEN = "RAYTL_UI_TOKEN"
SHORTEST = 16
"""Characters of a token."""


def serve(
    storage: str,
    host: str,
    port: int,
    price: float | None = None,
    ready: Callable[[str], None] = lambda url: None,
    allow_hosts: Sequence[str] = (),
) -> None:
    """Serve until Ctrl-C. host, port: where to listen, 0 for a free port. ready: told the page's URL.

    allow_hosts: names to answer to on loopback, beside its own and addresses.
    Off loopback a token is needed: RAYTL_UI_TOKEN, or one made now; it is in the URL that ``ready`` is told.
    Raises UserError for a token that is too short and a port that is taken.
    """
    token = None if is_loopback(host) else _token()
    app = make_app(storage, token=token, price=price, names=allow_hosts)
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise UserError(f"{host}:{port}: cannot be listened at ({error.strerror}); give another --port") from None
    shown = f"[{host}]" if ":" in host else host
    ready(f"http://{shown}:{listening.getsockname()[1]}/" + (f"#token={quote(token, safe='')}" if token else ""))
    config = uvicorn.Config(app, log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[listening])


def _token() -> str:
    given = os.environ.get(TOKEN, "")
    if given and len(given) < SHORTEST:
        raise UserError(f"{TOKEN} has fewer than {SHORTEST} characters, which can be guessed; give a longer one")
    return given or secrets.token_urlsafe(24)
