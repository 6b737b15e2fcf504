"""HTTP to elsewhere, through the proxies that the environment names."""

from __future__ import annotations

from typing import Any

import httpx

from raytl.core.errors import UserError


def http_client(url: str, **settings: Any) -> httpx.Client:
    """Httpx's client for what is at ``url``, with its ``settings``.

    Raises UserError for a proxy that it cannot use, and for headers that are no ASCII.
    """
    if not all(str(value).isascii() for value in (settings.get("headers") or {}).values()):
        raise UserError(
            f"{url}: the token for it has signs that no token has; read it from the file that it was saved in"
        )
    try:
        return httpx.Client(**settings)
    except (ImportError, ValueError) as error:
        raise UserError(
            f"{url}: cannot be reached through the proxy that ALL_PROXY, HTTP_PROXY or HTTPS_PROXY names ({error}); "
            "name an http:// one, or unset it"
        ) from None
