"""What a search will take, said before it starts: seconds, memory, disk and a first idea of the accuracy.

A minute of probing: the default recipes and strategies as the search would try them are trained for some epochs each,
and the whole search is reckoned from that. What the probe computes (source models, decoded images, activations) is kept
and shortens the search.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from raytl.core.errors import UserError
from raytl.core.seeding import derive_seed
from raytl.evaluation.intervals import Interval, bootstrap_interval
from raytl.search.jobs import Survey
from raytl.search.lanes.sizing import Lanes
from raytl.search.plan.halving import SuccessiveHalving
from raytl.search.plan.settings import PlanSettings
from raytl.search.plan.time_budget import CONFIRMED, CONTROLS
from raytl.search.propose.recipes import Recipes
from raytl.search.propose.sampler import SpaceExhaustedError, TpeSampler
from raytl.search.space.binding import BoundSpace
from raytl.sources import SourceModel
from raytl.tasks.images import Images
from raytl.training.loop import run_trial
from raytl.training.pretrain import is_pretrained, parse_pretrain, train_source_model
from raytl.training.strategy import Strategy
from raytl.training.trial import TrialError, TrialJob
from raytl.training.workspace import Workspace

PROBE_S = 60.0
PRETRAIN_STEPS = 30
"""Steps that pretraining is timed by, the first ones left out."""
MOST_STRATEGIES = 8
START_S = 10.0
"""Until Ray and its lanes are up."""
RAY_BYTES = 700 * 2**20
"""Of Ray's own processes on one machine."""


@dataclass(frozen=True)
class Probed:
    """A strategy that was tried. seconds: what the full training takes; epochs: how many of them were run."""

    name: str
    strategy: Strategy
    seconds: float
    setup_s: float
    epochs: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Quote:
    """What a search will take on this machine.

    trial_s: of a full training, over the probed strategies: mean and range. search_s: all in all, from a lucky to an
    unlucky mix of strategies. pretrain_s: of it, for source models that are not there yet. memory_bytes: of all
    processes. disk_bytes: at most. accuracy: on validation images, of the best probe; None without target labels, or
    where source models are still to be pretrained. trials, lanes: what it was reckoned for.
    """

    trial_s: Interval
    search_s: Interval
    pretrain_s: float
    memory_bytes: int
    disk_bytes: int
    accuracy: Interval | None
    trials: int
    lanes: int
    probed: list[Probed]
    probe_s: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        document = asdict(self)
        document["probed"] = [
            {"name": p.name, "strategy": p.strategy.to_dict(), "seconds": p.seconds, "epochs": p.epochs}
            for p in self.probed
        ]
        return document


def quote(workspace: Workspace, bound: BoundSpace, plan: PlanSettings, lanes: Lanes, probe_s: float = PROBE_S) -> Quote:
    """Probe for about ``probe_s`` seconds and reckon.

    Raises UserError where the data does not fit the space, or none of the probed strategies can be trained.
    """
    started = time.perf_counter()
    pretraining = _pretraining_seconds(workspace, bound)
    stand_in = sum(pretraining.values()) > probe_s / 3  # too long for now: the untrained network takes the same time
    torch.optim.SGD([torch.zeros(1, requires_grad=True)])  # the first optimizer of a process imports for seconds
    probed: list[Probed] = []
    for name, strategy in _strategies(bound, workspace.settings.seed):
        left = started + probe_s - time.perf_counter()
        if len(probed) >= MOST_STRATEGIES or (probed and left <= 0):
            break
        result = _probe(workspace, name, _untrained(strategy) if stand_in else strategy, max(left, probe_s / 4) / 3)
        if result is not None:
            probed.append(result)
    if not probed:
        raise UserError("none of the strategies that were probed can be trained: see 'raytl check' on the data")
    pretrain_s = sum(s for uri, s in pretraining.items() if not _is_there(workspace, uri))
    seconds = np.array([result.seconds for result in probed])
    mean = float(seconds.mean())
    unsure = 2 * float(seconds.std(ddof=1)) / len(seconds) ** 0.5 if len(seconds) > 1 else mean / 2
    share = float(np.mean([result.setup_s / result.seconds for result in probed]))
    totals = [
        START_S + (pretrain_s + _work_seconds(bound, plan, trial_s, share)) / lanes.count
        for trial_s in (mean, max(float(seconds.min()), mean - unsure), mean + unsure)
    ]
    return Quote(
        trial_s=Interval(mean, float(seconds.min()), float(seconds.max())),
        search_s=Interval(*totals),
        pretrain_s=pretrain_s,
        memory_bytes=RAY_BYTES + (lanes.count + 1) * _peak_bytes(),
        disk_bytes=_disk_bytes(workspace, bound),
        accuracy=None if stand_in else _accuracy(workspace, probed),
        trials=plan.trials,
        lanes=lanes.count,
        probed=probed,
        probe_s=time.perf_counter() - started,
    )


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


