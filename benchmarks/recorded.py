"""What searches in virtual time are played with instead of a task: learning curves on disk, recipes that are given."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from raytl.search.jobs import LaneJob, Survey
from raytl.search.plan.simulation import Curve
from raytl.search.propose.recipes import Control
from raytl.training.strategy import Strategy


@dataclass(frozen=True)
class FixedRecipes:
    """Recipes that are given instead of made for a task."""

    trained: dict[str, Strategy] = field(default_factory=dict)
    probed: dict[str, list[Strategy]] = field(default_factory=dict)
    without: tuple[Control, ...] = ()

    def probes(self, survey: Survey) -> dict[str, list[Strategy]]:
        """As given."""
        return self.probed

    def baselines(self, order: Sequence[str], survey: Survey) -> dict[str, Strategy]:
        """As given."""
        return self.trained

    def classical(self, order: Sequence[str], survey: Survey) -> dict[str, Strategy]:
        """None."""
        return {}

    def joined(self, survey: Survey, order: Sequence[str]) -> list[Strategy]:
        """None."""
        return []

    def controls(self, winner: Strategy, order: Sequence[str], survey: Survey) -> list[Control]:
        """As given, whatever wins."""
        return list(self.without)


class CurveTable:
    """Curves of every strategy of a finite space, recorded on one task (``benchmarks/record_curves.py``).

    Looked up exactly: a strategy that was not recorded raises LookupError, none is interpolated. One fold is recorded
    and stands for all of them, so searches are replayed with one fold.
    """

    def __init__(self, curves: dict[str, Curve]) -> None:
        self.curves = curves

    @classmethod
    def read(cls, path: Path, seed: int) -> CurveTable:
        """The curves of the task with this seed. Raises LookupError where there are none."""
        table = pd.read_parquet(path)
        table = table[table["seed"] == seed]
        if table.empty:
            raise LookupError(f"{path.name} holds no curves of seed {seed}")
        # Keys are computed anew: a field that strategies were given since takes its default.
        return cls({_key(row): _curve(row) for row in table.to_dict("records")})

    def __call__(self, job: LaneJob) -> Curve:
        """The curve of the job's strategy."""
        return self.of(Strategy.from_dict(job.strategy).key)

    def of(self, key: str) -> Curve:
        """The curve of a strategy by its key."""
        if key not in self.curves:
            raise LookupError(f"no curve was recorded for strategy {key}")
        return self.curves[key]

    @property
    def best_test_accuracy(self) -> float:
        """The highest of all strategies: what regret is measured from."""
        return max(curve.test_accuracy for curve in self.curves.values() if curve.reason is None)


def _key(row: Mapping[Any, Any]) -> str:
    return Strategy.from_dict(json.loads(row["strategy"])).key


def _curve(row: Mapping[Any, Any]) -> Curve:
    epochs = tuple(zip(map(float, row["scores"]), map(float, row["seconds"]), strict=True))
    reason = row["reason"] if isinstance(row["reason"], str) else None
    return Curve(epochs, reason=reason, test_accuracy=float(row["test_accuracy"]))
