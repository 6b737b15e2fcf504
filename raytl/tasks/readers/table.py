"""Parquet, CSV and JSON lines: columns with image bytes or paths, labels, and optionally groups and splits."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any

import pyarrow as pa

from raytl.core.errors import UserError, cause
from raytl.core.names import few, printable, so_many
from raytl.tasks.cells import content, image_in
from raytl.tasks.items import MAX_TABLE_BYTES, EncodedItem, FileItem
from raytl.tasks.readers.annotations import read_annotations
from raytl.tasks.readers.archive import Archive
from raytl.tasks.readers.columns import choose_columns
from raytl.tasks.readers.delimited import DELIMITED, JSON_LINES, read_delimited, read_json_lines, refuse_foreign
from raytl.tasks.readers.labels import label_values, multi_label, text_values
from raytl.tasks.readers.light import Light, LightText, light_arrow, light_parquet
from raytl.tasks.readers.listing import NO_OPTIONS, Entry, Listing, Place, TableOptions, first_line
from raytl.tasks.readers.resolving import Resolver
from raytl.tasks.readers.split_columns import split_values
from raytl.tasks.readers.split_names import TRAIN, shard_split, splits_of
from raytl.tasks.readers.web import Web
from raytl.tasks.row_groups import ArrowFile, opened, parquet, size_of
from raytl.tasks.text_cells import light_text

PARQUET = frozenset({".parquet", ".pq"})
ARROW = frozenset({".arrow", ".feather"})
TABLES = PARQUET | ARROW | DELIMITED | JSON_LINES
HELD_BYTES = 256 * 2**20
"""Of a table's file, or of all that are read together: the images of larger ones stay where they are."""


def list_table(
    place: Place,
    options: TableOptions = NO_OPTIONS,
    keys: Mapping[str, str | None] | None = None,
    together_bytes: int | None = None,
) -> Listing:
    """Entries for the rows of a Parquet, CSV or JSON-lines file.

    Columns are found by their usual names, else by their type and content. Paths count from the folder that the table
    lies in, or as the options say. keys: further columns with one value each, from the names of the folders that the
    table lies in. together_bytes: of all files that are read together, where that is known. Raises UserError naming the
    columns where they cannot be told, and for several labels an image.
    """
    listing = Listing(place.shown, layout="table")
    light = _read(place, listing, labels=options.labels, together_bytes=together_bytes)
    try:
        _list(place, light, listing, options, keys or {})
    except BaseException:
        if isinstance(light, Light | LightText):
            light.close()
        raise
    return listing


def _list(place: Place, light: Any, listing: Listing, options: TableOptions, keys: Mapping[str, str | None]) -> None:
    """Add what the rows of a table are to a listing. light: the table, or all of it but its images."""
    table = _with_plain_names(light.table if isinstance(light, Light | LightText) else light)
    for name, value in keys.items():
        if name not in table.column_names:
            table = table.append_column(name, pa.array([value] * table.num_rows, pa.string()))
    here = Place(place.filesystem, posixpath.dirname(place.path), posixpath.dirname(place.shown) or ".")
    split = shard_split(posixpath.basename(place.path))
    resolver = Resolver(options.images or here, split, elsewhere=options.images is not None)
    columns = choose_columns(table, listing, resolver.is_file, options)
    labels = label_values(table, columns.label, columns.one_hot, listing)
    groups = text_values(table, columns.group) if columns.group else [None] * table.num_rows
    splits = split_values(table, columns.split)
    listing.labelled = columns.label is not None or bool(columns.one_hot)
    values = [_cell(value, listing.name, columns.image) for value in table.column(columns.image).to_pylist()]
    there = light.items(table.column_names.index(columns.image)) if isinstance(light, Light | LightText) else {}
    encoded = [there.get(row) or _encoded(value, f"{place.shown} row {row + 1}") for row, value in enumerate(values)]
    named = [None if item is not None or not value else str(value) for item, value in zip(encoded, values, strict=True)]
    files = resolver.items(named, columns.image, listing)
    _refuse_several_rows(files, labels, listing.name)
    over = _overruled(files, labels, listing)
    unlabelled, blank, again = 0, [], []
    read: set[tuple[str, str | None, str | None]] = set()
    for row, item in enumerate(mine or file for mine, file in zip(encoded, files, strict=True)):
        if row in over:
            continue
        if item is None:
            blank.append(row)
            continue
        if listing.labelled and labels[row] is None:
            unlabelled += 1
            if isinstance(item, FileItem):  # of which a folder may say the label
                listing.beside[item.path] = Entry(item, None, groups[row], split=splits[row])
            continue
        if isinstance(item, FileItem):
            if (item.path, labels[row], splits[row]) in read:
                again.append(item)
                continue
            read.add((item.path, labels[row], splits[row]))
        listing.entries.append(Entry(item, labels[row], groups[row], split=splits[row]))
    if options.labels and resolver.split is None and all(entry.split is None for entry in listing.entries):
        listing.entries = _in_splits(listing.entries)
    if blank:
        rows = f"row {blank[0] + 1} has" if len(blank) == 1 else f"{len(blank)} rows have"
        listing.note(f"{rows} no image{'' if len(blank) == 1 else f' (first: row {blank[0] + 1})'}; left out")
    if again:
        rows = so_many(len(again), "row names a file", "rows name files")
        same = " with the same label" if listing.labelled else ""
        listing.note(f"{rows} that another row names{same} (first: {again[0].name}); read once")
    if not table.num_rows:
        listing.empty_because = "the table has no rows"
    if unlabelled and not listing.entries:
        listing.labelled = False
        listing.entries = [Entry(item, None, split=split) for item, split in zip(files, splits, strict=True) if item]
        listing.entries = listing.entries or [Entry(item) for item in encoded if item is not None]
        listing.unlabelled_because = "no row has a label"
    elif unlabelled:
        rows = so_many(unlabelled, "row has", "rows have")
        listing.note(f"{rows} no label in column '{columns.label}'; left out")


