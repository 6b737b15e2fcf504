"""What the label column of a table, or its columns of 0 and 1, say of each row."""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence, Set
from typing import Any

import pyarrow as pa

from raytl.core.errors import UserError
from raytl.core.names import few, printable, so_many
from raytl.tasks.problems import Severity
from raytl.tasks.readers.listing import Listing

_PARTS = (
    "name",
    "label",
    "class",
    "class_name",
    "displayName",
    "display_name",
    "tagName",
    "value",
    "title",
)  # of an object
_SEVERAL = re.compile(r"(image_?)?(tags|labels|keywords|attributes|categories|classes)", re.IGNORECASE)
_NO_WIDTH = "\u200b\u2060\ufeff"
_LONGEST = 200  # characters of a label
_MISSING = frozenset({"nan", "NaN", "<NA>", "#N/A", "NaT"})  # what pandas and spreadsheets write for no value


def text_values(table: Any, column: str) -> list[str | None]:
    """A column's values as text of one line, as names of files are; None where there is none.

    Names stand for the integers of a ClassLabel column.
    """
    return _shown(_values(table, column))


def _shown(values: Sequence[str | None]) -> list[str | None]:
    return [None if value is None else printable(value) for value in values]


def _values(table: Any, column: str) -> list[str | None]:
    names = _class_names(table, column)

    def text(value: Any) -> str | None:
        if isinstance(value, list):
            value = value[0] if value else None
        if value is None or value == "" or value != value:  # missing, or NaN
            return None
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, bytes):
            value = value.rstrip(b"\0").decode("utf-8", "backslashreplace")
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # integers with gaps arrive as floats
        if names is not None and isinstance(value, int):
            return names[value] if 0 <= value < len(names) else None
        return unicodedata.normalize("NFC", trimmed(str(value))) or None

    return [text(value) for value in table.column(column).to_pylist()]


def label_values(table: Any, column: str | None, one_hot: Sequence[str], listing: Listing) -> list[str | None]:
    """The label of every row, None where it has none.

    one_hot: the columns of 0 and 1 that give the labels, where that is how they are given.
    Raises UserError where rows have several labels.
    """
    if one_hot:
        flags = [text_values(table, name) for name in one_hot]
        return [
            next((name for name, flag in zip(one_hot, row, strict=True) if number(flag) == 1), None)
            for row in zip(*flags, strict=True)
        ]
    if column is None:
        return [None] * table.num_rows
    if is_list(table.schema.field(column).type) and any(
        value is not None and len(value) > 1 for value in table.column(column).to_pylist()
    ):
        raise multi_label(listing.name, f"lists in column '{column}'")
    table, column = _inside(table, column, listing)
    table, column = _inside_text(table, column, listing)
    values = [_unlisted(value, column, listing.name) for value in _values(table, column)]
    spaced = [value for value in table.column(column).to_pylist() if isinstance(value, str) and _is_spaced(value)]
    if spaced:
        labels = so_many(len(spaced), "label has", "labels have")
        listing.announce(f"{labels} spaces around ('{spaced[0]}'); taken without them")
    _refuse_texts_of_lines(values, listing.name)
    values = _shown(values)
    _refuse_joined(values, column, listing.name)
    _say_spaced_words(values, column, listing)
    missing = sorted({value for value in values if value in _MISSING})
    if missing:
        count = sum(value in _MISSING for value in values)
        rows = so_many(count, "row has", "rows have")
        listing.announce(f"{rows} '{missing[0]}' in column '{column}', which means no label; left out")
    return _whole([None if value in _MISSING else value for value in values])


def _whole(values: list[str | None]) -> list[str | None]:
    """``1`` for ``1.0`` where all are whole numbers, as integers with gaps become."""
    if all(value is None or re.fullmatch(r"-?\d+(\.0+)?", value) for value in values):
        return [None if value is None else value.partition(".")[0] for value in values]
    return values


def is_list(kind: Any) -> bool:
    """Whether a column holds lists of whatever kind Arrow has."""
    types = (pa.ListType, pa.LargeListType, pa.FixedSizeListType, pa.ListViewType, pa.LargeListViewType)
    return isinstance(kind, types)


def _inside(table: Any, column: str, listing: Listing) -> tuple[Any, str]:
    """Of a column of objects the one part that names the label, as a column of its own.

    Raises UserError where it cannot be told which.
    """
    kind = table.schema.field(column).type
    if not pa.types.is_struct(kind):
        return table, column
    parts = [field.name for field in kind]
    named = next((name for name in _PARTS if name in parts), parts[0] if len(parts) == 1 else None)
    if named is None:
        shown = few(parts, 4, quoted=True)
        what = (
            f"{listing.name}: column '{column}' holds objects of {shown}, and which of these is the label is not said"
        )
        raise UserError(f"{what}; write it into a column of its own")
    values = [None if value is None else value[named] for value in table.column(column).to_pylist()]
    inner = f"{column}.{named}"
    listing.announce(f"labels are taken from '{named}' of the objects in column '{column}'")
    return table.append_column(inner, pa.array(values)), inner


