"""Large tables without the images that are in them, which stay there.

Of Parquet and Arrow files: :mod:`raytl.tasks.rows`. Of texts: :mod:`raytl.tasks.text_cells`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from raytl.core.names import printable
from raytl.tasks.cells import content, image_in
from raytl.tasks.readers.labels import is_list
from raytl.tasks.readers.listing import Place
from raytl.tasks.row_groups import MOST_ROWS, ArrowFile, Groups, parquet_groups, parquet_rows, size_of
from raytl.tasks.rows import InPlace, RowItem, Rows
from raytl.tasks.text_cells import TextCells
from raytl.tasks.waiting import waited_for

_SHORT_BYTES = 1024  # of a cell that is held: to say where it is takes about as much
_LEFT = 32  # of a longer one


@dataclass(frozen=True)
class Light:
    """A table with something short in place of each image.

    images: of each column, which rows have one in the file. file: it is open there. found: what Arrow makes of it.
    """

    table: Any
    images: list[bytearray]
    place: Place
    file: Any
    found: Any
    groups: Groups

    def close(self) -> None:
        """Let go of the file, where nothing of it is wanted."""
        self.file.close()

    def items(self, column: int) -> dict[int, RowItem]:
        """The images of a column that are in the file, by row; it stays open for them."""
        chosen = self.images[column] if column < len(self.images) else bytearray()
        if not any(chosen):
            self.close()
            return {}
        name = self.table.column_names[column]
        groups = self.groups if self.groups.arrow else parquet_groups(self.found, name)
        rows = Rows(self.place.path, self.place.filesystem, name, groups, size_of(self.file))
        rows.hold_open(self.file, self.found)
        return {row: _item(self.place, row, rows, row) for row, there in enumerate(chosen) if there}


@dataclass(frozen=True)
class LightText:
    """The same of a text. cells: where the images are that something short stands for in the table."""

    table: Any
    place: Place
    cells: TextCells

    def close(self) -> None:
        """Nothing is open."""

    def items(self, column: int) -> dict[int, RowItem]:
        """The images of a column that are in the file, by row."""
        values = self.table.column(column).to_pylist() if column < self.table.num_columns else []
        numbers = enumerate(map(self.cells.number_in, values))
        return {row: _item(self.place, row, self.cells, number) for row, number in numbers if number is not None}


def _item(place: Place, row: int, rows: InPlace, number: int) -> RowItem:
    return RowItem(printable(f"{place.shown} row {row + 1}"), rows, number)


def light_parquet(place: Place, file: Any, found: Any) -> Light:
    """All of a Parquet file but its images. Raises what Arrow does where it cannot be read to its end, and OSError."""
    groups = parquet_groups(found)
    table, images = _without_images(
        found.schema_arrow, waited_for(parquet_rows(found, groups), place.shown, place.filesystem)
    )
    return Light(table, images, place, file, found, groups)


def light_arrow(place: Place, file: Any, found: ArrowFile) -> Light:
    """Likewise of an Arrow file."""
    starts, places = [0], list[int]()

    def batches() -> Iterator[Any]:
        for where, batch in found.batches():
            starts.append(starts[-1] + batch.num_rows)
            places.append(where)
            for first in range(0, batch.num_rows, MOST_ROWS):
                yield batch.slice(first, MOST_ROWS)

    table, images = _without_images(found.schema, waited_for(batches(), place.shown, place.filesystem))
    groups = Groups(tuple(starts), places=None if found.indexed else tuple(places), arrow=True)
    return Light(table, images, place, file, found, groups)


def _without_images(schema: Any, batches: Iterator[Any]) -> tuple[Any, list[bytearray]]:
    """A table, and for each column which rows an image was taken out of."""
    columns: list[list[Any]] = [[] for _ in schema]
    images = [bytearray() for _ in schema]
    for batch in batches:
        for number, values in enumerate(batch.columns):
            columns[number].append(_light(values, images[number]))
    empty = [pa.array([], field.type) for field in schema]
    arrays = [
        pa.chunked_array(parts or [_light(none, bytearray())]) for parts, none in zip(columns, empty, strict=True)
    ]
    fields = [field.with_type(array.type) for field, array in zip(schema, arrays, strict=True)]
    return pa.table(arrays, pa.schema(fields, schema.metadata)).combine_chunks(), images


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
