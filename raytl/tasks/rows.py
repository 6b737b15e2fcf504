"""Images in the rows of a large Parquet or Arrow file, which stay there until they are wanted.

Rows are read in their order, some at a time: a row group is read once where its images are asked for one after the
other, and of Parquet never as a whole, however long it is. What a process holds of all such files is bounded.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa
from PIL import Image

from raytl.core.errors import UserError, cause
from raytl.core.hashing import hash_bytes
from raytl.core.machine import cores
from raytl.tasks.cells import image_in
from raytl.tasks.decoding import decode
from raytl.tasks.row_groups import ArrowFile, Groups, opened, parquet, parquet_rows, size_of
from raytl.tasks.unpacked import is_copy
from raytl.tasks.waiting import waiting

HELD_BYTES = 64 * 2**20
"""Of what was read last, in a process. What is being read, and as many rows as threads may be at, are held anyhow."""
MOST_OPEN = 16
"""Files that a process has open."""
MOST_READINGS = 16
"""Places that a process goes on reading from, for lanes that are at different ones: as many as may well ask one driver.
Each takes a buffer and a few pages; where there are more askers than places, each begins its row group again all the
time."""


class InPlace(Protocol):
    """Where the images of a table are."""

    filesystem: Any

    def read(self, row: int, name: str, *, known: bool = True) -> bytes:
        """An encoded image, as :meth:`Rows.read`."""

    def forget(self) -> None:
        """Begin anew with the file that is there."""

    def on(self, filesystem: Any) -> InPlace:
        """The same by another way to where the file is."""


@dataclass(frozen=True)
class RowItem:
    """An image in a row of a large table. row: counted from 0; in a text, the image's number."""

    name: str
    rows: InPlace = field(repr=False)
    row: int
    digest: str = ""

    @property
    def filesystem(self) -> Any:
        """The table's."""
        return self.rows.filesystem

    def read(self, size_bytes: int = -1) -> bytes:
        """The encoded bytes, or the first ``size_bytes`` of them.

        Raises UserError where the table is not there any more, or has another image in the row than it had.
        """
        data = self.rows.read(self.row, self.name, known=bool(self.digest))
        if self.digest and hash_bytes(data) != self.digest:
            self.rows.forget()
            raise changed(self.name)
        return data if size_bytes < 0 else data[:size_bytes]

    def open(self) -> Image.Image:
        """The decoded image."""
        return decode(self.read(), self.name)


class Rows:
    """A column of images in a table.

    path: on the local disk, or within ``filesystem``. column: its name there. groups: of the file, with the mean sizes
    of images as they lie there. size_bytes: of the file.
    """

    def __init__(self, path: str, filesystem: Any, column: str, groups: Groups, size_bytes: int) -> None:
        self.path, self.filesystem, self.column = path, filesystem, column
        self.groups, self.size_bytes = groups, size_bytes
        self._file: Any = None
        self._table: Any = None
        self._seen: object = None  # of the file that was read first, in the process that did
        self._is_first = True
        self._held: list[tuple[int, Any]] = []  # (first row, images), what was wanted last at the end
        self._readings: list[_Reading] = []  # likewise
        self._lock = threading.RLock()  # its own: a storage that does not answer keeps nobody from other tables

    def __reduce__(self) -> tuple[Any, ...]:
        return Rows, (self.path, self.filesystem, self.column, self.groups, self.size_bytes)

    def on(self, filesystem: Any) -> Rows:
        """The same by another way to where the file is."""
        return Rows(self.path, filesystem, self.column, self.groups, self.size_bytes)

    def hold_open(self, file: Any, table: Any) -> None:
        """Begin with a file that is open: what takes its place meanwhile is not read."""
        with self._lock:
            self._file, self._table, self._seen = file, table, state(file)
            _shelve(self)

    def read(self, row: int, name: str, *, known: bool = True) -> bytes:
        """The encoded image of a row. Raises UserError where it cannot be had any more.

        name: for messages. known: whether the caller knows what it has to be, so that a file in the first one's place
        will do.
        """
        with self._lock, waiting(name, self.filesystem):
            was_open, began = self._file is not None, time.monotonic()
            try:
                cell = self._cell(row)
            except _GOES_WRONG as error:
                self._close()
                if not was_open or time.monotonic() - began > _LONG_S:
                    raise self._lost(error, name) from None
                try:  # a mount that was away for a moment, or what has taken the file's place
                    cell = self._cell(row)
                except _GOES_WRONG as again:
                    self._close()
                    raise self._lost(again, name) from None
        image = image_in(cell)
        if image is None or not (known or self._is_first):
            raise changed(name)
        return image

    def forget(self) -> None:
        """Begin anew with the file that is there."""
        with self._lock:
            self._held.clear()
            self._close()

    def _lost(self, error: Exception, name: str) -> UserError:
        if isinstance(error, FileNotFoundError):
            return gone(name, self.path)
        if isinstance(error, _OTHER):
            return changed(name)
        return UserError(f"{name}: cannot be read any more ({cause(error)}); check the table")

    def held_bytes(self) -> int:
        """What is held of the images."""
        return sum(images.get_total_buffer_size() for _, images in self._held)

    def _cell(self, row: int) -> Any:
        for place in reversed(range(len(self._held))):
            first, images = self._held[place]
            if first <= row < first + len(images):
                self._held.append(self._held.pop(place))
                return images[row - first].as_py()
        reading = self._reading(row)
        while True:
            first, images = reading.next()
            if row < first + len(images):
                self._held.append((first, images))
                _shelve(self)
                return images[row - first].as_py()

    def _reading(self, row: int) -> _Reading:
        """One that comes by the row next: where none has begun with its group, from the group's first row on."""
        group = bisect_right(self.groups.starts, row) - 1
        start = self.groups.starts[group]
        near = [one for one in self._readings if start <= one.row <= row]
        found = max(near, key=lambda one: one.row, default=None)
        if found is None:
            self._open()
            found = _Reading(self._batches(group), self.column, start)
        self._readings = [*(one for one in self._readings if one is not found), found]
        return found

    def _batches(self, group: int) -> Iterator[Any]:
        if self.groups.arrow:
            return iter(self._table.rows(self.groups, group, self.column))
        return parquet_rows(self._table, self.groups, group, [self.column])

    def _open(self) -> None:
        if self._table is not None:
            return
        self._file = opened(self.path, self.filesystem)
        if size_of(self._file) != self.size_bytes:
            raise _OtherFileError
        self._is_first = self._seen is None or state(self._file) == self._seen
        far = self.filesystem is not None
        self._table = ArrowFile(self._file) if self.groups.arrow else parquet(self._file, far=far)

    def _close(self) -> None:
        self._readings.clear()
        if self._file is not None:
            self._file.close()
        self._file = self._table = None


