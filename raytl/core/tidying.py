"""The parts of raytl's cache on this machine, and how they are kept from growing: what was not used for longest goes.

Nothing in here is a run, a model that was exported or an endpoint. Most of it is made or fetched again where it is
missing; what is not, or not the same, goes only when somebody names its part.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SUBMITTED_BYTES = 10 * 2**30
RESERVED_SHARE, RESERVED_BYTES = 0.05, 2 * 2**30
"""Of a disk, what the cache leaves free: the share, and of a large disk so many bytes at most."""
SPARED_S = 24 * 3600.0
"""What was used no longer ago is not removed by itself, whatever there is: a search may be at it."""


@dataclass(frozen=True)
class Part:
    """A part of the cache.

    name: of its folder. holds: what is in it, in words. limit_bytes: what it may take; None where nothing goes by
    itself, or its own module says. entries: pattern of what is kept or removed as a whole, below the folder.
    again: whether it is made or fetched again, the same, where it is missing.
    """

    name: str
    holds: str
    limit_bytes: int | None
    entries: str = "*"
    again: bool = False


@dataclass(frozen=True)
class Entry:
    """What is kept or removed as a whole: a file or a folder. used: when, in seconds since the epoch."""

    path: Path
    size_bytes: int
    used: float


ARRAYS = Part("arrays", "images as networks see them, and activations of frozen stages", None, "*.npy", again=True)
SOURCES = Part("sources", "source models trained on source domains", 5 * 2**30)
RECIPES = Part("recipes", "weights written out for scripts of raytl recipe", None)
READ = Part("runs", "copies of runs at URIs that were looked at", 5 * 2**30, "*/read/*", again=True)
UNPACKED = Part("unpacked", "packed archives, and large tables in archives, as they are read", 20 * 2**30, again=True)
SUBMITTED = Part("submitted", "data that came along with raytl submit", SUBMITTED_BYTES)
PARTS = (ARRAYS, SOURCES, RECIPES, READ, UNPACKED, SUBMITTED)


def room_bytes(folder: Path) -> int:
    """What the cache may still take of the disk that a folder is on; below 0 where more has to go."""
    disk = shutil.disk_usage(folder)
    return int(disk.free - min(RESERVED_SHARE * disk.total, RESERVED_BYTES))


def entries(root: Path, part: Part) -> list[Entry]:
    """What a part holds, unused for longest first. root: the cache (:func:`raytl.core.paths.home`)."""
    found = []
    for path in (root / part.name).glob(part.entries):
        if path.name.endswith(".lock") or path.name.startswith("."):
            continue
        with suppress(OSError):  # others may be removing it
            found.append(Entry(path, size_bytes(path), path.stat().st_mtime))
    return sorted(found, key=lambda entry: (entry.used, entry.path))


def size_bytes(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; links count nothing."""
    return sum(file.lstat().st_size for file in _files(path))


def evict(
    root: Path, part: Part, spared_s: float = SPARED_S, *, spares: Callable[[Path], bool] = lambda path: False
) -> None:
    """Remove what was not used for longest until a part is within its limit.

    spared_s: what was used since stays. spares: tells what stays in any case.
    """
    assert part.limit_bytes is not None
    held = entries(root, part)
    excess = sum(entry.size_bytes for entry in held) - part.limit_bytes
    for entry in held:
        if excess <= 0 or time.time() - entry.used <= spared_s:
            return
        if spares(entry.path):
            continue
        remove(entry)
        excess -= entry.size_bytes


def touch(path: Path) -> None:
    """Note that an entry is of use now."""
    with suppress(OSError):  # another user's, or gone
        os.utime(path)


def remove(entry: Entry) -> None:
    """Remove an entry; what is gone by now, or is another user's, is passed over."""
    if entry.path.is_dir() and not entry.path.is_symlink():
        shutil.rmtree(entry.path, ignore_errors=True)
    else:
        with suppress(OSError):
            entry.path.unlink()


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir() and not path.is_symlink():
        yield from (file for file in path.rglob("*") if not file.is_symlink() and not file.is_dir())
    else:
        yield path
