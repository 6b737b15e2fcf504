"""Who is let in: with the endpoint's token whoever brings it; without one no page of another server."""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from raytl.serving import page
from raytl.serving.problems import problem
from raytl.serving.settings import ServingSettings
from raytl.serving.tokens import fits
from raytl.web.visitors import refusal

# Load balancers have no token, and whoever opens the page enters it there.
_OPEN = frozenset({"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"}) | page.PATHS
_TRUSTED = "raytl.trusted"


class Gate:
    """A change of the settings counts from the next request on. settings: those that hold now."""

    def __init__(self, app: ASGIApp, settings: Callable[[], ServingSettings]) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http":
            refused = _refused(scope, self._settings())
            scope[_TRUSTED] = refused is None
            if refused is not None and scope["path"].removeprefix(scope.get("root_path", "")) not in _OPEN:
                await refused(scope, receive, send)
                return
        await self._app(scope, receive, send)


def trusted(scope: Scope) -> bool:
    """Whether a request that was let in may be told more than that the server lives."""
    return bool(scope.get(_TRUSTED, True))


def refuses(scope: Scope, settings: ServingSettings) -> bool:
    """Whether a request is not let in, except to what is open to everybody."""
    return _refused(scope, settings) is not None


def _refused(scope: Scope, settings: ServingSettings) -> Response | None:
    headers = dict(scope["headers"])

    def told(name: bytes) -> str | None:
        return headers[name].decode("latin-1") if name in headers else None

    if settings.token_sha256:
        if fits(told(b"authorization") or "", settings.token_sha256):
            return None
        sentence = "this endpoint asks for its token; send it as 'Authorization: Bearer TOKEN'"
        return problem(401, sentence, {"WWW-Authenticate": "Bearer"})
    host, origin, site = told(b"host") or "", told(b"origin"), told(b"sec-fetch-site")
    found = refusal(scope["method"], host, origin, site, tuple(settings.hosts))
    return None if found is None else problem(*found)