class _OtherFileError(Exception):
    """Another file is in the place of one that was read from."""


_OTHER = (_OtherFileError, StopIteration, KeyError, IndexError, EOFError)  # it has fewer rows, or other columns
_GOES_WRONG = (pa.ArrowException, OSError, *_OTHER)


@dataclass
class _Reading:
    """A way through a table. row: that comes next."""

    batches: Iterator[Any]
    column: str
    row: int

    def next(self) -> tuple[int, Any]:
        """The next images, and the row of the first. Raises StopIteration where there are no more."""
        images, first = next(self.batches).column(self.column), self.row
        self.row += len(images)
        return first, images


def gone(name: str, path: str) -> UserError:
    """The error for a table that is not there any more."""
    if is_copy(path):
        return UserError(f"{name}: what its table was unpacked to went from the cache; run again to unpack it anew")
    return UserError(f"{name}: the table is not there any more; put it back")


def changed(name: str) -> UserError:
    """The error for an image that is another than it was."""
    return UserError(f"{name}: is not what it was when the table was first read; put it back or begin anew")


_LONG_S = 30.0
"""After so long a storage was asked again and again, and is not asked anew."""
_shelf = threading.Lock()
_recent: list[weakref.ref[Rows]] = []  # what was read from last at the end


def _shelve(rows: Rows) -> None:
    """Note that a table was read from, and let go of what is too much of those that were not for longest.

    Of one that is being read nothing goes: who reads it looks again.
    """
    with _shelf, ExitStack() as stack:
        _let_go(rows, stack)


def _let_go(rows: Rows, stack: ExitStack) -> None:
    """stack: holds the locks of the tables that something may go of."""
    _recent[:] = [one for one in _recent if one() is not None and one() is not rows] + [weakref.ref(rows)]
    tables = [table for one in _recent if (table := one()) is not None]
    free = [table for table in tables if table._lock.acquire(blocking=False)]
    for table in free:
        stack.callback(table._lock.release)
    for table in tables[:-MOST_OPEN]:
        if table in free:
            table._close()
    tables = free
    readings = [(table, one) for table in tables for one in table._readings]
    for table, reading in readings[:-MOST_READINGS]:
        table._readings = [one for one in table._readings if one is not reading]
    parts = [(table, part) for table in tables for part in table._held]
    held = sum(images.get_total_buffer_size() for _, (_, images) in parts)
    rows_held = sum(len(images) for _, (_, images) in parts)
    rows_in_use = min(16, 2 * cores())
    for table, part in parts:
        first, images = part
        if held <= HELD_BYTES or rows_held - len(images) < rows_in_use:
            break
        if all(reading.row != first + len(images) for reading in table._readings):  # which would have to begin anew
            held, rows_held = held - images.get_total_buffer_size(), rows_held - len(images)
            table._held = [one for one in table._held if one is not part]


def state(file: Any) -> object:
    """What of an open file is another when a file is: of one elsewhere nothing but its size is known."""
    if hasattr(file, "size"):
        return None
    status = os.fstat(file.fileno())
    return status.st_mtime_ns, status.st_ino
