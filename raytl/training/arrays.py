"""Arrays that are computed once and read by every lane of a node: decoded pixels and frozen-stage activations.

An entry is one ``.npy`` file, memory-mapped by its readers: the pages are shared by all processes of the node and cost
no copy. A lock file makes several processes that ask for the same entry compute it once. On a node that has never seen
the entry it is simply computed again, so nothing has to be restored when a node dies.

The folder takes at most ``RAYTL_CACHE_BYTES`` bytes (default 20 GiB) and never the last twentieth of its disk.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from raytl.core.errors import UserError

DEFAULT_BUDGET_BYTES = 20 * 2**30
DISK_RESERVE = 0.05
"""Share of the disk that the cache leaves free, whatever its budget."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None)  # NumPy says no more than that it wrote too little
_STALE_S = 3600.0
"""After so long an unfinished file belongs to a process that was killed while it wrote."""


class ArrayCache:
    """A folder of arrays under a byte budget; the least recently used go first.

    budget_bytes: None for the user's setting (:func:`configured_budget`). disk_reserve: share of the disk left free.
    An entry that is deleted while a process has it mapped stays readable for that process.
    """

    def __init__(self, root: Path, budget_bytes: int | None = None, disk_reserve: float = DISK_RESERVE) -> None:
        self.root = root
        self.disk_reserve = disk_reserve
        self.budget_bytes = configured_budget() if budget_bytes is None else budget_bytes
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(root, error) from error

    def has(self, key: str) -> bool:
        """Whether the entry is there, without computing it."""
        return self._path(key).exists()

    def get(self, key: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """The entry's array, read-only; computed by one process if it is not there, or is there but damaged.

        An array that the budget or the disk has no room for is returned without being kept: a trial must not fail for
        that. Raises UserError where it cannot be written for another reason.
        """
        path = self._path(key)
        kept = _load(path)
        if kept is not None:
            return kept
        with file_lock(path.with_suffix(".lock")):
            kept = _load(path)  # another process may have made it while this one waited
            if kept is not None:
                return kept
            fresh = np.ascontiguousarray(compute())
            if not self._make_room(fresh.nbytes):
                return fresh
            self._write(path, fresh)
            kept = _load(path)
        return fresh if kept is None else kept

    def size_bytes(self) -> int:
        """Bytes of all entries."""
        return sum(path.stat().st_size for path in self.root.glob("*.npy"))

    def _path(self, key: str) -> Path:
        return self.root / f"{key}.npy"

    def _write(self, path: Path, array: np.ndarray) -> None:
        partial = path.with_suffix(f".{os.getpid()}.part")
        try:
            with partial.open("wb") as file:
                np.save(file, array, allow_pickle=False)
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            if error.errno not in _FULL:
                raise _unusable(self.root, error) from error

    def _make_room(self, size_bytes: int) -> bool:
        """Let the least recently used go until a new entry fits; whether it does then."""
        self._remove_unfinished()
        disk = shutil.disk_usage(self.root)
        entries = []
        for path in self.root.glob("*.npy"):
            with suppress(FileNotFoundError):
                stat = path.stat()
                entries.append((stat.st_mtime, stat.st_size, path))
        taken = sum(size for _, size, _ in entries)
        reserved = int(self.disk_reserve * disk.total)
        excess = size_bytes - min(self.budget_bytes - taken, disk.free - reserved)
        if excess > taken:
            return False
        for _, size, path in sorted(entries):
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= size
        return True

    def _remove_unfinished(self) -> None:
        for partial in self.root.glob("*.part"):
            with suppress(FileNotFoundError):
                if partial.stat().st_mtime < time.time() - _STALE_S:
                    partial.unlink()


def configured_budget() -> int:
    """``RAYTL_CACHE_BYTES``, or the default. Raises UserError where that is not a whole number."""
    given = os.environ.get("RAYTL_CACHE_BYTES")
    if given is None:
        return DEFAULT_BUDGET_BYTES
    if not given.isdecimal():
        raise UserError(f"RAYTL_CACHE_BYTES is '{given}'; give a whole number of bytes, such as {DEFAULT_BUDGET_BYTES}")
    return int(given)


def _load(path: Path) -> np.ndarray | None:
    """The array in a file, mapped; None where there is no such file or it is not whole."""
    try:
        os.utime(path)
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        return array
    except (FileNotFoundError, ValueError, EOFError):
        return None


def _unusable(place: Path, error: OSError) -> UserError:
    return UserError(f"{place}: cannot be used as a cache ({error.strerror}); point RAYTL_HOME at another place")


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes of one node. The empty lock file stays: deleting it would race.

    Raises UserError where the file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = path.open("a")
    except OSError as error:
        raise _unusable(path.parent, error) from error
    with opened as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)
