"""Two places on a disk exchanged at once, so that whoever looks finds the one or the other at each of them."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


def exchange(one: Path, other: Path) -> bool:
    """Exchange what lies at two places of one file system, both there; False where that cannot be done at once.

    Linux can, on its usual file systems; then no moment, nor a kill, finds one of the places empty.
    """
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None), "renameat2", None)  # a C library may be without it
    return rename is not None and rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0