def _with_plain_names(table: Any) -> Any:
    """The table with names of columns that any terminal takes, where these are still as many."""
    names = [printable(name) for name in table.column_names]
    if names == table.column_names or len(set(names)) < len(names):
        return table
    return table.rename_columns(names).replace_schema_metadata(table.schema.metadata)


def _in_splits(entries: list[Entry]) -> list[Entry]:
    """The entries with the splits that the folders of their files are named by, where no column says any.

    All files have to lie in folders of splits, side by side, one of them to train on.
    """
    folders = [entry.item.path.split("/")[:-1] if isinstance(entry.item, FileItem) else [] for entry in entries]
    shared = len(posixpath.commonprefix(folders))
    names = {folder[shared] if len(folder) > shared else "" for folder in folders}
    splits = splits_of(names)
    if splits.keys() != names or len(set(splits.values())) < 2 or TRAIN not in splits.values():
        return entries
    return [replace(entry, split=splits[folder[shared]]) for entry, folder in zip(entries, folders, strict=True)]


def _refuse_several_rows(files: Sequence[FileItem | None], labels: Sequence[str | None], shown: str) -> None:
    """Raise where many files have rows of several labels: boxes of objects, captions, several labels an image."""
    found: dict[str, set[str]] = {}
    for file, label in zip(files, labels, strict=True):
        if file is not None and label is not None:
            found.setdefault(file.name, set()).add(label)
    several = [name for name, names in found.items() if len(names) > 1]
    if len(several) > max(1, len(found) // 4):
        names = " and ".join(f"'{name}'" for name in sorted(next(n for n in found.values() if len(n) > 1))[:2])
        shown_file = posixpath.basename(several[0])
        raise multi_label(
            shown, f"{names} in several rows for {shown_file}, and so for {len(several)} of {len(found)} files"
        )


def _overruled(files: Sequence[FileItem | None], labels: Sequence[str | None], listing: Listing) -> set[int]:
    """Rows of files that a later row gives another label: it counts, and is said."""
    rows: dict[str, list[int]] = {}
    for row, (file, label) in enumerate(zip(files, labels, strict=True)):
        if file is not None and label is not None:
            rows.setdefault(file.path, []).append(row)
    over = {path: [row for row in its if labels[row] != labels[its[-1]]] for path, its in rows.items()}
    several = {path: its for path, its in over.items() if its}
    if several:
        path, its = next(iter(several.items()))
        name = next(file.name for file in files if file is not None and file.path == path)
        one = so_many(len(several), "file has", "files have")
        both = f"'{labels[its[-1]]}' and '{labels[rows[path][-1]]}'"
        listing.announce_warning(f"{one} rows of different labels (first: {name}, {both}); the last row counts")
    return {row for its in several.values() for row in its}


def _read(place: Place, listing: Listing, *, labels: bool, together_bytes: int | None) -> Any:
    """The table, or of a large one all but its images."""
    try:
        at, together_bytes = _where(place, together_bytes)
        if at is not place and _is_packed(place):
            folder = printable(posixpath.dirname(at.path))
            listing.announce(f"it is large, and was unpacked once to {folder}, to be read in place there")
        if place.suffix in PARQUET | ARROW:
            return _read_arrow(at, together_bytes)
        if together_bytes is None:
            with opened(at.path, at.filesystem) as file:
                together_bytes = size_of(file)
        if together_bytes > HELD_BYTES and place.suffix != ".xml":
            data, cells = light_text(at.path, at.filesystem, at.shown, is_json=place.suffix not in DELIMITED)
            count = len(listing.problems)
            light = _read_text(place, listing, data, labels=labels)
            texts = (column for column in light.columns if not pa.types.is_primitive(column.type))
            if all(cells.stand_whole(column.to_pylist()) for column in texts):
                return LightText(light, place, cells)
            del listing.problems[count:]  # which are said again
    except FileNotFoundError:
        pass  # which is said where it is read
    except OSError as error:
        raise UserError(f"{place.shown}: cannot be read ({cause(error)}); check it or leave it out") from None
    return _read_text(place, listing, None, labels=labels)


def _where(place: Place, together_bytes: int | None) -> tuple[Place, int | None]:
    """Where a table is read, of large ones in archives a copy, and the bytes of all that are read together, if known.

    Raises OSError.
    """
    if isinstance(place.filesystem, Web):
        return place, 0  # it comes as a whole
    if isinstance(place.filesystem, Archive):
        if together_bytes is None:
            together_bytes = place.filesystem.size_of(place.path)
        if together_bytes > HELD_BYTES:
            own = place.filesystem.beside(place.path)
            return Place(None, str(own or place.filesystem.copy_of(place.path)), place.shown), together_bytes
    return place, together_bytes


def _is_packed(place: Place) -> bool:
    return isinstance(place.filesystem, Archive) and place.filesystem.beside(place.path) is None


def _read_text(place: Place, listing: Listing, data: bytes | None, *, labels: bool) -> Any:
    if place.suffix in DELIMITED:
        return read_delimited(place, listing, data)
    if place.suffix in JSON_LINES:
        return read_json_lines(place, data)
    return read_annotations(place, listing, data, labels=labels)


def _read_arrow(place: Place, together_bytes: int | None) -> Any:
    kind = "Arrow" if place.suffix in ARROW else "Parquet"
    try:
        table = _opened_arrow(place, together_bytes)
    except (pa.ArrowException, OSError) as error:
        with suppress(OSError):
            refuse_foreign(FileItem(place.shown, place.path, place.filesystem).read(200), place.shown)
        raise UserError(f"{place.shown}: not a readable {kind} file ({first_line(error)}); write it again") from None
    if isinstance(table, Light):
        return table
    for index, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(index, field.name, table.column(index).cast(field.type.value_type))
    return table


def _opened_arrow(place: Place, together_bytes: int | None) -> Any:
    """By a file that is opened once: what takes its place meanwhile is another."""
    import pyarrow.parquet as pq

    is_arrow = place.suffix in ARROW
    if isinstance(place.filesystem, Archive | Web):
        file: Any = pa.BufferReader(
            FileItem(place.shown, place.path, place.filesystem).read(most_bytes=MAX_TABLE_BYTES)
        )
    else:
        file = opened(place.path, place.filesystem)
    with ExitStack() as stack:
        stack.enter_context(file)
        whole = (size_of(file) if together_bytes is None else together_bytes) <= HELD_BYTES
        if is_arrow:
            arrow = ArrowFile(file)
            whole = whole or not arrow.can_be_begun_anywhere
        else:
            far = place.filesystem is not None
            # In few pieces, each of which may have to come from far: not every version of pyarrow does so by itself.
            found = pq.ParquetFile(file, pre_buffer=True) if whole else parquet(file, far=far)
        _refuse_twice((arrow.schema if is_arrow else found.schema_arrow).names, place.shown)
        if whole:
            return arrow.whole() if is_arrow else found.read()
        light = light_arrow(place, file, arrow) if is_arrow else light_parquet(place, file, found)
        stack.pop_all()  # it stays open for the images
        return light


def _refuse_twice(names: Sequence[str], shown: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(f"{shown}: two columns are named {few(twice, 1, quoted=True)}; rename one")


def _cell(value: Any, shown: str, column: str) -> bytes | str | None:
    """Bytes or text of one image. Raises UserError for several in a row."""
    if isinstance(value, list) and len(value) > 1:
        raise UserError(f"{shown}: column '{column}' holds several images a row; give one image a row")
    return content(value)


def _encoded(value: bytes | str | None, name: str) -> EncodedItem | None:
    """An image that is in the table itself."""
    data = image_in(value)
    return None if data is None else EncodedItem(printable(name), data)
