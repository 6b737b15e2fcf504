"""Large Parquet files without the images that are in them: these stay where they are (:mod:`raytl.tasks.rows`)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import pyarrow as pa

from raytl.core.names import printable
from raytl.tasks.cells import content, image_in
from raytl.tasks.readers.labels import is_list
from raytl.tasks.readers.listing import Place
from raytl.tasks.rows import RowItem, Rows, rows_at_once, size_of

_SHORT_BYTES = 1024  # of a cell that is held: to say where it is takes about as much
_LEFT = 32  # of a longer one


@dataclass(frozen=True)
class Light:
    """A table with something short in place of each image. images: of each column, which rows have one in the file."""

    table: Any
    images: list[bytearray]
    _place: Place
    _file: Any
    _parquet: Any

    def items(self, column: int) -> dict[int, RowItem]:
        """The images of a column that are in the file, by row; it stays open for them."""
        chosen = self.images[column] if column < len(self.images) else bytearray()
        if not any(chosen):
            self._file.close()
            return {}
        name = self._parquet.schema_arrow.names[column]
        meta = self._parquet.metadata
        starts = (0, *accumulate(meta.row_group(number).num_rows for number in range(meta.num_row_groups)))
        mean = _column_bytes(meta, name) / max(1, meta.num_rows)
        rows = Rows(self._place.path, self._place.filesystem, name, starts, size_of(self._file), mean)
        rows.hold_open(self._file, self._parquet)
        shown = self._place.shown
        return {
            row: RowItem(printable(f"{shown} row {row + 1}"), rows, row) for row, there in enumerate(chosen) if there
        }


def read_light(place: Place, file: Any, found: Any) -> Light:
    """All of a Parquet file but its images. file: it is open there. found: what Arrow makes of it.

    Raises what Arrow does where it cannot be read to its end, and OSError.
    """
    schema, meta = found.schema_arrow, found.metadata
    whole = sum(meta.row_group(number).total_byte_size for number in range(meta.num_row_groups))
    columns: list[list[Any]] = [[] for _ in schema]
    images = [bytearray() for _ in schema]
    for batch in found.iter_batches(rows_at_once(whole / max(1, meta.num_rows)), use_threads=False):
        for number, values in enumerate(batch.columns):
            columns[number].append(_light(values, images[number]))
    empty = [pa.array([], field.type) for field in schema]
    arrays = [
        pa.chunked_array(parts or [_light(none, bytearray())]) for parts, none in zip(columns, empty, strict=True)
    ]
    fields = [field.with_type(array.type) for field, array in zip(schema, arrays, strict=True)]
    table = pa.table(arrays, pa.schema(fields, schema.metadata)).combine_chunks()
    return Light(table, images, place, file, found)


def _light(values: Any, images: bytearray) -> Any:
    """Values of a column, and for each whether an image was taken out, which is added to ``images``."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        values = values.cast(kind)
    if not _may_hold(kind):
        images.extend(bytes(len(values)))
        return _begun(values)
    light = []
    for value in values.to_pylist():
        images.append(_is_long(content(value)))
        light.append(_shortened(value, len(images)))
    return pa.array(light, kind)


def _begun(values: Any) -> Any:
    """Of lists of numbers the first two: whoever looks for labels sees that there are several."""
    import pyarrow.compute as pc

    plain = isinstance(values.type, pa.ListType | pa.LargeListType | pa.FixedSizeListType)
    return pc.list_slice(values, 0, 2, return_fixed_size_list=False) if plain else values


def _may_hold(kind: Any) -> bool:
    """Whether cells of a type may have an image in them."""
    if is_list(kind):
        return _may_hold(kind.value_type)
    if pa.types.is_struct(kind):
        return any(field.name in {"bytes", "path"} and _may_hold(field.type) for field in kind)
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(
        is_one(kind) for is_one in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, *texts)
    )


def _is_long(value: bytes | str | None) -> bool:
    """Whether it is an image too long to be held."""
    return value is not None and len(value) > _SHORT_BYTES and image_in(value) is not None


def _shortened(value: Any, number: int) -> Any:
    """A cell without the images in it. number: of the row, as other images are to be told apart."""
    if isinstance(value, dict):
        return {name: _shortened(part, number) for name, part in value.items()}
    if isinstance(value, list):
        return [_shortened(part, number) for part in value]
    if isinstance(value, bytes) and _is_long(value):
        return value[:_LEFT] + f"~{number}".encode()
    return f"{value[:_LEFT]}~{number}" if isinstance(value, str) and _is_long(value) else value


def _column_bytes(meta: Any, column: str) -> int:
    """Bytes of a column when it is unpacked."""
    total = 0
    for number in range(meta.num_row_groups):
        group = meta.row_group(number)
        parts = (group.column(part) for part in range(group.num_columns))
        total += sum(
            part.total_uncompressed_size for part in parts if f"{part.path_in_schema}.".startswith(f"{column}.")
        )
    return total
