"""A search rehearsed in virtual time: the very plan that it will follow, by what its parts were seen to take here.

What trains nothing is done for real, as the search itself would begin, and kept for it. What is trained is reckoned
from some trainings that were timed. How good it will be nobody knows, so it is drawn, and the search is rehearsed
several times.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from raytl.search.jobs import JobKind, JobResult, LaneJob
from raytl.search.lanes.work import do_job
from raytl.search.plan.durations import Durations, slower
from raytl.search.plan.schedule import SearchPlan
from raytl.search.plan.simulation import Curve, VirtualClock, simulate
from raytl.search.records import TrialRecord
from raytl.sources.uris import at_size, split_size, tiles_of
from raytl.training.strategy import Strategy
from raytl.training.workspace import Workspace

START_S = 8.0
"""Until Ray and its lanes are up; the search begins meanwhile with what trains nothing."""
FINISH_S = 8.0
"""For the report and the bundle, once all is chosen and tested."""
LEVEL_SPREAD = 0.08
"""Standard deviation of trained strategies' accuracies about that of the best probe."""
PACE_SPREAD = 0.2
"""Of the logarithm of what trainings take, over what they were reckoned to take."""
USUAL_LEVEL = 0.7
_SURE = 0.9

MakePlan = Callable[[VirtualClock, int], SearchPlan]
"""Makes the search's plan on a clock, with a seed, anew."""


class Silent:
    """Hears of a search and says nothing."""

    def on_trial(self, record: TrialRecord) -> None:
        """Nothing."""

    def on_phase(self, phase: str, detail: str) -> None:
        """Nothing."""


@dataclass
class Known:
    """What jobs came to, and took.

    durations: learned from probes, and from trainings that were timed. done: curves of the jobs that were done, by what
    they were. pretrain_s: seconds by source model that is not made yet. network_s: by source model, of its first probe
    and of a further one on the same features. level: of the best probe, accuracy in [0, 1].
    """

    durations: Durations
    done: dict[tuple[str, ...], Curve] = field(default_factory=dict)
    pretrain_s: Mapping[str, float] = field(default_factory=dict)
    network_s: dict[str, tuple[float, float]] = field(default_factory=dict)
    level: float = USUAL_LEVEL

    def begin(self, plan: SearchPlan, workspace: Workspace, until: float) -> None:
        """Do what trains nothing, as the search would, until that time of ``time.perf_counter`` at the latest."""
        while time.perf_counter() < until and (job := plan.next_quick()) is not None:
            scores: list[float] = []

            def send(message: dict[str, Any], job: LaneJob = job, scores: list[float] = scores) -> None:
                metrics = message["report"].metrics
                scores.append(metrics["score"])
                plan.on_epoch(job.number, metrics)

            result = do_job(workspace, job, send)
            plan.on_end(job.number, result)
            epochs = tuple((score, result.seconds) for score in scores[-1:])
            self.done[_what(job)] = Curve(epochs, result.seconds, result.reason, result=result)
            if job.kind == JobKind.PROBE:
                self.durations.probed(job, result)
                uri = job.strategy["source_model"]
                first, least = self.network_s.get(uri, (result.seconds, result.seconds))
                self.network_s[uri] = (first, min(least, result.seconds))


