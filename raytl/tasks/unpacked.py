"""What has to be unpacked before anything in it is found: once, into the cache on disk, from where it is read in place.

What is unpacked has its name by its content, so that nothing stale is ever read, and is unpacked again where it went.
"""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from raytl.core import tidying
from raytl.core.memory import in_units
from raytl.core.paths import home

CHUNK_BYTES = 2**20
RENEWED_S = 3600.0
"""How often a process that goes on reading something says that it is of use."""
_STALE_S = 3600.0
_LOOK_BYTES = 64 * 2**20
_renewed: dict[str, float] = {}


class NoRoomError(OSError):
    """The disk or the cache has no room for what is unpacked. It says how to make some."""


def unpacked(name: str, unpack: Callable[[IO[bytes]], None]) -> Path:
    """The file of this name in the cache, which ``unpack`` writes where there is none yet.

    name: by the content that it is unpacked from. Raises NoRoomError where the disk does not take it, or it is more
    than the cache may hold of such files, OSError where there is no writing there, and what ``unpack`` raises.
    """
    folder = home() / tidying.UNPACKED.name
    target = folder / name
    if target.is_file():
        renew(target)
        return target
    folder.mkdir(parents=True, exist_ok=True)
    tidying.evict(home(), tidying.UNPACKED)
    _remove_halves(folder)
    temporary = folder / f".{name}.{secrets.token_hex(4)}.tmp"
    try:
        with temporary.open("wb") as file:
            unpack(_Bounded(file, folder))  # type: ignore[arg-type]
        temporary.replace(target)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise _no_room(folder) from None
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    tidying.evict(home(), tidying.UNPACKED)
    return target


def is_copy(path: str) -> bool:
    """Whether a file is what something was unpacked to."""
    return Path(path).parent.name == tidying.UNPACKED.name and Path(path).parent.parent == home()


def renew(path: str | os.PathLike[str]) -> None:
    """Note that a file is of use now, every so often, if it is one of the cache's: that of others keeps its age."""
    text, now = os.fspath(path), time.monotonic()
    if now - _renewed.get(text, -RENEWED_S) < RENEWED_S:
        return
    if is_copy(text):
        tidying.touch(Path(text))
    _renewed[text] = now


def _remove_halves(folder: Path) -> None:
    """What processes left that were killed while they unpacked."""
    for path in folder.glob(".*.tmp"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _STALE_S:
                path.unlink()


def _no_room(folder: Path) -> NoRoomError:
    how = "make room there, with `raytl cache clear` too, or set RAYTL_HOME to a folder of another disk"
    return NoRoomError(f"the disk of {folder} has no room for what it unpacks to; {how}")


class _Bounded:
    """A file to write to as long as there is room."""

    def __init__(self, file: IO[bytes], folder: Path) -> None:
        self._file, self._folder = file, folder
        self._written = self._looked = 0

    def write(self, data: bytes) -> int:
        """Raises NoRoomError where it would be too much for the disk, or for the cache."""
        self._written += len(data)
        most = tidying.UNPACKED.limit_bytes or 0
        if self._written > most:
            raise NoRoomError(f"it unpacks to more than {in_units(most)}; unpack it and give the folder")
        if self._written >= self._looked:
            self._looked = self._written + _LOOK_BYTES
            if tidying.room_bytes(self._folder) < _LOOK_BYTES:
                raise _no_room(self._folder)
        return self._file.write(data)