class _EnoughError(Exception):
    """Ends a probe."""


def _probe(workspace: Workspace, name: str, strategy: Strategy, at_most_s: float) -> Probed | None:
    """Train for at least an epoch, and on until the time is over; None for a strategy that cannot be trained."""
    workspace.source_model(strategy.source_model)  # pretraining is reckoned separately
    times: list[float] = []
    last: dict[str, Any] = {}

    def report(metrics: dict[str, Any]) -> None:
        nonlocal last
        times.append(time.perf_counter() - started)
        last = metrics
        if times[-1] > at_most_s:
            raise _EnoughError

    started = time.perf_counter()
    try:
        run_trial(workspace, TrialJob(strategy, 0 if workspace.folds else None), report)
    except TrialError:
        return None
    except _EnoughError:
        pass
    epochs = len(times)
    epoch_s = (times[-1] - times[0]) / (epochs - 1) if epochs > 1 else times[0]
    setup = max(0.0, times[0] - epoch_s)
    total = times[-1] if last["last"] else setup + workspace.settings.budget.epochs * epoch_s
    return Probed(name, strategy, total, min(setup, total), epochs, {key: float(v) for key, v in last.items()})


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
        found[uri] = per_step[architecture] * workspace.settings.pretrain.steps
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


def _work_seconds(bound: BoundSpace, plan: PlanSettings, trial_s: float, setup_share: float) -> float:
    """Of all lanes together. Strategies that are stopped early take their share of the epochs."""
    given = bound.space.settings
    rungs = [0, *SuccessiveHalving(given.grace_epochs, given.reduction_factor, given.epochs).rungs, given.epochs]
    epochs: float = sum(
        (end - begin) / given.reduction_factor**rung for rung, (begin, end) in enumerate(pairwise(rungs))
    )
    stopped: float = setup_share + (1 - setup_share) * epochs / given.epochs
    full = len(_recipes(bound)) * (2 if plan.tested else 1) + 1  # the winner is refitted
    full += max(0, plan.folds - 1) * CONFIRMED
    full += CONTROLS * (1 if plan.tested else plan.control_folds)
    return trial_s * (plan.trials * stopped + full)


def _accuracy(workspace: Workspace, probed: list[Probed]) -> Interval | None:
    """Of the best probe on its validation images."""
    shares = [result.metrics["target-accuracy"] for result in probed if "target-accuracy" in result.metrics]
    if not shares or not workspace.folds:
        return None
    count = len(workspace.folds[0][1])
    return bootstrap_interval((np.arange(count) < round(max(shares) * count)).astype(np.float64))


def _peak_bytes() -> int:
    """The most memory that this process ever had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _disk_bytes(workspace: Workspace, bound: BoundSpace) -> int:
    """Source models, decoded images, and activations at every cut that the space allows, within the cache's budget."""
    data = workspace.data
    domains = [data.source_domains[name] for name in data.joinable]
    pools: list[Images | None] = [data.target, data.unlabelled, *domains]
    images = sum(len(pool) for pool in pools if pool is not None)
    weights = arrays = 0
    sizes = set()
    for uri in bound.source_models:
        model, _ = workspace.source_model(_architecture(uri))
        weights += 4 * sum(parameter.numel() for parameter in model.parameters())
        arrays += images * sum(_activation_bytes(model, bound.cuts(uri)))
        sizes.add((model.preprocessing.channels, model.preprocessing.size))
    arrays += images * sum(channels * side**2 for channels, side in sizes)
    return weights + min(arrays, workspace.cache.budget_bytes)


def _architecture(uri: str) -> str:
    pretraining = parse_pretrain(uri)
    return uri if pretraining is None else pretraining[1]


@torch.inference_mode()
def _activation_bytes(model: SourceModel, cuts: list[int]) -> Iterator[int]:
    """Of one image behind each of the cuts above 0, as 32-bit numbers."""
    size = model.preprocessing
    x = torch.zeros(1, size.channels, size.size, size.size)
    model.cpu().eval()
    for cut, stage in enumerate(model.stage_list(), start=1):
        x = stage(x)
        if cut in cuts:
            yield 4 * x.numel()
