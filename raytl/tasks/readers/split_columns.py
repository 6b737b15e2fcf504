"""Which column of a table says what each image is for, and what it says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from raytl.core.names import few
from raytl.tasks.readers.labels import number, text_values
from raytl.tasks.readers.listing import Listing
from raytl.tasks.readers.split_names import TEST, TRAIN, VALIDATION, split_of

_NAMES = ("split", "set", "subset", "partition", "dataset", "data_set", "fold", "usage", "phase", "data_split")
# Columns of 0 and 1: what 1 and what 0 stands for.
_FLAGS = {
    **dict.fromkeys(("is_train", "is_training", "is_training_img", "is_training_image", "in_train"), (TRAIN, TEST)),
    **dict.fromkeys(("is_test", "is_testing", "in_test"), (TEST, TRAIN)),
    **dict.fromkeys(("is_valid", "is_val", "is_validation", "valid", "in_val"), (VALIDATION, TRAIN)),
}
_OF_FOLDS = ("fold", "partition", "split", "data_split")  # which are never classes
_MOST_SPLITS = 5
NAMELESS = "column "  # and its number, in a table without a header


def named_column(table: Any, names: Sequence[str], taken: set[str]) -> str | None:
    """The first column that has one of the names, whatever its case and spaces."""
    by_lower = {_plain(column): column for column in reversed(table.column_names) if column not in taken}
    return next((by_lower[name] for name in names if name in by_lower), None)


def numbers_splits(table: Any, column: str) -> bool:
    """Whether a column has the name of one of splits and holds no classes: numbers, as of folds, or a single word."""
    values = {value for value in text_values(table, column) if value is not None}
    counted = all(re.fullmatch(r"\D*\d+(\.0+)?", value) for value in values)
    return _plain(column) in _NAMES and (_plain(column) in _OF_FOLDS or counted or len(values) < 2)


def split_column(table: Any, taken: set[str], listing: Listing) -> str | None:
    """The column whose values speak of splits, by its usual name or by what is in it; None where there is none.

    A column with the name of one that says something else is announced: what it sets apart will be learned from.
    """
    told = named_column(table, _NAMES, taken)
    flag = named_column(table, tuple(_FLAGS), taken)
    for name in [told, *(column for column in table.column_names if column not in taken and column != told)]:
        if name is None:
            continue
        values = {value for value in text_values(table, name) if value is not None}
        spoken = {value: found for value in values if (found := split_of(value)) is not None}
        if name == told and spoken and (len(spoken) == len(values) or len({found[0] for found in spoken.values()}) > 1):
            return str(name)
        plain = {found[0] for found in spoken.values() if not found[1]}
        if len(spoken) == len(values) and len(plain) > 1 and len(plain) == len(values):
            return str(name)
        if name != told and plain and TRAIN in plain and 1 < len(values) <= _MOST_SPLITS:
            _say_not_obeyed(str(name), sorted(values), listing)
    if flag is not None and {number(value) for value in table.column(flag).to_pylist()} == {0.0, 1.0}:
        yes, no = _FLAGS[_plain(flag)]
        listing.announce(f"column '{flag}' is read as splits: 1 is for {yes}, 0 for {no}")
        return flag
    if told is not None:
        others = sorted({value for value in text_values(table, told) if value is not None})
        if 1 < len(others) <= table.num_rows / 2:
            _say_not_obeyed(told, others, listing)
    return None


def _say_not_obeyed(column: str, values: Sequence[str], listing: Listing) -> None:
    listing.announce_warning(
        f"column '{column}' ({few(values)}) does not name splits, and all of its rows are read; "
        "write train, validation and test, if it is to set some apart"
    )


def split_values(table: Any, column: str | None) -> list[str | None]:
    """The split of each row."""
    if column is None:
        return [None] * table.num_rows
    if _plain(column) in _FLAGS:
        yes, no = _FLAGS[_plain(column)]
        return [yes if number(value) == 1 else no for value in table.column(column).to_pylist()]
    found = (split_of(value) if value is not None else None for value in text_values(table, column))
    return [split[0] if split is not None else None for split in found]


def _plain(name: str) -> str:
    return name.lower().strip().replace(" ", "_").replace("-", "_")
