"""What trackers are told of a run and of its trials, as flat plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raytl.search.records import TrialRecord, TrialStatus

_ENDS = {"value": "", "low": "_low", "high": "_high"}


@dataclass(frozen=True)
class Told:
    """The run that a tracker is told of. where: its folder or URI; folder: where it is written on this machine."""

    name: str
    where: str
    folder: Path
    settings: Mapping[str, Any]


def is_over(record: TrialRecord) -> bool:
    """Whether nothing more comes of a trial."""
    return record.status is not TrialStatus.RUNNING


def parameters(record: TrialRecord) -> dict[str, Any]:
    """A trial's strategy, and what it was for."""
    told = {"kind": str(record.kind), "fold": record.fold, "baseline": record.baseline, "key": record.strategy_key}
    return {**record.strategy, **{name: value for name, value in told.items() if value is not None}}


def looks(record: TrialRecord) -> list[tuple[int, dict[str, float]]]:
    """What a trial scored, by epoch."""
    return [(int(look["epoch"]), _finite({k: v for k, v in look.items() if k != "epoch"})) for look in record.history]


def ended(record: TrialRecord) -> dict[str, float]:
    """What a trial came to."""
    scored = {} if record.score is None else {"score": record.score}
    return _finite({**record.metrics, **scored, "seconds": record.seconds})


def final(summary: Mapping[str, Any]) -> dict[str, float]:
    """What a run came to, such as ``best_test``, ``best_test_low``, ``gain_scratch``. summary: :meth:`Run.summary`."""
    found: dict[str, Any] = {"trials": summary["trials"]["count"], "seconds": summary["seconds"]}
    for name, one in {"best": summary["best"], **summary["baselines"]}.items():
        if one is None:
            continue
        found[f"{name}_score"] = one["score"]
        for kind in ("validation", "test"):
            found |= _interval(f"{name}_{kind}", one[f"{kind}_metric"])
    for name in ("transfer_gain", "adaptation_gain"):
        found |= _interval(name, summary[name])
    for name, gain in summary["gains"].items():
        found |= _interval(f"gain_{name}", gain)
    return _finite(found)


def _interval(name: str, document: Mapping[str, Any] | None) -> dict[str, Any]:
    return {} if document is None else {f"{name}{suffix}": document.get(end) for end, suffix in _ENDS.items()}


def _finite(values: Mapping[str, Any]) -> dict[str, float]:
    numbers = {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}
