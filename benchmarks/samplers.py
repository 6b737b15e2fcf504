"""How well ways of spending the same virtual time do on recorded learning curves.

    python benchmarks/samplers.py

Every way runs the product's own plan on the curves of data/digits-curves.parquet and differs in what its name says:

raytl            TPE, told of stopped trials as pruned, with their intermediate scores; successive halving
bridge           the same, but stopped trials are told as complete with their last score, as Ray's OptunaSearch does
cost-aware       raytl with --cost-aware: expected improvement per second among what TPE proposes
random           random strategies, the same halving
tpe, no halving  TPE on full trainings
random, no halving

Regret: of the strategy that leads among the fully trained ones at a time, against the best of all recorded, in points
(hundredths) of test accuracy and of the selection score. Mean over the sampler's seeds and the recorded tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from common import RandomSampler, Silent, finish, say
from record_curves import CURVES, DATA
from recorded import CurveTable, FixedRecipes

from raytl.search.jobs import JobKind
from raytl.search.plan.halving import SuccessiveHalving
from raytl.search.plan.schedule import SearchPlan
from raytl.search.plan.settings import PlanSettings
from raytl.search.plan.simulation import Curve, VirtualClock, simulate
from raytl.search.propose.cost import CostAwareSampler
from raytl.search.propose.sampler import TpeSampler
from raytl.search.space.binding import BoundSpace
from raytl.search.space.definition import load_space
from raytl.tasks import demo_task

REACHED = 0.005
"""A score this close to the best counts as having found it."""


class BridgeSampler(TpeSampler):
    """Learns what Ray's OptunaSearch is told: every trial's last score as if the trial were complete."""

    def report(self, handle: Any, epoch: int, score: float) -> None:
        """Nothing: intermediate scores do not cross the bridge."""

    def tell(self, handle: Any, *, score: float | None, pruned: bool = False) -> None:
        """Complete, however early the trial was stopped."""
        super().tell(handle, score=score)


@dataclass(frozen=True)
class Way:
    """A way to search."""

    name: str
    sampler: Callable[[BoundSpace, int], TpeSampler]
    halving: bool


WAYS = [
    Way("raytl", TpeSampler, True),
    Way("bridge", BridgeSampler, True),
    Way("cost-aware", CostAwareSampler, True),
    Way("random", RandomSampler, True),
    Way("tpe, no halving", TpeSampler, False),
    Way("random, no halving", RandomSampler, False),
]


@dataclass(frozen=True)
class Outcome:
    """Of one search: regrets in points at the moments asked for, seconds to the best score, how many trials."""

    test: list[float]
    score: list[float]
    reached_s: float
    trials: int
    completed: int


def run(way: Way, space: BoundSpace, table: CurveTable, seed: int, moments: list[float], lanes: int) -> Outcome:
    """One search in virtual time."""
    given = space.space.settings
    clock = VirtualClock()
    settings = PlanSettings(
        trials=len(table.curves),
        folds=1,
        lanes=lanes,
        epochs=given.epochs,
        directory=Path(),
        # The plan keeps time for a refit, which is nobody's concern here: its searching ends after the last moment.
        time_budget_s=moments[-1] + 4 * max(curve.duration for curve in table.curves.values()),
        tested=False,
    )
    halving = SuccessiveHalving(
        given.grace_epochs if way.halving else given.epochs, given.reduction_factor, given.epochs
    )
    plan = SearchPlan(settings, way.sampler(space, seed), halving, FixedRecipes(), [], Silent(), clock)
    events = simulate(plan, table, clock, lanes=lanes)
    searched = [event for event in events if event.job.kind == JobKind.SEARCH and event.time_s <= moments[-1]]
    done = [(event.time_s, table(event.job)) for event in searched if event.what == "end"]
    done = [(time_s, curve) for time_s, curve in done if curve.reason is None]
    best = max(_final(curve) for curve in table.curves.values() if curve.reason is None)
    leaders = [_leader(done, moment) for moment in moments]
    return Outcome(
        test=[100 * (table.best_test_accuracy - (curve.test_accuracy if curve else 0.0)) for curve in leaders],
        score=[100 * (best - (_final(curve) if curve else 0.0)) for curve in leaders],
        reached_s=next((time_s for time_s, curve in done if _final(curve) > best - REACHED), moments[-1]),
        trials=sum(event.what == "start" for event in searched),
        completed=len(done),
    )


def _leader(done: list[tuple[float, Curve]], moment: float) -> Curve | None:
    return max((curve for time_s, curve in done if time_s <= moment), key=_final, default=None)


def _final(curve: Curve) -> float:
    return curve.epochs[-1][0]


def _mean(values: list[float]) -> str:
    """Mean and its standard error."""
    return f"{np.mean(values):.2f} ±{np.std(values, ddof=1) / len(values) ** 0.5:.2f}"


def main(
    seeds: Annotated[int, typer.Option(help="of the samplers")] = 24,
    horizon: Annotated[float, typer.Option(help="virtual seconds")] = 120.0,
    lanes: int = 2,
) -> None:
    """Compare the ways."""
    if not CURVES.exists():
        raise SystemExit(f"{CURVES}: not recorded yet; run: python benchmarks/record_curves.py --seed 0")
    moments = [horizon / 8, horizon / 4, horizon / 2, horizon]
    outcomes: dict[str, list[Outcome]] = {way.name: [] for way in WAYS}
    tasks = [int(seed) for seed in sorted(pd.read_parquet(CURVES, columns=["seed"])["seed"].unique())]
    for task_seed in tasks:
        table = CurveTable.read(CURVES, task_seed)
        space = BoundSpace(load_space(str(DATA / "recorded-space.yaml")), demo_task(task_seed).data)
        for seed in range(seeds):
            for way in WAYS:
                outcomes[way.name].append(run(way, space, table, seed, moments, lanes))
            say(f"task {task_seed}: {seed + 1} of {seeds} seeds")
    header = ["way", *(f"regret at {moment:g} s" for moment in moments), "score regret", "s to best", "trials (full)"]
    rows = []
    for way in WAYS:
        found = outcomes[way.name]
        rows.append([
            way.name,
            *(_mean([outcome.test[i] for outcome in found]) for i in range(len(moments))),
            _mean([outcome.score[-1] for outcome in found]),
            f"{np.mean([outcome.reached_s for outcome in found]):.0f}",
            f"{np.mean([o.trials for o in found]):.0f} ({np.mean([o.completed for o in found]):.0f})",
        ])  # fmt: skip
    figures = {
        name: {
            "test_regret_points": np.mean([outcome.test for outcome in found], axis=0).round(3).tolist(),
            "score_regret_points": np.mean([outcome.score for outcome in found], axis=0).round(3).tolist(),
            "seconds_to_best": round(float(np.mean([outcome.reached_s for outcome in found])), 1),
        }
        for name, found in outcomes.items()
    }
    extra = {"seeds": seeds, "tasks": tasks, "lanes": lanes, "virtual_seconds": moments, "ways": figures}
    finish("samplers", "Regret in points after virtual seconds, mean and its standard error", header, rows, extra)


if __name__ == "__main__":
    typer.run(main)
