"""What a search will take, said before it starts: seconds, memory, disk and a first idea of the accuracy.

A minute of probing: the heads on frozen features that a search begins with are solved for, the default recipes and
strategies as the search would try them are trained for some seconds each, and the search is rehearsed from that. What
the probe computes (source models, decoded images, activations) is kept and shortens the search.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raytl.core.dimensions import Choice
from raytl.core.errors import UserError
from raytl.core.seeding import derive_seed
from raytl.evaluation.intervals import Interval
from raytl.evaluation.metrics import Metric
from raytl.search.jobs import JobKind, Survey
from raytl.search.lanes.sizing import Lanes
from raytl.search.outcome import best_so_far
from raytl.search.plan.probe_turns import VIEWS
from raytl.search.plan.schedule import SearchPlan
from raytl.search.plan.simulation import VirtualClock
from raytl.search.planning import UNLIMITED, SearchSettings, wished_trials
from raytl.search.planning import make_plan as planned
from raytl.search.propose.effort import Effort
from raytl.search.propose.recipes import Recipes
from raytl.search.propose.sampler import SpaceExhaustedError, TpeSampler
from raytl.search.records import TrialRecord, TrialStatus
from raytl.search.rehearsal import USUAL_LEVEL, Known, Silent, rehearse
from raytl.search.space.binding import BoundSpace
from raytl.sources import SourceModel
from raytl.tasks.images import Images
from raytl.training.pretrain import is_pretrained, parse_pretrain, train_source_model
from raytl.training.strategy import Strategy
from raytl.training.timing import time_training
from raytl.training.trial import TrialError, TrialJob
from raytl.training.workspace import Workspace

PROBE_S, PROBE_SHARE = 60.0, 0.5
"""What is probed for, and of a time budget at most: who asks what half a minute brings does not wait for two."""
PRETRAIN_STEPS = 30
"""Steps that pretraining is timed by, the first ones left out."""
MOST_STRATEGIES = 8
OFTEN = 5
"""Rehearsals."""
MOST_TRIALS = 60
"""Of a rehearsal: of more, the rest is reckoned from these."""
REPORT_BYTES = 8 * 2**20
"""Of a report, most of which draws its figures, and of a run's tables and journal."""
RUNS_OWN = 2
"""A run's model, and the one whose place it takes."""
RAY_BYTES = 700 * 2**20
"""Of Ray's own processes on one machine."""


@dataclass(frozen=True)
class Probed:
    """A strategy that was timed. seconds: what the full training takes; epochs: how much of it was done to tell."""

    name: str
    strategy: Strategy
    seconds: float
    epochs: float

    def record(self, number: int) -> TrialRecord:
        """As if it had been trained in full."""
        found = TrialRecord(number, JobKind.SEARCH, self.strategy.to_dict(), self.strategy.key)
        found.status, found.seconds = TrialStatus.COMPLETED, self.seconds
        return found


@dataclass(frozen=True)
class Quote:
    """What a search will take on this machine.

    trial_s: of a full training, over those that were timed: mean and range; None where nothing is to be trained.
    search_s: all in all, the middle one of some rehearsals and their range, with what the probe made at hand; kept_s:
    what went into that, and goes into it again where it is not. pretrain_s: of search_s, for source models that are not
    there yet. memory_bytes: of all processes. disk_bytes: at most. accuracy: the metric that the search will
    have (``metric``), of the best of the heads on frozen features that it begins with, as the search would state it;
    None where no label tells. trials, lanes, time_budget_s: what it was reckoned for; trials None for as many as the
    budget has time for. strategies: how many the search
    comes to try in that time, probes and baselines included. probe_s: what finding out took.
    """

    trial_s: Interval | None
    search_s: Interval
    strategies: Interval
    pretrain_s: float
    memory_bytes: int
    disk_bytes: int
    accuracy: Interval | None
    metric: str
    trials: int | None
    lanes: int
    time_budget_s: float | None
    probed: list[Probed]
    probe_s: float
    kept_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        document = asdict(self)
        document["probed"] = [
            {"name": p.name, "strategy": p.strategy.to_dict(), "seconds": p.seconds, "epochs": p.epochs}
            for p in self.probed
        ]
        return document


