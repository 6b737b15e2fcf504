"""The leaderboard: one row per distinct strategy, its folds pooled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

_SETTING = "strategy."
_FIXED = [
    *("rank", "label", "baseline", "trial", "folds", "status", "score", "std"),
    *("validation", "validation_low", "validation_high"),
    *("test", "test_low", "test_high", "seconds", "epochs", "strategy_key"),
]
_METRICS = ("metric.target-metric", "metric.target-accuracy")
"""Columns of validation figures; the first that says anything counts."""
_STATUS_ORDER = ("completed", "running", "interrupted", "pruned", "failed")


def leaderboard(trials: pd.DataFrame, outcome: dict[str, Any] | None = None) -> pd.DataFrame:
    """Pool the trials of equal strategies and rank them.

    trials: as in ``trials.parquet``. outcome: the document ``outcome.json``, or None.
    Returns one row per strategy: ``rank`` (1 = best), ``label`` (``best``, a baseline's name, ``best, …`` for both;
    else empty), ``baseline``, ``trial`` (its first), ``folds``, ``status``, ``score`` (mean over folds), ``std`` (over
    folds, where there are two or more), ``validation`` and ``test`` (by the run's metric) with ``_low`` and ``_high``
    (bootstrap intervals; intervals and test are known for the winner and the baselines), ``seconds`` (sum),
    ``epochs``, ``strategy_key``, then the settings under their own names. The chosen strategy comes first; then those
    trained to the end by score; then the others by how far they got, and by score. Where nothing is chosen yet,
    controls, which cannot be, come after all that can.
    """
    best_key = outcome["best"]["strategy_key"] if outcome else None
    candidates = {entry["strategy_key"]: entry for entry in _candidates(outcome)}
    eligible = set(trials["strategy_key"] if best_key else trials.loc[trials["kind"] != "control", "strategy_key"])
    # Plain arrays: a table of its own for each of a thousand strategies takes seconds, and somebody looks on.
    columns = {name: trials[name].to_numpy(dtype=object) for name in trials.columns}
    known = {
        name: trials[name].notna().to_numpy() for name in ("baseline", "score", "seconds", *_METRICS) if name in trials
    }
    rows = []
    for key, group in trials.groupby("strategy_key", sort=False).indices.items():
        row = _pooled(np.asarray(group), columns, known)
        candidate = candidates.get(str(key), {})
        labels = (["best"] if key == best_key else []) + ([row["baseline"]] if row["baseline"] else [])
        row |= {"label": ", ".join(labels), "strategy_key": key}
        if candidate.get("validation"):
            row |= _bounds(candidate["validation"], "validation")
        row |= _bounds(candidate.get("test"), "test")
        row |= {name.removeprefix(_SETTING): columns[name][group[0]] for name in columns if name.startswith(_SETTING)}
        rows.append(row)
    rows.sort(key=lambda row: (row["strategy_key"] not in eligible, *_order(row, best_key)))
    frame = pd.DataFrame([{"rank": rank} | row for rank, row in enumerate(rows, start=1)], columns=_columns(trials))
    return frame.infer_objects()


def settings_columns(board: pd.DataFrame) -> list[str]:
    """The columns of a leaderboard that are settings of the strategy."""
    return [name for name in board.columns if name not in _FIXED]


def _columns(trials: pd.DataFrame) -> list[str]:
    return _FIXED + [name.removeprefix(_SETTING) for name in trials.columns if name.startswith(_SETTING)]


def _candidates(outcome: dict[str, Any] | None) -> list[dict[str, Any]]:
    return [] if outcome is None else [*outcome["baselines"], outcome["best"]]


def _pooled(group: np.ndarray, columns: dict[str, np.ndarray], known: dict[str, np.ndarray]) -> dict[str, Any]:
    """Figures of one strategy. Only the trials that got furthest count: a score at fewer epochs is another figure.

    group: rows of its trials. columns: the trials by column. known: where a column says anything.
    """

    def values(name: str, rows: np.ndarray) -> np.ndarray:
        told: np.ndarray = columns[name][rows[known[name][rows]]]
        return told

    statuses = columns["status"][group]
    status = min(statuses, key=_STATUS_ORDER.index)
    counted = group[statuses == status]
    scores = values("score", counted).astype(float)
    baselines = values("baseline", group)
    judged = (values(name, counted) for name in _METRICS if name in known)
    validation = next((found.astype(float) for found in judged if len(found)), None)
    return {
        "baseline": str(baselines[0]) if len(baselines) else None,
        "trial": int(columns["number"][group].min()),
        "folds": len(set(columns["fold"][counted])),
        "status": status,
        "score": float(scores.mean()) if len(scores) else None,
        "std": float(scores.std(ddof=1)) if len(scores) > 1 else None,
        "validation": None if validation is None else float(validation.mean()),
        "seconds": float(values("seconds", group).astype(float).sum()),
        "epochs": int(columns["epochs"][counted].max()),
    }


def _bounds(interval: dict[str, Any] | None, name: str) -> dict[str, Any]:
    values = interval or {}
    return {name: values.get("value"), f"{name}_low": values.get("low"), f"{name}_high": values.get("high")}


def _order(row: dict[str, Any], best_key: str | None) -> tuple[bool, bool, bool, int, float, int]:
    """Whoever was let further was better at each epoch where others were stopped, whatever ended it there."""
    score = row["score"]
    known = score is not None and score == score
    partial = known and row["status"] != "completed"
    return (
        row["strategy_key"] != best_key,
        not known,
        partial,
        -row["epochs"] if partial else 0,
        -score if known else 0.0,
        row["trial"],
    )
