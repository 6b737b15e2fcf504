"""Who may ask a server that asks for no token: this machine's programs and the server's own pages, no page elsewhere.

A page elsewhere can give its own name the address of this machine, and then is of the same origin as what answers there
(DNS rebinding); the name is in the Host header. And it can send what changes something, or costs something, without
reading the answer; that comes with the page's origin. Programs that are no browsers send neither.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from urllib.parse import urlsplit

ANY = "*"
"""Among the names: whatever name is asked for."""
_HARMLESS = frozenset({"GET", "HEAD", "OPTIONS"})


def refusal(
    method: str, host: str, origin: str | None, site: str | None, names: tuple[str, ...]
) -> tuple[int, str] | None:
    """Status and sentence for a request that is to be refused, or None.

    host, origin, site: the headers Host ("" where there is none), Origin and Sec-Fetch-Site. names: what the server may
    be called beside addresses and the names of loopback, which nobody else can take.
    """
    if not answers_to(host, names):
        return 421, (
            f"without a token this server answers to addresses and to localhost, not to '{_name(host)}'; start it with "
            f"--allow-host {_name(host)} if that is its name"
        )
    if method not in _HARMLESS and _is_foreign(host, origin, site, names):
        return 403, (
            f"without a token this server takes nothing from pages of others, and this one is of '{origin}'; start it "
            "with --allow-host and that name if it may"
        )
    return None


@lru_cache(maxsize=256)
def answers_to(host: str, names: tuple[str, ...]) -> bool:
    """Whether a Host header names the server by an address, by a name of loopback or by one of ``names``."""
    name = _name(host)
    return not name or name == "localhost" or name.endswith(".localhost") or _is_address(name) or _in(name, names)


def _is_foreign(host: str, origin: str | None, site: str | None, names: tuple[str, ...]) -> bool:
    if site in ("same-origin", "none") or (site is None and origin is None):
        return False
    try:
        place = urlsplit(origin or "").netloc.lower()
    except ValueError:
        place = ""
    # A browser that tells the site knows better: a server between may have changed the host.
    return not ((site is None and place == host.lower()) or _in(_name(place), names))


def _in(name: str, names: tuple[str, ...]) -> bool:
    return ANY in names or name in (known.lower() for known in names)


def _name(host: str) -> str:
    """Without the port, as names are compared."""
    name = host.strip().lower()
    name = name.partition("]")[0] + "]" if name.startswith("[") else name.partition(":")[0]
    return name.removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
