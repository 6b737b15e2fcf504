"""Parquet and CSV: a column with image bytes or paths, a label column, optionally a group column."""

from __future__ import annotations

import base64
import binascii
import io
import json
import posixpath
from collections.abc import Sequence
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from raytl.core.errors import UserError
from raytl.tasks.decoding import SUFFIXES
from raytl.tasks.items import EncodedItem, FileItem
from raytl.tasks.readers.listing import Entry, Listing, Place, first_line, is_local, open_uri, printable

IMAGE_COLUMNS = (
    *("image", "images", "img", "image_bytes", "bytes", "image_path", "image_file", "path", "file", "file_name"),
    *("filename", "file_path", "filepath", "uri", "url"),
)
LABEL_COLUMNS = (
    *("label", "labels", "class", "class_name", "classname", "category", "target", "y", "species", "diagnosis", "tag"),
)
GROUP_COLUMNS = ("group", "groups", "group_id", "patient", "patient_id", "subject", "subject_id")


def list_table(place: Place) -> Listing:
    """Entries for the rows of a Parquet or CSV file.

    Columns are found by their usual names, else by their type. Paths count from the folder that the table lies in.
    Raises UserError naming the columns where they cannot be told.
    """
    table = _read_csv(place) if place.suffix in {".csv", ".tsv"} else _read_parquet(place)
    image = _image_column(table, place.shown)
    group = _named(table, GROUP_COLUMNS, {image})
    label = _label_column(table, image, group)
    listing = Listing(place.shown, labelled=label is not None)
    labels = _texts(table, label, _class_names(table, label)) if label else [None] * table.num_rows
    groups = _texts(table, group, None) if group else [None] * table.num_rows
    unlabelled = 0
    for row, value in enumerate(table.column(image).to_pylist()):
        item = _item(value, f"{place.shown} row {row + 1}", place)
        if item is None:
            listing.note(f"row {row + 1} has no image; left out")
        elif label and labels[row] is None:
            unlabelled += 1
        else:
            listing.entries.append(Entry(item, labels[row], groups[row]))
    if unlabelled:
        rows = "1 row has" if unlabelled == 1 else f"{unlabelled} rows have"
        listing.note(f"{rows} no label in column '{label}'; left out")
    return listing


def _read_parquet(place: Place) -> Any:
    import pyarrow.parquet as pq

    try:
        return pq.read_table(place.path, filesystem=place.filesystem)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{place.shown}: not a readable Parquet file ({first_line(error)}); write it again") from None


def _read_csv(place: Place) -> Any:
    """All columns as text: a label '007' must not become 7."""
    import pandas as pd

    try:
        text = FileItem(place.shown, place.path, place.filesystem).read().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{place.shown}: not a CSV file in UTF-8; save it in that encoding") from None
    header = text.split("\n", 1)[0]
    separator = max(",;\t", key=header.count)
    try:
        frame = pd.read_csv(io.StringIO(text), sep=separator, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UserError(
            f"{place.shown}: not a readable CSV file ({first_line(error)}); give one with a header"
        ) from None
    return pa.table({str(name): pa.array(frame[name].tolist(), pa.string()) for name in frame.columns})


def _named(table: Any, names: Sequence[str], taken: set[str]) -> str | None:
    by_lower = {column.lower().strip(): column for column in reversed(table.column_names) if column not in taken}
    return next((by_lower[name] for name in names if name in by_lower), None)


def _holds_bytes(kind: Any) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _image_column(table: Any, shown: str) -> str:
    fits = [f.name for f in table.schema if _holds_bytes(f.type) or _is_text(f.type) or pa.types.is_null(f.type)]
    found = _named(table.select(fits), IMAGE_COLUMNS, set())
    if found is None:
        binary = [f.name for f in table.schema if _holds_bytes(f.type)]
        paths = [name for name in fits if name not in binary and _looks_like_paths(table.column(name))]
        candidates = binary or paths
        found = candidates[0] if len(candidates) == 1 else None
    if found is None:
        columns = ", ".join(f"'{name}'" for name in table.column_names) or "none"
        raise UserError(f"{shown}: no column with images among {columns}; name it 'image' (bytes) or 'path'")
    return str(found)


def _looks_like_paths(column: Any) -> bool:
    first = next((value for value in column.to_pylist() if value), "")
    return PurePosixPath(first).suffix.lower() in SUFFIXES


def _label_column(table: Any, image: str, group: str | None) -> str | None:
    taken = {image, group or image}
    named = _named(table, LABEL_COLUMNS, taken)
    if named is not None:
        return named
    others = [
        f.name
        for f in table.schema
        if f.name not in taken and (_is_text(f.type) or pa.types.is_integer(f.type) or pa.types.is_dictionary(f.type))
    ]
    return others[0] if len(others) == 1 and table.num_columns == len(taken) + 1 else None


def _class_names(table: Any, column: str) -> list[str] | None:
    """The names behind the integers of a Hugging Face ClassLabel column."""
    try:
        features = json.loads((table.schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None


def _texts(table: Any, column: str, names: list[str] | None) -> list[str | None]:
    def text(value: Any) -> str | None:
        if value is None or value == "" or value != value:  # missing, or NaN
            return None
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # integers with gaps arrive as floats
        if names is not None and isinstance(value, int):
            return names[value] if 0 <= value < len(names) else None
        return str(value).strip() or None

    return [text(value) for value in table.column(column).to_pylist()]


def _item(value: Any, name: str, place: Place) -> FileItem | EncodedItem | None:
    if isinstance(value, dict):  # Hugging Face: {"bytes": …, "path": …}
        value = value.get("bytes") or value.get("path")
    if value is None or len(value) == 0:
        return None
    if isinstance(value, bytes):
        return EncodedItem(name, value)
    encoded = _from_base64(str(value))
    return EncodedItem(name, encoded) if encoded is not None else _file(str(value).strip(), place)


def _from_base64(text: str) -> bytes | None:
    """A CSV cell cannot hold bytes; a data URI, or text longer than any path, is base64."""
    if not text.startswith("data:") and len(text) < 4096:
        return None
    try:
        return base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text)
    except (binascii.Error, ValueError):
        return None


def _open_uri(uri: str) -> tuple[str, Any]:
    """Path and filesystem. The filesystem is found once per host or bucket: that can take a request each time."""
    scheme, rest = uri.split("://", 1)
    host, _, inner = rest.partition("/")
    filesystem, prefix = _bucket(f"{scheme}://{host}/")
    return prefix + inner, filesystem


@lru_cache
def _bucket(uri: str) -> tuple[Any, str]:
    filesystem, path = open_uri(uri)
    return (None if is_local(filesystem) else filesystem), path.rstrip("/") + "/"


def _file(path: str, place: Place) -> FileItem:
    if "://" in path:
        return FileItem(printable(path), *_open_uri(path))
    folder = posixpath.dirname(place.path)
    shown = posixpath.join(posixpath.dirname(place.shown), path)
    return FileItem(printable(shown), posixpath.join(folder, path), place.filesystem)
