"""A plan in virtual time: the same jobs, sampler and halving as on Ray Tune, against recorded learning curves.

No lane, no Ray and no clock on the wall, so the outcome depends on the seed alone and a search of an hour takes a
second (the idea is syne-tune's simulated backend; Salinas et al., 2022).
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd

from raytl.search.jobs import JobResult, LaneJob, Survey
from raytl.search.plan.schedule import SearchPlan
from raytl.search.plan.settings import Wait
from raytl.search.propose.recipes import Control
from raytl.training.strategy import Strategy


@dataclass(frozen=True)
class Curve:
    """What a job will do if nobody stops it.

    epochs: (selection score, seconds since the job's start) after epoch 1, 2, …; none for a job that reports none.
    seconds: of the whole job, 0 for those of its last epoch. reason: why it fails at its end, None where it succeeds.
    test_accuracy: of the final model; for those who compare searches, the plan never sees it. result: what it brings
    besides.
    """

    epochs: tuple[tuple[float, float], ...] = ()
    seconds: float = 0.0
    reason: str | None = None
    test_accuracy: float = float("nan")
    result: JobResult = field(default_factory=JobResult)

    @property
    def duration(self) -> float:
        """Seconds to the job's end."""
        return max(self.seconds, self.epochs[-1][1] if self.epochs else 0.0)

    def ended(self, lane: str) -> JobResult:
        """What the plan is told at the job's end."""
        return replace(self.result, seconds=self.duration, lane=lane, reason=self.reason)


Curves = Callable[[LaneJob], Curve]


@dataclass(frozen=True)
class Event:
    """Something that happened: what is ``start``, ``epoch``, ``stop`` (by the plan) or ``end`` (by itself)."""

    time_s: float
    lane: int
    job: LaneJob
    what: str
    epoch: int = 0


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


class VirtualClock:
    """Seconds since the start of the simulation; the plan's clock."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The present."""
        return self.now


def simulate(
    plan: SearchPlan, curves: Curves, clock: VirtualClock, *, lanes: int, overhead_s: float = 0.0
) -> list[Event]:
    """Run a plan to its end; returns all events in order of time.

    clock: the one that the plan was made with. overhead_s: what a lane needs before each job.
    As on Ray Tune a free lane is given the next job at once, and none is handed out beyond the lanes.
    Events of the same time come in the order in which they were scheduled.
    """
    return _Simulation(plan, curves, clock, lanes, overhead_s).run()


@dataclass
class _Simulation:
    plan: SearchPlan
    curves: Curves
    clock: VirtualClock
    lanes: int
    overhead_s: float
    events: list[Event] = field(default_factory=list)

    def run(self) -> list[Event]:
        self._order = count()
        self._due: list[tuple[float, int, int, LaneJob, Curve, int]] = []
        self._idle = list(reversed(range(self.lanes)))
        self._asking = True
        self._fill()
        while self._due:
            self.clock.now, _, lane, job, curve, epoch = heapq.heappop(self._due)
            self._advance(lane, job, curve, epoch)
        return self.events

    def _fill(self) -> None:
        """Give every free lane a job, as long as there are jobs."""
        while self._idle and self._asking:
            job = self.plan.next_job(self._idle[-1])
            if isinstance(job, LaneJob):
                self._begin(self._idle.pop(), job)
            elif isinstance(job, Wait):
                return
            else:
                self._asking = False

    def _begin(self, lane: int, job: LaneJob) -> None:
        self._note(lane, job, "start")
        curve = self.curves(job)
        self._schedule(self.clock.now + self.overhead_s, lane, job, curve, 1)

    def _schedule(self, started: float, lane: int, job: LaneJob, curve: Curve, epoch: int) -> None:
        """Put the job's next report, or behind the last one its end, on the agenda."""
        seconds = curve.epochs[epoch - 1][1] if epoch <= len(curve.epochs) else curve.duration
        heapq.heappush(self._due, (started + seconds, next(self._order), lane, job, curve, epoch))

    def _advance(self, lane: int, job: LaneJob, curve: Curve, epoch: int) -> None:
        if epoch > len(curve.epochs):
            self._note(lane, job, "end")
            self.plan.on_end(job.number, curve.ended(f"lane-{lane}"))
        else:
            score, seconds = curve.epochs[epoch - 1]
            self._note(lane, job, "epoch", epoch)
            if self.plan.on_epoch(job.number, {"epoch": float(epoch), "score": score, "seconds": seconds}):
                self._schedule(self.clock.now - seconds, lane, job, curve, epoch + 1)
                return
            self._note(lane, job, "stop", epoch)
            self.plan.on_end(job.number, None)
        self._idle.append(lane)
        self._fill()

    def _note(self, lane: int, job: LaneJob, what: str, epoch: int = 0) -> None:
        self.events.append(Event(self.clock.now, lane, job, what, epoch))


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
