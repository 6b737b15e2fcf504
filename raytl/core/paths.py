"""Where raytl keeps things on disk."""

from __future__ import annotations

import os
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


def default_storage() -> str:
    """Where runs go without ``--storage``: ``RAYTL_STORAGE``, a folder or a URI, or ./raytl-runs."""
    return os.environ.get("RAYTL_STORAGE", "raytl-runs")