def quote(
    workspace: Workspace,
    bound: BoundSpace,
    settings: SearchSettings,
    lanes: Lanes,
    *,
    test_images: int,
    probe_s: float | None = None,
    spent_s: float = 0.0,
) -> Quote:
    """Probe for about ``probe_s`` seconds, and rehearse the search in virtual time (:mod:`raytl.search.rehearsal`).

    By default a minute, and with a time budget half of that at most. One strategy is timed however little that is.
    spent_s: what starting and reading the data took, which a search has to do as well.
    Raises UserError where the data does not fit the space, or none of the strategies that are timed can be trained.
    None is timed where the search will train none, as nothing would tell which is better.
    """
    started = time.perf_counter()
    if probe_s is None:
        probe_s = min(PROBE_S, PROBE_SHARE * (settings.time_budget_s or math.inf))
    pretraining = _pretraining_seconds(workspace, bound)
    stand_in = sum(pretraining.values()) > probe_s / 3  # too long for now: the untrained network takes the same time
    pretraining_began = time.perf_counter()
    if not stand_in:
        for uri in pretraining:
            workspace.source_model(uri)
    pretrained_s = time.perf_counter() - pretraining_began
    budget = workspace.settings.budget

    def make_plan(clock: VirtualClock, seed: int, trials: int | None = None) -> SearchPlan:
        wished = replace(settings, seed=seed, trials=trials or settings.trials)
        return planned(
            bound, wished, workspace, lanes, Path(), Silent(),
            test_images=test_images, started=0.0, spent_s=spent_s, clock=clock,
        )  # fmt: skip

    known = Known(Effort(bound, budget).passes, budget.epochs)
    known.pretrain_s = {uri: s for uri, s in pretraining.items() if not _is_there(workspace, uri)}
    first = make_plan(VirtualClock(), settings.seed)
    known.begin(first, workspace, started + probe_s / 2)
    torch.optim.SGD([torch.zeros(1, requires_grad=True)])  # the first optimizer of a process imports for seconds
    probed: list[Probed] = []
    trials = wished_trials(bound, settings)
    for name, strategy in _strategies(bound, workspace.settings.seed) if trials else ():
        left = started + probe_s - time.perf_counter()
        if len(probed) >= MOST_STRATEGIES or (probed and left <= 0):
            break
        result = _probe(workspace, name, _untrained(strategy) if stand_in else strategy, max(left, probe_s / 4) / 3)
        if result is not None:
            probed.append(result)
            known.records.append(result.record(len(known.records)))
    if trials and not probed:
        raise UserError("none of the strategies that were probed can be trained: see 'raytl check' on the data")
    accuracy = _accuracy(first, workspace.metric)
    known.level = USUAL_LEVEL if accuracy is None else workspace.metric.goodness(accuracy.value)
    seconds, tried, refits = _rehearsed(
        make_plan, known, workspace, lanes.count, trials, settings.seed,
        first.settings.time_budget_s or math.inf, spent_s,
    )  # fmt: skip
    took = np.array([result.seconds for result in probed])
    return Quote(
        trial_s=Interval(float(took.mean()), float(took.min()), float(took.max())) if probed else None,
        search_s=seconds,
        strategies=tried,
        pretrain_s=sum(known.pretrain_s.values()),
        memory_bytes=RAY_BYTES + (lanes.count + 1) * _peak_bytes(),
        disk_bytes=_disk_bytes(workspace, bound, refits, test_images),
        accuracy=accuracy,
        metric=workspace.settings.metric,
        trials=None if trials == UNLIMITED else trials,
        lanes=lanes.count,
        time_budget_s=settings.time_budget_s,
        probed=probed,
        probe_s=time.perf_counter() - started,
        kept_s=pretrained_s + known.kept_s,
    )


