"""Where raytl keeps things on disk."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from raytl.core.errors import UserError
from raytl.core.machine import user_folder, writable


def home() -> Path:
    """The user's cache of computed things (pretrained source models, activations): ``RAYTL_HOME`` or ~/.cache/raytl.

    Raises UserError where it cannot be written to.
    """
    configured = os.environ.get("RAYTL_HOME")
    if not configured:
        return user_folder() / ".cache" / "raytl"
    found = Path(configured).absolute()
    if not writable(found):
        raise UserError(f"RAYTL_HOME is {found}, which cannot be written to; set it to a folder of yours")
    return found


def submitted() -> Path:
    """Where data stays that came along with searches from elsewhere, a folder for each lot."""
    return home() / "submitted"


def renew(path: str | os.PathLike[str]) -> None:
    """Note that data is of use now; what came along and was of none for longest is removed first."""
    kept, place = submitted(), Path(path)
    if place.is_relative_to(kept) and place != kept:
        with suppress(OSError):  # of another user, or gone
            os.utime(kept / place.relative_to(kept).parts[0])


def default_storage() -> str:
    """Where runs go without ``--storage``: ``RAYTL_STORAGE``, a folder or a URI, or ./raytl-runs."""
    return os.environ.get("RAYTL_STORAGE", "raytl-runs")
