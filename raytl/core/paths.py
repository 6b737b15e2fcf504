"""Where raytl keeps things on disk."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """The user's cache of computed things (pretrained source models, activations): ``RAYTL_HOME`` or ~/.cache/raytl."""
    configured = os.environ.get("RAYTL_HOME")
    return Path(configured).absolute() if configured else Path.home() / ".cache" / "raytl"


def default_storage() -> Path:
    """Where runs go without ``--storage``: ``RAYTL_STORAGE`` or ./raytl-runs."""
    return Path(os.environ.get("RAYTL_STORAGE", "raytl-runs"))
