"""The token that a cluster asks for, from where Ray's own programs look for it."""

from __future__ import annotations

import os
from pathlib import Path

from raytl.core.errors import UserError

TOKEN_FILE = "~/.ray/auth_token"


def find_token() -> tuple[str, str] | None:
    """The token that this user has for clusters, and where it is from; None without one.

    From RAY_AUTH_TOKEN, else the file that RAY_AUTH_TOKEN_PATH names, else ~/.ray/auth_token.
    Raises UserError for a token file that is missing where it was named, empty, or readable by others: whoever has the
    token runs code in the cluster.
    """
    given = os.environ.get("RAY_AUTH_TOKEN", "").strip()
    if given:
        return given, "RAY_AUTH_TOKEN"
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    shown = named or TOKEN_FILE
    try:
        path = Path(shown).expanduser()
        open_to_others = _is_open(path)
        token = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        if named:
            raise UserError(f"RAY_AUTH_TOKEN_PATH is {named}, and there is no such file") from None
        return None
    except (OSError, RuntimeError, UnicodeDecodeError) as error:  # RuntimeError: nobody knows where ~ is
        raise UserError(f"{shown}: the token cannot be read ({error})") from None
    if open_to_others:
        raise UserError(f"{path} can be read by others, and whoever has it runs code in the cluster: chmod 600 {path}")
    if not token:
        raise UserError(f"{path} is empty; copy the cluster's token into it")
    return token, shown


def _is_open(path: Path) -> bool:
    """Whether others can read a file of this user's; what a container mounts as a secret is not theirs to change."""
    found = path.stat()
    own = found.st_uid == os.getuid() and not os.statvfs(path).f_flag & os.ST_RDONLY
    return bool(own and found.st_mode & 0o077)