class Rehearsal:
    """One run of the search. pace: over what trainings were reckoned to take. rng: draws how good strategies are."""

    def __init__(self, known: Known, workspace: Workspace, epochs: int, pace: float, rng: np.random.Generator) -> None:
        self._known = known
        self._workspace = workspace
        self._epochs = epochs
        self._pace = pace
        self._rng = rng
        self._levels: dict[str, float] = {}
        self._larger: Callable[[str], Sequence[tuple[str, float]]] = lambda uri: ()

    def run(self, plan: SearchPlan, clock: VirtualClock, lanes: int) -> float:
        """Seconds from the start to the end."""
        self._larger = lambda uri: [*plan.settings.larger(uri), *plan.settings.closer(uri)]
        while clock.now < START_S and (job := plan.next_quick()) is not None:
            curve = self.curve(job)
            clock.now += curve.duration
            for score, seconds in curve.epochs:
                plan.on_epoch(job.number, {"epoch": 1.0, "score": score, "seconds": seconds})
            plan.on_end(job.number, curve.ended("driver"))
        clock.now = max(clock.now, START_S)
        simulate(plan, self.curve, clock, lanes=lanes)
        return clock.now + self._known.durations.of_images(plan.settings.test_images) + FINISH_S

    def curve(self, job: LaneJob) -> Curve:
        """What a job comes to: what it came to, or as well as it can be told."""
        if job.kind == JobKind.PRETRAIN:
            return Curve(seconds=self._known.pretrain_s.get(job.source_model, 0.0))
        found = self._known.done.get(_what(job))
        if found is not None:
            return found
        if job.kind == JobKind.SURVEY:
            return Curve()
        strategy = Strategy.from_dict(job.strategy)
        seconds = self._seconds(strategy)
        if job.kind == JobKind.REFIT:
            return Curve(seconds=seconds)
        level = self._level(strategy.key)
        looks = 1 if strategy.convex else self._epochs
        epochs = tuple((level, seconds * look / looks) for look in range(1, looks + 1))
        return Curve(epochs, result=self._said(level, job.fold))

    def _seconds(self, strategy: Strategy) -> float:
        if not strategy.convex:
            return self._pace * self._known.durations.of(strategy)
        if strategy.cached_views and strategy.key in self._levels:  # on one fold more its views are there already
            as_it_is = replace(strategy, augmentation="none", cached_views=0)
            return slower(strategy) * self._seconds(as_it_is)
        base, size = split_size(strategy.source_model)
        took = self._known.network_s.get(base)
        if size is None or took is None:
            return self._known.durations.of(strategy)
        # The network is run once at so many pixels, and then has its features for all folds.
        if strategy.key in self._levels:
            return took[1]
        middle = at_size(base, size, tiles_of(strategy.source_model))  # squashed or not, it is as many pixels
        times = dict(self._larger(base)).get(middle, 1.0)
        return self._known.durations.at_more_pixels(replace(strategy, source_model=base), times, took[0]) + took[1]

    def _level(self, key: str) -> float:
        if key not in self._levels:
            drawn = self._rng.normal(self._known.level, LEVEL_SPREAD)
            self._levels[key] = float(np.clip(drawn, 0.02, 0.99))
        return self._levels[key]

    def _said(self, level: float, fold: int | None) -> JobResult:
        """Answers on the validation images of which so many are right."""
        target = self._workspace.data.target
        if target is None or fold is None or not self._workspace.folds:
            return JobResult()
        index = self._workspace.folds[fold][1]
        labels, classes = target.labels[index], len(self._workspace.data.classes)
        wrong = (labels + self._rng.integers(1, max(2, classes), len(index))) % classes
        named = np.where(self._rng.random(len(index)) < level, labels, wrong)
        said = np.full((len(index), classes), (1 - _SURE) / classes, dtype=np.float32)
        said[np.arange(len(index)), named] += _SURE
        return JobResult(validation_index=index, validation_probabilities=said)


def rehearse(
    make_plan: MakePlan, known: Known, workspace: Workspace, *, epochs: int, lanes: int, often: int, seed: int
) -> list[tuple[float, SearchPlan]]:
    """What the search takes in seconds, and its plan at the end, in so many runs; in the first at the reckoned pace."""
    found = []
    for run in range(often):
        rng = np.random.default_rng([seed, run])
        pace = math.exp(PACE_SPREAD * rng.normal()) if run else 1.0
        clock = VirtualClock()
        plan = make_plan(clock, seed + run)
        found.append((Rehearsal(known, workspace, epochs, pace, rng).run(plan, clock, lanes), plan))
    return found


def _what(job: LaneJob) -> tuple[str, ...]:
    """What is the same for jobs that come to the same."""
    if job.kind == JobKind.SURVEY:
        return (job.kind,)
    key = Strategy.from_dict(job.strategy).key
    return (JobKind.REFIT, key) if job.kind == JobKind.REFIT else ("trial", key, str(job.fold))
