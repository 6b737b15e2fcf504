"""The page at ``/`` on which a model is tried, and the reader of the OpenAPI document at ``/docs``.

There is nothing on them but words: what they show they ask of the endpoint, with the token that their user enters.
"""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from raytl import web

_PAGES = {"/": "try.html", "/docs": "docs.html"}
_FILES = {**web.SHARED, **dict.fromkeys(("page.css", "endpoint.js", "card.js", "try.js", "docs.js"), __name__)}

PATHS = frozenset({"", *_PAGES, *(f"/static/{name}" for name in _FILES)})
"""What anybody may load, by GET and HEAD alone; under a route prefix "" leads to the page."""


def page_routes() -> list[Route]:
    """The routes of the pages, for any endpoint with the API of raytl."""

    def page(request: Request) -> Response:
        return web.respond(__name__, _PAGES[request.url.path.removeprefix(request.scope.get("root_path", ""))])

    def static(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _FILES:
            raise HTTPException(404)
        return web.respond(_FILES[name], name)

    pages = [Route(path, page, methods=["GET"]) for path in _PAGES]
    return [*pages, Route("/static/{name}", static, methods=["GET"])]