def _rehearsed(
    make_plan: Callable[..., SearchPlan],
    known: Known,
    workspace: Workspace,
    lanes: int,
    trials: int,
    seed: int,
    budget_s: float,
    before_s: float,
) -> tuple[Interval, Interval, int]:
    """Seconds of the search, and strategies that it tries: the middle one and the range of some rehearsals.

    And how many models it keeps on disk until its end, at most.

    budget_s: of the rehearsals. before_s: what a search takes before what is rehearsed.
    Of more trials than are worth rehearsing, each further one is reckoned to take what those of the second half took,
    as far as the time budget goes.
    """
    found = rehearse(
        partial(make_plan, trials=min(trials, MOST_TRIALS)), known, workspace,
        epochs=workspace.settings.budget.epochs, lanes=lanes, often=OFTEN, seed=seed,
    )  # fmt: skip
    told = np.array([_with_more(took, plan, trials, budget_s) for took, plan in found])
    most_refits = max(len(plan.refits.done) for _, plan in found)
    return _middle(told[:, 0] + before_s), _middle(told[:, 1]), most_refits


def _with_more(took_s: float, plan: SearchPlan, trials: int, budget_s: float) -> tuple[float, float]:
    """Seconds and strategies of a search that was rehearsed, with the trials that it would have tried besides."""
    # How many controls the winner has does not grow with the trials.
    tried = len({record.strategy_key for record in plan.records if record.kind != JobKind.CONTROL})
    sought = [record for record in plan.records if record.kind == JobKind.SEARCH]
    if len({record.strategy_key for record in sought}) < MOST_TRIALS or trials <= MOST_TRIALS:
        return took_s, tried
    ended = sorted(record.ended or 0.0 for record in sought)
    half = ended[len(ended) // 2 :]
    # Those of many lanes may end all together.
    least_s = float(np.median([record.seconds for record in sought])) / max(1, plan.settings.lanes)
    trial_s = max((half[-1] - half[0]) / (len(half) - 1), least_s)
    more = min(trials - MOST_TRIALS, max(0.0, budget_s - took_s) / max(trial_s, 1e-9))
    return took_s + more * trial_s, tried + more


def _middle(values: np.ndarray) -> Interval:
    return Interval(float(np.median(values)), float(values.min()), float(values.max()))


def _strategies(bound: BoundSpace, seed: int) -> Iterator[tuple[str, Strategy]]:
    """The default recipes, then what the search would begin with."""
    yield from _recipes(bound).items()
    sampler = TpeSampler(bound, seed)
    with suppress(SpaceExhaustedError):
        for _ in range(MOST_STRATEGIES):
            yield "search", sampler.ask()[1]


def _recipes(bound: BoundSpace) -> dict[str, Strategy]:
    """The baselines as they would be if the options stood in the order of their promise."""
    return Recipes(bound).baselines(bound.source_models, Survey(domains=tuple(bound.data.joinable)))


def _untrained(strategy: Strategy) -> Strategy:
    pretraining = parse_pretrain(strategy.source_model)
    return strategy if pretraining is None else replace(strategy, source_model=pretraining[1])


def _probe(workspace: Workspace, name: str, strategy: Strategy, at_most_s: float) -> Probed | None:
    """Train for so long; None where it cannot be trained."""
    workspace.source_model(strategy.source_model)  # pretraining is reckoned separately
    try:
        timed = time_training(workspace, TrialJob(strategy, 0 if workspace.folds else None), at_most_s)
    except TrialError:
        return None
    return Probed(name, strategy, timed.seconds, timed.epochs)


def _is_there(workspace: Workspace, uri: str) -> bool:
    parsed = parse_pretrain(uri)
    return parsed is None or is_pretrained(workspace, *parsed)


def _pretraining_seconds(workspace: Workspace, bound: BoundSpace) -> dict[str, float]:
    """By source model that learns a source domain first and is not there yet; each architecture is timed once."""
    per_step: dict[str, float] = {}
    found: dict[str, float] = {}
    for uri in bound.source_models:
        parsed = parse_pretrain(uri)
        if parsed is None or _is_there(workspace, uri):
            continue
        domain, architecture = parsed
        if architecture not in per_step:
            per_step[architecture] = _step_seconds(workspace, domain, architecture)
        whole_s = per_step[architecture] * workspace.settings.pretrain.steps
        found[uri] = min(whole_s, workspace.settings.pretrain_s or math.inf)
    return found


def _step_seconds(workspace: Workspace, domain: str, architecture: str) -> float:
    reported: list[tuple[int, float]] = []
    train_source_model(
        workspace,
        workspace.source_model(architecture)[0],
        workspace.data.source_domains[domain],
        workspace.source_split(domain)[0],
        np.empty(0, dtype=np.int64),
        replace(workspace.settings.pretrain, steps=PRETRAIN_STEPS),
        derive_seed(workspace.settings.seed, "quote"),
        lambda step, loss: reported.append((step, time.perf_counter())),
    )
    (first, begun), (last, ended) = reported[0], reported[-1]
    return (ended - begun) / (last - first)


def _accuracy(plan: SearchPlan, metric: Metric) -> Interval | None:
    """What the best of the heads on frozen features is worth, as the search would say of it."""
    choice = plan.choice()
    return None if choice is None else best_so_far(plan, metric, choice.key).validation


def _peak_bytes() -> int:
    """The most memory that this process ever had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _disk_bytes(workspace: Workspace, bound: BoundSpace, refits: int, test_images: int) -> int:
    """Source models, models on all labels, decoded images, activations at every cut that the space allows, the report.

    Images and activations within the cache's budget, in as many versions as trials want. refits: models on all labels
    that are kept until the search ends; any may be of the largest network.
    """
    data = workspace.data
    domains = [data.source_domains[name] for name in data.joinable]
    pools: list[Images | None] = [data.target, data.unlabelled, *domains]
    images = test_images + sum(len(pool) for pool in pools if pool is not None)
    weights: list[int] = []
    arrays = largest = 0
    sizes = set()
    for uri in bound.source_models:
        model, _ = workspace.source_model(_architecture(uri))
        channels, size = model.preprocessing.channels, model.preprocessing.size
        weights.append(4 * sum(parameter.numel() for parameter in model.parameters()))
        arrays += images * sum(_activation_bytes(model, bound.cuts(uri)))
        sizes |= {(channels, size, False), (channels, size, bound.squashed(uri) is not None)}
        more = [times for _, times in (*bound.larger(uri), *bound.closer(uri))]
        largest = max([largest, *(round(channels * size**2 * times) for times in more)])
    arrays += images * (largest + sum(channels * side**2 for channels, side, _ in sizes))
    models = sum(weights) + (refits + RUNS_OWN) * max(weights)
    return REPORT_BYTES + models + min(_versions(bound) * arrays, workspace.cache.budget_bytes)


def _versions(bound: BoundSpace) -> int:
    """Of each image: as it is, moved to see whether answers are steady, and as each policy augments it beforehand."""
    views, policies = (bound.space.plain.get(key) for key in ("cached_views", "augmentation"))
    most = max(views.options) if isinstance(views, Choice) else getattr(views, "high", 0)
    heads = VIEWS * len(bound.head_augmentations)
    return 2 + heads + int(most) * len(set(policies.options if isinstance(policies, Choice) else ()) - {"none"})


def _architecture(uri: str) -> str:
    pretraining = parse_pretrain(uri)
    return uri if pretraining is None else pretraining[1]


@torch.inference_mode()
def _activation_bytes(model: SourceModel, cuts: list[int]) -> Iterator[int]:
    """Of one image behind each of the cuts above 0, 32-bit numbers; behind the last, what heads read of all stages."""
    size, last = model.preprocessing, len(model.stage_names)
    x = torch.zeros(1, size.channels, size.size, size.size)
    model.cpu().eval()
    for cut, stage in enumerate(model.stage_list(), start=1):
        x = stage(x)
        if cut in cuts:
            yield 4 * (sum(model.stage_parts()[0]) if cut == last else x.numel())
