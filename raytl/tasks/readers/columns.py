"""Which column of a table holds the images, which the labels, the groups and the splits."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from raytl.core.errors import UserError
from raytl.tasks.problems import Severity
from raytl.tasks.readers.listing import Listing
from raytl.tasks.readers.split_names import split_of
from raytl.tasks.readers.tree import is_image

IMAGE_COLUMNS = (
    *("image", "images", "img", "image_bytes", "bytes", "image_path", "image_file", "path", "file", "file_name"),
    *("filename", "file_path", "filepath", "filepaths", "uri", "url", "image_url", "image_name", "img_name"),
    *("img_path", "imgpath", "image_id", "img_id", "imageid", "image_index", "picture", "photo"),
)
LABEL_COLUMNS = (
    *("label", "labels", "class", "class_name", "classname", "category", "target", "y", "species", "diagnosis", "tag"),
    *("label_name", "class_label", "class_id", "category_name", "ground_truth", "choice"),
)
GROUP_COLUMNS = ("group", "groups", "group_id", "patient", "patient_id", "subject", "subject_id")
SPLIT_COLUMNS = ("split", "set", "subset", "partition", "dataset", "data_set", "fold", "usage", "phase")
NAMELESS = "column "  # and its number, in a table without a header
_TRIED = 20  # values of a column that files are looked for
_MISSING = frozenset({"nan", "NaN", "<NA>", "#N/A", "NaT"})  # what pandas and spreadsheets write for no value


@dataclass(frozen=True)
class Columns:
    """image, label, group, split: names, None where there is no such column. one_hot: the columns of 0 and 1."""

    image: str
    label: str | None
    group: str | None
    split: str | None
    one_hot: tuple[str, ...] = ()


def choose_columns(table: Any, listing: Listing, is_file: Callable[[str], bool]) -> Columns:
    """By usual names, else by type and content. What is ambiguous is an error or said.

    is_file: whether a value is the name of an image file, with or without its ending.
    Raises UserError naming the columns where no column holds images, or the rows have several labels each.
    """
    image = _image_column(table, listing.name, is_file)
    group = _named(table, GROUP_COLUMNS, {image})
    split = _split_column(table, {image, group})
    taken = {name for name in (image, group, split) if name is not None}
    named = [column for name in LABEL_COLUMNS if (column := _named(table, (name,), taken)) is not None]
    if named:
        return Columns(image, _chosen_label(table, named, listing), group, split)
    others = [name for name in table.column_names if name not in taken]
    flags = [name for name in others if _is_flag(table.column(name))]
    if len(flags) >= 2:
        _one_hot(table, flags, listing)
        return Columns(image, None, group, split, tuple(flags))
    kinds = {field.name: field.type for field in table.schema}
    texts = [name for name in others if _is_text(kinds[name]) or _is_integer(kinds[name])]
    if len(others) == 1 and texts:
        return Columns(image, texts[0], group, split)
    if others:
        columns = ", ".join(f"'{name}'" for name in others[:6]) + (", …" if len(others) > 6 else "")
        listing.unlabelled_because = f"none of its columns {columns} is named 'label'; rename the one that holds labels"
    return Columns(image, None, group, split)


def text_values(table: Any, column: str) -> list[str | None]:
    """A column's values as text; None where there is none. Names stand for the integers of a ClassLabel column."""
    names = _class_names(table, column)

    def text(value: Any) -> str | None:
        if isinstance(value, list):
            value = value[0] if value else None
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


def label_values(table: Any, columns: Columns, listing: Listing) -> list[str | None]:
    """The label of every row, None where it has none.

    Raises UserError where rows have several labels.
    """
    if columns.one_hot:
        flags = [text_values(table, name) for name in columns.one_hot]
        return [
            next((name for name, flag in zip(columns.one_hot, row, strict=True) if _number(flag) == 1), None)
            for row in zip(*flags, strict=True)
        ]
    if columns.label is None:
        return [None] * table.num_rows
    if pa.types.is_list(table.schema.field(columns.label).type) and any(
        value is not None and len(value) > 1 for value in table.column(columns.label).to_pylist()
    ):
        raise _multi_label(listing.name, f"lists in column '{columns.label}'")
    values = [_unlisted(value, columns.label, listing.name) for value in text_values(table, columns.label)]
    spaced = [
        value for value in table.column(columns.label).to_pylist() if isinstance(value, str) and _is_spaced(value)
    ]
    if spaced:
        labels = "1 label has" if len(spaced) == 1 else f"{len(spaced)} labels have"
        listing.announce(f"{labels} spaces around ('{spaced[0]}'); taken without them")
    _refuse_joined(values, columns.label, listing.name)
    _say_spaced_words(values, columns.label, listing)
    missing = sorted({value for value in values if value in _MISSING})
    if missing:
        count = sum(value in _MISSING for value in values)
        rows = "1 row has" if count == 1 else f"{count} rows have"
        listing.announce(f"{rows} '{missing[0]}' in column '{columns.label}', which means no label; left out")
    return [None if value in _MISSING else value for value in values]


def _chosen_label(table: Any, named: list[str], listing: Listing) -> str:
    """Of several columns with names of labels the first; words rather than the numbers that stand for them."""
    first = text_values(table, named[0])
    same = [named[0]]
    for other in named[1:]:
        pairs = set(zip(first, text_values(table, other), strict=True))
        if len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs):
            same.append(other)
        else:
            listing.announce(f"labels are taken from column '{named[0]}', not from '{other}'")
    words = [name for name in same if not all((value or "0").isdigit() for value in text_values(table, name))]
    return (words or same)[0]