def _inside_text(table: Any, column: str, listing: Listing) -> tuple[Any, str]:
    """Likewise of a column of texts that are JSON objects, ``{"class": "cat"}``, as VIA exports them."""
    texts = text_values(table, column)
    found = [_object(text) for text in texts if text is not None]
    if not any(found) or any(one is None for one in found):
        return table, column
    parts = dict.fromkeys(name for one in found if one for name in one)
    rows = [
        None if text is None else {name: _ticked((_object(text) or {}).get(name)) for name in parts} for text in texts
    ]
    objects = pa.array(rows, pa.struct([(name, pa.string()) for name in parts]))
    return _inside(table.set_column(table.column_names.index(column), column, objects), column, listing)


def _object(text: str) -> dict[str, Any] | None:
    if not (text.startswith("{") and text.endswith("}")):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _ticked(value: Any) -> str | None:
    """The text of an attribute; of boxes that are ticked (``{"cat": true}``) the names."""
    if isinstance(value, dict):
        value = "|".join(name for name, said in value.items() if said) or None
    return None if value is None else str(value)


def _refuse_texts_of_lines(values: Sequence[str | None], shown: str) -> None:
    """Raise for a label that spans lines or is a whole text: a quote that is not closed, or another column's cell."""
    for row, value in enumerate(values):
        if value is None or (len(value) <= _LONGEST and "\n" not in value):
            continue
        what = "spans lines" if "\n" in value else f"has {len(value)} characters"
        raise UserError(
            f"{shown}: the label of row {row + 1} {what} ({value[:20]!r}, …); close its quotes, or name the column of "
            "labels with --label COLUMN"
        )


def _unlisted(value: str | None, column: str, shown: str) -> str | None:
    """``cat`` for the text of a list of one, ``['cat']``, which pandas writes. Raises UserError for longer ones."""
    if value is None or not (value.startswith("[") and value.endswith("]")):
        return value
    try:
        labels = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
    if len(labels) > 1:
        raise multi_label(shown, f"{value} in column '{column}'")
    return str(labels[0]).strip() if labels else None


def trimmed(value: str) -> str:
    """Without spaces around, also those that have no width."""
    return value.strip().strip(_NO_WIDTH).strip()


def _is_spaced(value: str) -> bool:
    return bool(value.strip()) and value != trimmed(value)


def number(value: Any) -> float | None:
    """A number, or the word for one, as a number; None for anything else."""
    if isinstance(value, str) and value.strip().lower() in {"true", "false"}:
        return float(value.strip().lower() == "true")
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None


def _refuse_joined(values: list[str | None], column: str, shown: str) -> None:
    """Labels such as ``scab|rust`` whose parts are labels too."""
    present = {value for value in values if value is not None}
    for separator in "|;,":
        joined = [value for value in present if separator in value.strip(separator)]
        parts = [{part.strip() for part in value.split(separator)} for value in joined]
        whole = present - set(joined)
        fitting = sum(found <= whole if separator == "," else bool(found & whole) for found in parts)
        if joined and 2 * fitting >= len(joined):
            raise multi_label(shown, f"'{min(joined)}' in column '{column}'")
        shared = {part for found in parts for part in found if sum(part in other for other in parts) > 1}
        if separator in "|;" and len(joined) > 1 and shared:
            raise multi_label(shown, f"'{min(joined)}' in column '{column}'")


def _say_spaced_words(values: list[str | None], column: str, listing: Listing) -> None:
    """Labels such as ``scab rust`` where both words are labels too: several labels, or one of two words."""
    present = {value for value in values if value is not None}
    joined = sorted(value for value in present if " " in value and set(value.split()) <= present)
    for mark in (",", "/", "+", "&"):
        parts = {value: {part.strip() for part in value.split(mark)} for value in present if mark in value.strip(mark)}
        joined += sorted(value for value, found in parts.items() if len(found) > 1 and found & present)
    if not joined and (several := _of_words_that_recur(present, column)):
        listing.announce_warning(
            f"labels in column '{column}' are put together of the same few words ('{several}', …), and each of them is "
            "learned as one class; if it is several labels, give one"
        )
    if joined:
        listing.announce(
            f"'{joined[0]}' in column '{column}' is learned as one class; if it is several labels, give one",
            Severity.WARNING,
        )


def _of_words_that_recur(present: Set[str], column: str) -> str:
    """A label of those that are several words each, which come again in others; empty where they are names.

    Names of two words share some (red fox, arctic fox) and are no more than their words; what is put together is, and
    in a column of tags fewer will do.
    """
    several = sorted(value for value in present if len(value.split()) > 1)
    counted = Counter(word for value in present for word in set(value.split()))
    again = [value for value in several if all(counted[word] > 1 for word in value.split())]
    if 2 * len(several) <= len(present) or not again:
        return ""
    tags = _SEVERAL.fullmatch(column.strip()) is not None and 2 * sum(n > 1 for n in counted.values()) >= len(counted)
    return again[0] if tags or (2 * len(again) > len(several) and len(present) > len(counted)) else ""


def multi_label(shown: str, what: str) -> UserError:
    """The error for several labels an image."""
    return UserError(
        f"{shown}: an image has several labels ({what}); raytl learns one label an image: give a column with one"
    )


def _class_names(table: Any, column: str) -> list[str] | None:
    """The names behind the integers of a Hugging Face ClassLabel column."""
    try:
        features = json.loads((table.schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = next(told["names"] for name, told in features.items() if printable(name) == column)
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None
