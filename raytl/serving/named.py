"""Several models on one endpoint: each answers at ``/v1/models/NAME``, and one of them at ``/v1/predict`` as well.

Each is a Serve application of its own, so that all that is said of one (update, trial, rollback, scaling) holds of each
by itself, and with no replicas kept it is loaded when it is first asked. Only names that were deployed lead anywhere.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from raytl.core.errors import UserError
from raytl.serving.problems import RequestError

MODELS = "/v1/models"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_OWN = ("", "/predict", "/health")
"""Below ``/v1/models/NAME``, beside all that an endpoint answers anywhere."""
_KNOWN_S = 1.0

Entry = dict[str, Any]
Directory = Callable[[], Awaitable[Sequence[Entry]]]
"""What is served on the endpoint: mappings with ``name``, ``path``, ``model``, ``version``, ``status``."""


def route_for(name: str, wanted: str | None, taken: Mapping[str, str]) -> str:
    """Where an application answers.

    wanted: its prefix as the user gives it; None leaves it where it is, puts the first one at ``/`` and any other one
    at its name. taken: prefixes of the applications that are there, by name.
    Raises UserError where another one has the prefix, or a name is none for an address.
    """
    if wanted is None and name in taken:
        return taken[name]
    first = "/" not in taken.values()
    if wanted is None and not first and not _NAME.fullmatch(name):
        raise UserError(
            f"--name {name}: cannot stand in an address; take letters, digits, '-', '_' and '.', or give --route-prefix"
        )
    route = wanted if wanted is not None else "/" if first else f"{MODELS}/{name}"
    for other, prefix in taken.items():
        if other != name and prefix == route:
            raise UserError(
                f"'{other}' is already served under {route}; give '{name}' another route prefix, or none, or deploy "
                f"with --name {other} to replace it"
            )
    return route


def entry(name: str, prefix: str, settings: Mapping[str, Any], status: str) -> Entry:
    """What ``/v1/models`` says of an application. settings: what its replicas are told."""
    path = prefix.rstrip("/")
    known = {"name": name, "path": f"{path}/v1/predict", "default": prefix == "/"}
    return {**known, "model": settings.get("model", ""), "version": settings.get("version", ""), "status": status}


def not_here(asked: str, path: str, known: Sequence[Entry]) -> RequestError:
    """What is to be said of a name that another model of the endpoint may have, or none.

    path: below which it is asked for. known: the models of the endpoint.
    """
    place = {one["name"]: one["path"].removesuffix("/v1/predict") for one in known}
    if asked not in place:
        return RequestError(404, f"there is no model '{asked}' on this endpoint; it has {', '.join(sorted(place))}")
    if f"{place[asked]}/".startswith(f"{path}/"):  # there it would have been found
        return RequestError(503, f"model '{asked}' does not answer yet; try again in a moment")
    return RequestError(404, f"model '{asked}' is not here; it answers below '{place[asked] or '/'}'")


class OwnPaths:
    """Lets ``/v1/models/NAME/predict`` be found in the application that is mounted at ``/v1/models/NAME``."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http":
            root = scope.get("root_path", "")
            if root.startswith(f"{MODELS}/") and scope["path"].removeprefix(root) in _OWN:
                scope = {**scope, "root_path": ""}
        await self._app(scope, receive, send)


def remembered(ask: Callable[[], Sequence[Entry]]) -> Directory:
    """A directory that asks in a thread, at most once a second."""
    known: list[tuple[float, Sequence[Entry]]] = []
    lock = asyncio.Lock()

    async def directory() -> Sequence[Entry]:
        async with lock:
            if not known or time.monotonic() - known[0][0] > _KNOWN_S:
                found = await asyncio.get_running_loop().run_in_executor(None, ask)
                known[:] = [(time.monotonic(), found)]
        return known[0][1]

    return directory