def _named(table: Any, names: Sequence[str], taken: set[str]) -> str | None:
    by_lower = {
        column.lower().strip().replace(" ", "_").replace("-", "_"): column
        for column in reversed(table.column_names)
        if column not in taken
    }
    return next((by_lower[name] for name in names if name in by_lower), None)


def _holds_bytes(kind: Any) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _holds_bytes(kind.value_type)
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_integer(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind))


def _image_column(table: Any, shown: str, is_file: Callable[[str], bool]) -> str:
    fits = [f.name for f in table.schema if _holds_bytes(f.type) or _is_text(f.type) or pa.types.is_null(f.type)]
    found = _named(table.select(fits), IMAGE_COLUMNS, set())
    if found is None:
        binary = [f.name for f in table.schema if _holds_bytes(f.type)]
        paths = [name for name in fits if name not in binary and is_image(_first(table.column(name)))]
        candidates = binary or paths
        if not candidates:
            texts = [f.name for f in table.schema if _is_text(f.type) or _is_integer(f.type)]
            candidates = [name for name in texts if _name_files(table.column(name), is_file)]
        found = candidates[0] if len(candidates) == 1 else None
    if found is None:
        columns = ", ".join(f"'{name}'" for name in table.column_names) or "none"
        raise UserError(
            f"{shown}: no column with images among {columns}; name it 'image' (bytes) or 'path', and pass "
            "--images DIR where the files lie elsewhere"
        )
    return str(found)


def _first(column: Any) -> str:
    return str(next((value for value in column.to_pylist() if value), ""))


def _name_files(column: Any, is_file: Callable[[str], bool]) -> bool:
    values = [str(value) for value in column.to_pylist()[:_TRIED] if value is not None and str(value).strip()]
    return bool(values) and sum(map(is_file, values)) > len(values) / 2


def _split_column(table: Any, taken: set[str | None]) -> str | None:
    """A column of that name whose values all speak of splits."""
    named = _named(table, SPLIT_COLUMNS, {name for name in taken if name is not None})
    nameless = [name for name in table.column_names if name.startswith(NAMELESS) and name not in taken]
    for found in [named, *nameless]:
        if found is not None:
            values = {value for value in text_values(table, found) if value is not None}
            if len(values) > (found != named) and all(split_of(value) is not None for value in values):
                return str(found)
    return None


def _is_flag(column: Any) -> bool:
    """Whether all values are 0 or 1, as numbers, text or booleans."""
    values = set(column.to_pylist())
    return bool(values) and all(_number(value) in {0.0, 1.0} for value in values)


def _unlisted(value: str | None, column: str, shown: str) -> str | None:
    """``cat`` for the text of a list of one, ``['cat']``, which pandas writes. Raises UserError for longer ones."""
    if value is None or not (value.startswith("[") and value.endswith("]")):
        return value
    try:
        labels = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
    if len(labels) > 1:
        raise _multi_label(shown, f"{value} in column '{column}'")
    return str(labels[0]).strip() if labels else None


def _is_spaced(value: str) -> bool:
    return bool(value.strip()) and value != value.strip()


def _number(value: Any) -> float | None:
    if isinstance(value, str) and value.strip().lower() in {"true", "false"}:
        return float(value.strip().lower() == "true")
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None


def _one_hot(table: Any, flags: list[str], listing: Listing) -> None:
    """Say that columns of 0 and 1 are the label; raise where they are not exactly one label a row."""
    columns = [[_number(value) for value in table.column(name).to_pylist()] for name in flags]
    sums = [sum(value or 0.0 for value in row) for row in zip(*columns, strict=True)]
    names = ", ".join(f"'{name}'" for name in flags[:4]) + (", …" if len(flags) > 4 else "")
    if max(sums) > 1:
        raise _multi_label(listing.name, f"columns {names}, of which row {sums.index(max(sums)) + 1} has several set")
    if min(sums) < 1:
        raise UserError(
            f"{listing.name}: row {sums.index(0) + 1} has no 1 in any of the columns {names}; "
            "add a column 'label' that says what it is"
        )
    listing.announce(f"its columns {names} hold a single 1 a row; they are read as {len(flags)} classes")


def _refuse_joined(values: list[str | None], column: str, shown: str) -> None:
    """Labels such as ``scab|rust`` whose parts are labels too."""
    present = {value for value in values if value is not None}
    for separator in "|;,":
        joined = [value for value in present if separator in value.strip(separator)]
        parts = [{part.strip() for part in value.split(separator)} for value in joined]
        whole = present - set(joined)
        if joined and 2 * sum(found <= whole for found in parts) >= len(joined):
            raise _multi_label(shown, f"'{min(joined)}' in column '{column}'")
        shared = {part for found in parts for part in found if sum(part in other for other in parts) > 1}
        if separator == "|" and len(joined) > 1 and shared:
            raise _multi_label(shown, f"'{min(joined)}' in column '{column}'")


def _say_spaced_words(values: list[str | None], column: str, listing: Listing) -> None:
    """Labels such as ``scab rust`` where both words are labels too: several labels, or one of two words."""
    present = {value for value in values if value is not None}
    joined = sorted(value for value in present if " " in value and set(value.split()) <= present)
    if joined:
        listing.announce(
            f"'{joined[0]}' in column '{column}' is learned as one class; if it is several labels, give one",
            Severity.WARNING,
        )


def _multi_label(shown: str, what: str) -> UserError:
    return UserError(
        f"{shown}: an image has several labels ({what}); raytl learns one label an image: give a column with one"
    )


def _class_names(table: Any, column: str) -> list[str] | None:
    """The names behind the integers of a Hugging Face ClassLabel column."""
    try:
        features = json.loads((table.schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None
