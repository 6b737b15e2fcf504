"""Parquet and Arrow files as groups of rows that can be begun with anywhere."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

import pyarrow as pa

from raytl.tasks.unpacked import renew

AT_ONCE_BYTES, MOST_ROWS = 4 * 2**20, 256
"""Of rows that are read at once: about so much, and no more rows, as equal images may lie in the file only once."""
_LOCAL_BYTES, _FAR_BYTES = 2**20, 8 * 2**20  # that are asked for at once


@dataclass(frozen=True)
class Groups:
    """Where the groups of rows in a file begin.

    starts: the first row of each, and behind them how many rows there are. mean_bytes: of a row, or of an image, in
    each group of a Parquet file: a few photographs may lie among many thumbnails. places: in an Arrow stream, the byte
    that each group begins with; None in other files. arrow: whether it is an Arrow file, and no Parquet.
    """

    starts: tuple[int, ...]
    mean_bytes: tuple[float, ...] = ()
    places: tuple[int, ...] | None = None
    arrow: bool = False


def opened(path: str, filesystem: Any) -> Any:
    """An open file. Raises OSError, and what the file system raises."""
    if filesystem is not None:
        return filesystem.open_input_file(path)
    renew(path)
    return Path(path).open("rb")  # Arrow opens no local path that is not UTF-8


def size_of(file: Any) -> int:
    """Bytes of an open file."""
    return int(file.size()) if hasattr(file, "size") else os.fstat(file.fileno()).st_size


def parquet(file: Any, *, far: bool) -> Any:
    """A Parquet file of which some is read as it is wanted. Raises what Arrow does where it is none."""
    import pyarrow.parquet as pq

    # Without a buffer, or with what is to come read before, all of a row group's column is in memory at once.
    return pq.ParquetFile(file, buffer_size=_FAR_BYTES if far else _LOCAL_BYTES, pre_buffer=False)


def parquet_groups(found: Any, column: str | None = None) -> Groups:
    """Of a Parquet file, with the means of one column or of whole rows."""
    meta = found.metadata
    groups = [meta.row_group(number) for number in range(meta.num_row_groups)]

    def size_bytes(group: Any) -> int:
        parts = map(group.column, range(group.num_columns))
        own = (part for part in parts if column is None or f"{part.path_in_schema}.".startswith(f"{column}."))
        return sum(part.total_uncompressed_size for part in own)

    means = tuple(size_bytes(group) / max(1, group.num_rows) for group in groups)
    return Groups((0, *accumulate(group.num_rows for group in groups)), means)


def parquet_rows(found: Any, groups: Groups, first: int = 0, columns: Sequence[str] | None = None) -> Iterator[Any]:
    """Record batches from a row group on: some rows, as they are read at once."""
    at_once = [int(max(1, min(MOST_ROWS, AT_ONCE_BYTES // max(1.0, mean)))) for mean in groups.mean_bytes]
    for rows, like in groupby(
        range(first, len(at_once)), at_once.__getitem__
    ):  # small ones of a kind are read together
        yield from found.iter_batches(rows, list(like), columns=columns, use_threads=False)


class ArrowFile:
    """An Arrow file: a stream, which Hugging Face's ``save_to_disk`` writes, or a file with an index (Feather).

    indexed: which of the two. schema: its columns. Raises what Arrow does where it is neither.
    """

    def __init__(self, file: Any) -> None:
        self._file = file if isinstance(file, pa.NativeFile) else pa.PythonFile(file, "r")
        self.indexed = self._file.read(6) == b"ARROW1"
        self._file.seek(0)
        self.schema = pa.ipc.open_file(self._file).schema if self.indexed else pa.ipc.read_schema(self._file)
        self._begin = 0 if self.indexed else self._file.tell()

    def whole(self) -> Any:
        """All of it as a table."""
        self._file.seek(0)
        return (pa.ipc.open_file(self._file) if self.indexed else pa.ipc.open_stream(self._file)).read_all()

    @property
    def can_be_begun_anywhere(self) -> bool:
        """Whether each of its record batches can be read alone: not where words in it stand for what is before it."""
        return not any("dictionary" in str(kind) for kind in self.schema.types)

    def batches(self) -> Iterator[tuple[int, Any]]:
        """All record batches, each with the byte or the number by which it is found again."""
        if self.indexed:
            found = pa.ipc.open_file(self._file)
            for number in range(found.num_record_batches):
                yield number, found.get_batch(number)
            return
        place = self._begin
        while True:
            self._file.seek(place)
            try:
                message = pa.ipc.read_message(self._file)
            except EOFError:
                return
            yield place, pa.ipc.read_record_batch(message, self.schema)
            place = self._file.tell()

    def rows(self, groups: Groups, first: int, column: str) -> Iterator[Any]:
        """Record batches from one on, with one column where the others can be passed over."""
        if groups.places is not None:
            for place in groups.places[first:]:
                self._file.seek(place)
                yield pa.ipc.read_record_batch(pa.ipc.read_message(self._file), self.schema)
            return
        only = pa.ipc.IpcReadOptions(included_fields=[self.schema.get_field_index(column)])
        found = pa.ipc.open_file(self._file, options=only)
        for number in range(first, len(groups.starts) - 1):
            yield found.get_batch(number)
