"""Arrays that are computed once and read by every lane of a node: decoded pixels and frozen-stage activations.

An entry is one ``.npy`` file, written piece by piece and memory-mapped by its readers: it may be larger than the
memory, and its pages are shared by all processes of the node and cost no copy. A lock file makes several processes that
ask for the same entry compute it once. On a node that has never seen the entry it is simply computed again, so nothing
has to be restored when a node dies.

The folder takes at most ``RAYTL_CACHE_BYTES`` bytes (default 20 GiB) and never the last of its disk
(:func:`raytl.core.tidying.room_bytes`).
"""

from __future__ import annotations

import errno
import math
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from itertools import chain
from pathlib import Path
from typing import IO

import numpy as np

from raytl.core import stopping
from raytl.core.errors import UserError
from raytl.core.locks import lock
from raytl.core.memory import memory
from raytl.core.tidying import room_bytes

DEFAULT_BUDGET_BYTES = 20 * 2**30
MEMORY_SHARE = 0.5
"""Share of the free memory that an array may take for which there is no other place: there are other lanes, too."""
LOOKED_PIECES, LOOKED_S = 4, 3.0
"""Pieces, and seconds, after which the pace is taken for what it is."""
OVERTIME = 2.0
"""Times of the seconds that are left which the rest must take to be given up: the pace of some pieces is not all of
it."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LOOK_S = 0.05
_STALE_S = 3600.0
"""After so long an unfinished file belongs to a process that was killed while it wrote."""


class TooLongError(Exception):
    """An array will not be there in time. seconds: until it would be."""

    def __init__(self, count: int, seconds: float, left_s: float) -> None:
        super().__init__(
            f"{count:,} images would take it about {seconds:.0f} s more, and {left_s:.0f} s of the time budget are left"
        )
        self.seconds = seconds


class NotHereError(Exception):
    """What was to be read is not kept on this node, and is not to be made here."""


class ArrayCache:
    """A folder of arrays under a byte budget; the least recently used go first.

    budget_bytes: None for the user's setting (:func:`configured_budget`). memory_share: of the free memory, for an
    array that the folder has no room for. made_s: seconds that this process spent so far on making entries that were
    kept, or on waiting for others that made them.
    An entry that is deleted while a process has it mapped stays readable for that process.
    """

    def __init__(
        self,
        root: Path,
        budget_bytes: int | None = None,
        memory_share: float = MEMORY_SHARE,
    ) -> None:
        self.root = root
        self.memory_share = memory_share
        self.made_s = 0.0
        self._until: float | None = None
        self._making = False
        self.budget_bytes = configured_budget() if budget_bytes is None else budget_bytes
        with _cached_at(root):
            root.mkdir(parents=True, exist_ok=True)

    def has(self, key: str) -> bool:
        """Whether the entry is there, without computing it."""
        return self._path(key).exists()

    def get(self, key: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """As :meth:`stream`, of an array that is computed in one piece."""
        return self.stream(key, None, lambda: [compute()])

    def stream(self, key: str, count: int | None, pieces: Callable[[], Iterable[np.ndarray]]) -> np.ndarray:
        """The entry's array, read-only; made by one process if it is not there, or is there but damaged.

        pieces: makes its rows, some at a time and ``count`` in all, of one shape and type; at least one piece, which is
        empty where there are no rows. No more than one piece is held in memory. count: None for the first piece's.

        An array that the budget or the disk has no room for is held in memory without being kept: a trial must not fail
        for that. Raises UserError where the memory has no room for it either, or where it cannot be written for another
        reason, TooLongError where it is seen not to be there within the seconds that there are (:meth:`within`).
        """
        path = self._path(key)
        kept = _load(path)
        if kept is not None:
            return kept
        with self._timed(path), file_lock(path.with_suffix(".lock")):
            kept = _load(path)  # another process may have made it while this one waited
            if kept is not None:
                return kept
            return self._make(path, count, self._in_time(pieces(), count))

    def _in_time(self, pieces: Iterable[np.ndarray], count: int | None) -> Iterator[np.ndarray]:
        """The pieces; raises TooLongError once it shows that the last will be there far too late.

        Told by the pace after the first one, before which networks and readers get ready.
        """
        first, done, started = 0, 0, 0.0
        for number, piece in enumerate(pieces):
            stopping.check()
            yield piece
            now = time.perf_counter()
            if not number:
                first, started = len(piece), now
                continue
            done += len(piece)
            known = number >= LOOKED_PIECES and now - started >= LOOKED_S and done
            if known and count is not None and self._until is not None:
                left_s, to_come = max(0.0, self._until - now), (now - started) / done * (count - first - done)
                if to_come > OVERTIME * max(left_s, LOOKED_S):
                    raise TooLongError(count, to_come, left_s)

    def expect(self, count: int, seconds: float) -> None:
        """Raise TooLongError where what is to be made of so many images would be there far too late."""
        if self._until is not None:
            left_s = max(0.0, self._until - time.perf_counter())
            if seconds > OVERTIME * max(left_s, LOOKED_S):
                raise TooLongError(count, seconds, left_s)

    @property
    def hurries(self) -> bool:
        """Whether what is made now has to be there in time."""
        return self._until is not None

    @contextmanager
    def within(self, seconds: float | None) -> Iterator[None]:
        """Have all that is made meanwhile made in so many seconds or given up; None for any number."""
        self._until = None if seconds is None else time.perf_counter() + seconds
        try:
            yield
        finally:
            self._until = None

    @contextmanager
    def _timed(self, path: Path) -> Iterator[None]:
        """Count the time of an entry that is there afterwards; once, where another one is made for it."""
        outermost, self._making = not self._making, True
        started = time.perf_counter()
        try:
            yield
        finally:
            if outermost:
                self._making = False
                if path.exists():  # else the next one who asks takes as long
                    self.made_s += time.perf_counter() - started

    def most_bytes(self) -> int:
        """Bytes that all entries may have together: what was not used lately goes where others need the room."""
        return min(self.budget_bytes, room_bytes(self.root) + self.size_bytes())

    def size_bytes(self) -> int:
        """Bytes of all entries."""
        return sum(path.stat().st_size for path in self.root.glob("*.npy"))

    def _path(self, key: str) -> Path:
        return self.root / f"{key}.npy"

    def _make(self, path: Path, count: int | None, pieces: Iterator[np.ndarray]) -> np.ndarray:
        """Write an entry; what is killed meanwhile leaves a file that is never read."""
        first = next(pieces)
        shape, pieces = (len(first) if count is None else count, *first.shape[1:]), chain([first], pieces)
        if not self._make_room(math.prod(shape) * first.itemsize):
            return self._in_memory(shape, pieces)
        partial, start, done = path.with_suffix(f".{socket.gethostname()}-{os.getpid()}.part"), 0, 0
        try:
            with _cached_at(self.root):
                file = partial.open("wb", buffering=0)
            with file:
                for piece in pieces:
                    try:
                        start = start or _write_header(file, shape, piece.dtype)
                        _write_rows(file, piece)
                    except OSError as error:
                        if error.errno not in _FULL:
                            raise _unusable(self.root, error) from error
                        before = [np.memmap(partial, piece.dtype, "r", start, (done, *shape[1:]))] if done else []
                        return self._in_memory(shape, chain(before, [piece], pieces))
                    done += len(piece)
            _check_count(done, shape[0])
            made = _load(partial)  # before others can let it go
            assert made is not None
            with _cached_at(self.root):
                partial.replace(path)
            return made
        finally:
            partial.unlink(missing_ok=True)

    def _in_memory(self, shape: tuple[int, ...], pieces: Iterator[np.ndarray]) -> np.ndarray:
        """The array where the folder has no room for it. Raises UserError where the memory has none either."""
        first = next(pieces)
        if len(first) == shape[0]:
            return first
        size_bytes, free = math.prod(shape) * first.itemsize, memory()
        if free is not None and size_bytes > self.memory_share * free.for_lanes:
            over_budget = size_bytes > self.budget_bytes
            why = f"RAYTL_CACHE_BYTES is {self.budget_bytes}" if over_budget else "its disk is full"
            do = "raise that" if over_budget else "free space there, point RAYTL_HOME at another place"
            raise UserError(
                f"{self.root}: no room for {size_bytes / 2**20:,.0f} MiB of images as networks see them ({why}), nor "
                f"in memory, of which {free.available / 2**20:,.0f} MiB are free; {do} or set a smaller image_size"
            )
        array, done = np.empty(shape, first.dtype), 0
        for piece in chain([first], pieces):
            array[done : done + len(piece)] = piece
            done += len(piece)
        _check_count(done, shape[0])
        return array

    def _make_room(self, size_bytes: int) -> bool:
        """Let the least recently used go until a new entry fits; whether it does then."""
        self._remove_unfinished()
        entries = []
        for path in self.root.glob("*.npy"):
            with suppress(FileNotFoundError):
                stat = path.stat()
                entries.append((stat.st_mtime, stat.st_size, path))
        taken = sum(size for _, size, _ in entries)
        promised, to_come = self._being_written()
        excess = size_bytes - min(self.budget_bytes - promised - taken, room_bytes(self.root) - to_come)
        if excess > taken:
            return False
        for _, size, path in sorted(entries):
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= size
        return True

    def _being_written(self) -> tuple[int, int]:
        """Bytes that entries which others are writing will have, and how many of these are still to come."""
        promised = to_come = 0
        for partial in self.root.glob("*.part"):
            with suppress(OSError, ValueError), partial.open("rb") as file:
                np.lib.format.read_magic(file)
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
                whole = math.prod(shape) * dtype.itemsize + file.tell()
                promised += whole
                to_come += max(0, whole - partial.stat().st_size)
        return promised, to_come

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


def _write_header(file: FileIO, shape: tuple[int, ...], dtype: np.dtype) -> int:
    """The beginning of a ``.npy`` file; returns its length in bytes."""
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, described)
    return file.tell()


def _write_rows(file: FileIO, rows: np.ndarray) -> None:
    """Append rows. By plain writes: on a full disk they fail, where storing into a mapping would kill the process."""
    if not rows.size:
        return
    left = np.ascontiguousarray(rows).data.cast("B")
    while left:
        left = left[file.write(left) :]


def _check_count(done: int, count: int) -> None:
    if done != count:
        raise ValueError(f"{done} rows were made, and {count} announced")


def _load(path: Path) -> np.ndarray | None:
    """The array in a file, mapped; None where there is no such file or it is not whole."""
    try:
        os.utime(path)
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        return array
    except (FileNotFoundError, ValueError, EOFError):
        return None


@contextmanager
def _cached_at(root: Path) -> Iterator[None]:
    """What the system says against it is a sentence."""
    try:
        yield
    except OSError as error:
        raise _unusable(root, error) from error


def _unusable(place: Path, error: OSError) -> UserError:
    return UserError(f"{place}: cannot be used as a cache ({error.strerror}); point RAYTL_HOME at another place")


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes of one node. The empty lock file stays: deleting it would race.

    Who waits for it looks again and again, so that it can be stopped: what another makes may take minutes. Where the
    file system has no locks, what several ask for at once is made by each of them.

    Raises UserError where the file cannot be made.
    """
    with _cached_at(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = path.open("a")
    with opened as file:
        while not _locked(file):
            stopping.check()
            time.sleep(_LOOK_S)
        yield


def _locked(file: IO[str]) -> bool:
    """Whether the file's lock was to be had, or there are no locks."""
    try:
        lock(file, wait=False)
    except BlockingIOError:
        return False
    return True
