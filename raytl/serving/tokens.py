"""Bearer tokens of endpoints: in a file of the user's own, and as a hash where the replicas keep it.

A token has 256 random bits, so its plain SHA-256 cannot be guessed back.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import secrets
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from raytl.core.errors import UserError
from raytl.core.paths import home


def token_file(name: str) -> Path:
    """Where the token of an endpoint lies on this machine."""
    return home() / "serving" / "tokens" / quote(name, safe="")


def read_token(name: str) -> str | None:
    """The token of an endpoint; None where this user has none."""
    try:
        return token_file(name).read_text().strip() or None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{token_file(name)}: cannot be read ({error.strerror or error})") from None


def write_token(name: str, token: str | None = None) -> str:
    """Put a token, a new one unless given, into the endpoint's file, readable by this user alone. Returns it."""
    token = token or secrets.token_urlsafe(32)
    path = token_file(name)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(token + "\n")
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise UserError(f"{path}: the token cannot be written ({error.strerror or error}); give access") from None
    return token


def drop_token(name: str, digest: str) -> None:
    """Remove the token of an endpoint that is gone. digest: its hash; another one's token stays."""
    if digest and fits(f"Bearer {read_token(name) or ''}", digest):
        with suppress(OSError):
            token_file(name).unlink()


def hashed(token: str) -> str:
    """What replicas keep: 64 hex digits."""
    return hashlib.sha256(token.encode()).hexdigest()


def fits(authorization: str, digest: str) -> bool:
    """Whether a request's ``Authorization`` header brings the token, in a time that does not depend on how nearly."""
    scheme, _, token = authorization.partition(" ")
    return hmac.compare_digest(hashed(token.strip()), digest.lower()) and scheme.lower() == "bearer"


def headers(name: str) -> dict[str, str]:
    """What a request of this user to the endpoint needs."""
    token = read_token(name)
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def refuse_unknown(name: str, digest: str) -> None:
    """Raise UserError where an endpoint asks for a token that this user does not have. digest: its hash, or ""."""
    token = read_token(name)
    if digest and (token is None or hashed(token) != digest.lower()):
        raise UserError(
            f"endpoint '{name}' asks for a token, and {token_file(name)} does not hold it: put it there, or give the "
            f"endpoint a new one with 'raytl endpoint token --rotate --name {name}'"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server on ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def token_hash(name: str, present: str) -> str:
    """The hash that an endpoint is to have: of the token that is there and fits, else of a new one.

    present: the hash that it has, or "".
    """
    token = read_token(name)
    if token is None or (present and hashed(token) != present.lower()):
        token = write_token(name)
    return hashed(token)
