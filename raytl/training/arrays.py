"""Arrays that are computed once and read by every lane of a node: decoded pixels and frozen-stage activations.

An entry is one ``.npy`` file, memory-mapped by its readers: the pages are shared by all processes of the node and cost
no copy. A lock file makes several processes that ask for the same entry compute it once. On a node that has never seen
the entry it is simply computed again, so nothing has to be restored when a node dies.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from raytl.core.errors import UserError

DEFAULT_BUDGET_BYTES = 20 * 2**30
_STALE_S = 3600.0
"""After so long an unfinished file belongs to a process that was killed while it wrote."""


class ArrayCache:
    """A folder of arrays under a byte budget; the least recently used go first.

    An entry that is deleted while a process has it mapped stays readable for that process.
    """

    def __init__(self, root: Path, budget_bytes: int = DEFAULT_BUDGET_BYTES) -> None:
        self.root = root
        self.budget_bytes = budget_bytes
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(root, error) from error

    def has(self, key: str) -> bool:
        """Whether the entry is there, without computing it."""
        return self._path(key).exists()

    def get(self, key: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """The entry's array, read-only; computed by one process if it is not there, or is there but damaged.

        An array above the whole budget is returned without being kept. Raises UserError where the disk is full.
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
            if fresh.nbytes > self.budget_bytes:
                return fresh
            self._write(path, fresh)
            kept = _load(path)
            self._evict(keep=path)
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
            raise UserError(
                f"{self.root}: cannot keep {array.nbytes / 2**20:.0f} MiB of cached arrays "
                f"({error.strerror or 'no space left'}); free space there, or point RAYTL_HOME at a larger disk"
            ) from error

    def _evict(self, keep: Path) -> None:
        for partial in self.root.glob("*.part"):
            with suppress(FileNotFoundError):
                if partial.stat().st_mtime < time.time() - _STALE_S:
                    partial.unlink()
        entries = []
        for path in self.root.glob("*.npy"):
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            entries.append((stat.st_mtime, stat.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self.budget_bytes:
                return
            if path != keep:
                path.unlink(missing_ok=True)
                total -= size


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
