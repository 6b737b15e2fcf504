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

from raytl.judging.health import FEW
from raytl.search.jobs import JobKind, JobResult, LaneJob
from raytl.search.lanes.work import do_job
from raytl.search.means_of_judging import room_for_judging
from raytl.search.on_unlabelled import MOMENT_S, images_to_ask
from raytl.search.plan.durations import Durations, slower
from raytl.search.plan.schedule import SearchPlan
from raytl.search.plan.simulation import Curve, VirtualClock, simulate
from raytl.search.plan.time_budget import SOLVED_AT_LEAST, unlimited_yardstick_seconds
from raytl.search.planning import END_S
from raytl.search.propose.effort import Passes
from raytl.search.records import TrialRecord, TrialStatus, again_seconds
from raytl.sources.uris import at_size, split_size, tiles_of
from raytl.training.strategy import Strategy
from raytl.training.workspace import Workspace
from raytl.training.yardstick import FOLDS, IMAGES_OF_A_FOLD, MOST_CHANGED

START_S = 8.0
"""Until Ray and its lanes are up; the search begins meanwhile with what trains nothing."""
FINISH_S = END_S
"""For the report and the bundle, once all is chosen and tested: what a time budget keeps for it."""
LEVEL_SPREAD = 0.08
"""Standard deviation of trained strategies' accuracies about that of the best probe."""
PACE_SPREAD = 0.2
"""Of the logarithm of what trainings take, over what they were reckoned to take."""
USUAL_LEVEL = 0.7
ENOUGH_S = 5.0
"""Of rehearsing, after which the first run alone goes on: it tells most."""
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

    passes, epochs: as of :class:`raytl.search.plan.durations.Durations`. records: of probes that were done, and of
    trainings that were timed; durations: learned from these. done: curves of the jobs that were done, by what they
    were. pretrain_s: seconds by source model that is not made yet. network_s: by source model, of its first probe and
    of a further one on the same features. level: of the best probe, accuracy in [0, 1]. kept_s: seconds that went into
    what the search finds.
    """

    passes: Callable[[Strategy, float | None], Passes]
    epochs: int
    records: list[TrialRecord] = field(default_factory=list)
    done: dict[tuple[str, ...], Curve] = field(default_factory=dict)
    pretrain_s: Mapping[str, float] = field(default_factory=dict)
    network_s: dict[str, tuple[float, float]] = field(default_factory=dict)
    level: float = USUAL_LEVEL
    kept_s: float = 0.0

    def __post_init__(self) -> None:
        self.durations = Durations(self.records, self.epochs, self.passes)

    def begin(self, plan: SearchPlan, workspace: Workspace, until: float) -> None:
        """Do what trains nothing, as the search would, until that time of ``time.perf_counter`` at the latest.

        Features that are made for it are kept: the search, which has the same to do, finds them.
        """
        while time.perf_counter() < until and (job := plan.next_quick()) is not None:
            scores: list[float] = []

            def send(message: dict[str, Any], job: LaneJob = job, scores: list[float] = scores) -> None:
                metrics = message["report"].metrics
                scores.append(metrics["score"])
                plan.on_epoch(job.number, metrics)

            before_s = workspace.cache.made_s
            result = do_job(workspace, job, send)
            plan.on_end(job.number, result)
            made_s = workspace.cache.made_s - before_s if job.kind == JobKind.SURVEY else result.made_s
            again_s = again_seconds(result.seconds, made_s)
            self.kept_s += result.seconds - again_s
            epochs = tuple((score, again_s) for score in scores[-1:])
            self.done[_what(job)] = Curve(epochs, again_s, result.reason, result=replace(result, made_s=0.0))
            if job.kind == JobKind.PROBE:
                self.durations.probed(job, result)
                uri = job.strategy["source_model"]
                first, least = self.network_s.get(uri, (result.seconds, again_s))
                self.network_s[uri] = (first, min(least, again_s))
        self.records += [record for record in plan.records if record.status == TrialStatus.COMPLETED]

    def tried(self) -> set[str]:
        """Keys of what was done, which durations tell what it takes once more."""
        return {record.strategy_key for record in self.records}

    def again_s(self, source_model: str) -> float:
        """Seconds of a head on one fold more, as of those on its source model, or on any; infinite where none was."""
        of_all = [least for _, least in self.network_s.values()]
        return self.network_s[source_model][1] if source_model in self.network_s else min(of_all, default=math.inf)


class TooLongError(Exception):
    """Ends a rehearsal."""


class Rehearsal:
    """One run of the search. pace: over what trainings were reckoned to take. rng: draws how good strategies are.

    until: of ``time.perf_counter()``; a run that is not over by then raises :class:`TooLongError`.
    """

    def __init__(
        self,
        known: Known,
        workspace: Workspace,
        epochs: int,
        pace: float,
        rng: np.random.Generator,
        until: float = math.inf,
    ) -> None:
        self._until = until
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
        clock.now += self._yardstick_seconds(plan, clock.now)
        return clock.now + self._known.durations.of_images(plan.settings.test_images) + FINISH_S

    def _yardstick_seconds(self, plan: SearchPlan, search_s: float) -> float:
        """Of what the model is judged by later: the winner without each fold, asked about images that are changed.

        search_s: that the search took. It has as many folds as half of the time is enough for
        (:func:`raytl.training.yardstick.gather_yardstick`).
        """
        winner, target = plan.winner(), self._workspace.data.target
        if winner is None or target is None or not self._workspace.folds:
            return 0.0
        strategy = Strategy.from_dict(plan.contest.strategy_of(winner))
        convex, training_s = strategy.convex, self._seconds(strategy)
        unlimited = plan.settings.time_budget_s is None
        asked_s = self._known.durations.of_images(images_to_ask(self._workspace), [strategy.source_model])
        allowed = unlimited_yardstick_seconds(search_s, convex=convex) if unlimited else room_for_judging(plan)
        if training_s * (SOLVED_AT_LEAST if convex else 1) > allowed:
            return asked_s if unlimited else min(asked_s, max(MOMENT_S, allowed))
        more = min(FOLDS, len(target) // IMAGES_OF_A_FOLD, int(allowed / 2 / max(training_s, 1e-3)))
        # Of few images all folds are worth twice the time, where no budget says otherwise.
        most_s = 2 * allowed if unlimited and len(target) < FEW else allowed
        all_s = min(most_s, max(more, self._workspace.folds_once) * training_s)
        asking_s = self._known.durations.of_images(MOST_CHANGED, [strategy.source_model])
        return all_s + min(asking_s, max(0.0, allowed - all_s)) + (asked_s if unlimited else 0.0)

    def curve(self, job: LaneJob) -> Curve:
        """What a job comes to: what it came to, or as well as it can be told. Raises TooLongError."""
        if time.perf_counter() > self._until:
            raise TooLongError
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
        # The network is run once at so many pixels, and then has its features for all folds.
        if strategy.key in self._levels and strategy.key not in self._known.tried():
            return min(self._known.again_s(base), self._known.durations.of(strategy))
        if size is None or took is None:
            return self._known.durations.of(strategy)
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
    """What the search takes in seconds, and its plan at the end, in so many runs; in the first at the reckoned pace.

    In fewer where they take long (:data:`ENOUGH_S`): a search that has time for hundreds of strategies decides often.
    """
    found: list[tuple[float, SearchPlan]] = []
    until = time.perf_counter() + ENOUGH_S
    for run in range(often):
        rng = np.random.default_rng([seed, run])
        pace = math.exp(PACE_SPREAD * rng.normal()) if run else 1.0
        clock = VirtualClock()
        plan = make_plan(clock, seed + run)
        rehearsal = Rehearsal(known, workspace, epochs, pace, rng, until if run else math.inf)
        try:
            found.append((rehearsal.run(plan, clock, lanes), plan))
        except TooLongError:
            break
    return found


def _what(job: LaneJob) -> tuple[str, ...]:
    """What is the same for jobs that come to the same."""
    if job.kind == JobKind.SURVEY:
        return (job.kind,)
    key = Strategy.from_dict(job.strategy).key
    return (JobKind.REFIT, key) if job.kind == JobKind.REFIT else ("trial", key, str(job.fold))
