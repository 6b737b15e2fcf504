"""What the pages of raytl have in common: a style, a few functions of JavaScript, and headers that keep others out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath

from starlette.responses import Response

HEADERS: Mapping[str, str] = {
    # Scripts, styles and answers from where the page came from, and from nowhere else; pictures also from the page.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # a newer raytl brings newer files under the same names
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
SHARED = {"base.css": __name__, "dom.js": __name__}
"""Files that every page may use, by name, with the package that they lie in."""

_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}


def respond(package: str, name: str) -> Response:
    """A page, script or style of a package, with the headers of pages."""
    return Response(text(package, name), media_type=_TYPES[PurePosixPath(name).suffix], headers=dict(HEADERS))


@cache
def text(package: str, name: str) -> str:
    """A file of a package."""
    return (files(package) / name).read_text("utf-8")
