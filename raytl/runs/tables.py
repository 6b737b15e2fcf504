"""Trials and learning curves as tables of plain column types, in Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raytl.core.errors import UserError
from raytl.runs.files import plain, replacing
from raytl.search.records import TrialRecord

_TRIAL_SCHEMA = {
    "number": pa.int64(),
    "kind": pa.string(),
    "baseline": pa.string(),
    "strategy_key": pa.string(),
    "fold": pa.int64(),
    "status": pa.string(),
    "reason": pa.string(),
    "score": pa.float64(),
    "seconds": pa.float64(),
    "ended": pa.float64(),
    "epochs": pa.int64(),
    "lane": pa.string(),
}


def trials_table(records: Iterable[TrialRecord]) -> pa.Table:
    """One row per trial: the record's own fields, ``strategy.<key>`` per setting and ``metric.<name>`` per metric."""
    rows = [_trial_row(record) for record in records]
    return _table(rows, _TRIAL_SCHEMA)


def history_table(records: Iterable[TrialRecord]) -> pa.Table:
    """One row per trial and epoch: ``trial``, ``epoch``, and every figure that the trial reported."""
    rows = [{"trial": record.number, "epoch": None} | entry for record in records for entry in record.history]
    numbers = {key: pa.float64() for row in rows for key in row}
    return _table(rows, numbers | {"trial": pa.int64(), "epoch": pa.int64()})


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table to Parquet, atomically."""
    with replacing(path) as file:
        pq.write_table(table, file, compression="zstd")


def read_table(path: Path) -> pa.Table:
    """Read a Parquet file. Raises UserError where it is missing or damaged."""
    try:
        with path.open("rb") as file:  # Arrow takes no path that is not UTF-8
            return pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read as Parquet; the file is missing or damaged") from error


def column(values: Sequence[Any]) -> pa.Array:
    """An Arrow column of the narrowest plain type that holds all values: boolean, whole, real, or text.

    Values of kinds that do not mix (``True`` beside ``0.5``, ``"auto"`` beside ``3``, a whole number that no real one
    is equal to beside reals) are written as text, all of them.
    """
    kinds = {_kind(value) for value in values} - {None}
    if kinds <= {bool}:
        return pa.array(values, pa.bool_() if kinds else pa.string())
    if kinds == {int}:
        return pa.array(values, pa.int64())
    if kinds <= {int, float} and all(not isinstance(value, int) or float(value) == value for value in values):
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    return pa.array([None if value is None else _text(value) for value in values], pa.string())


def _kind(value: Any) -> type | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return bool
    if isinstance(value, int):
        return int if -(2**63) <= value < 2**63 else str
    return float if isinstance(value, float) else str


def _text(value: Any) -> str:
    return value.encode(errors="replace").decode() if isinstance(value, str) else json.dumps(value)


def _trial_row(record: TrialRecord) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(record, name) for name in _TRIAL_SCHEMA if name != "epochs"}
    row |= {"epochs": len(record.history), "status": str(record.status)}
    row |= {f"strategy.{key}": plain(value, finite=False) for key, value in record.strategy.items()}
    return row | {f"metric.{name}": float(value) for name, value in record.metrics.items()}


def _table(rows: list[dict[str, Any]], types: dict[str, pa.DataType]) -> pa.Table:
    names = list(dict.fromkeys([*types, *(key for row in rows for key in row)]))
    columns = []
    for name in names:
        values = [plain(row.get(name), finite=False) for row in rows]
        if types.get(name) == pa.string():
            values = [None if value is None else _text(value) for value in values]
        columns.append(pa.array(values, types[name]) if name in types else column(values))
    return pa.table(columns, names=names)
