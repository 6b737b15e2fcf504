"""The cluster's token, from where Ray's own programs look for it."""

from __future__ import annotations

import os
from pathlib import Path

from raytl.core.errors import UserError


def find_token() -> str | None:
    """The token that this user has for clusters: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token; else None.

    Raises UserError for a token file that is missing where it was named, empty, or readable by others: whoever has the
    token runs code in the cluster.
    """
    given = os.environ.get("RAY_AUTH_TOKEN", "").strip()
    if given:
        return given
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named).expanduser() if named else Path("~/.ray/auth_token").expanduser()
    try:
        mode = path.stat().st_mode
        token = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        if named:
            raise UserError(f"RAY_AUTH_TOKEN_PATH is {path}, and there is no such file") from None
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: the token cannot be read ({error})") from None
    if mode & 0o077:
        raise UserError(f"{path} can be read by others, and whoever has it runs code in the cluster: chmod 600 {path}")
    if not token:
        raise UserError(f"{path} is empty; copy the cluster's token into it")
    return token
