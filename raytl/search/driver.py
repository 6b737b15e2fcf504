"""Runs a plan on Ray Tune and concludes from it."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import ray
from ray import tune
from ray.tune import RunConfig, TuneConfig, Tuner

from raytl.evaluation import metrics
from raytl.search.lanes.cluster import Lanes, cluster
from raytl.search.lanes.lane import lane_for
from raytl.search.lanes.pool import forward
from raytl.search.lanes.tuning import LaneWatch, PlanScheduler, PlanSearcher, lane_resources, trial_directory
from raytl.search.outcome import conclude
from raytl.search.plan.contest import Labels
from raytl.search.plan.halving import SuccessiveHalving
from raytl.search.plan.schedule import CONFIRM_STRATEGIES, PlanSettings, SearchPlan
from raytl.search.propose.cost import CostAwareSampler
from raytl.search.propose.recipes import Recipes
from raytl.search.propose.sampler import TpeSampler
from raytl.search.records import SearchListener, SearchOutcome, TrialRecord
from raytl.search.space.binding import BoundSpace
from raytl.search.space.definition import SearchSpace
from raytl.tasks import SealedTest, TrainingData, splits
from raytl.training.pretrain import is_pretrained, parse_pretrain
from raytl.training.strategy import Strategy
from raytl.training.workspace import Budget, Workspace, WorkspaceSettings

SMALLEST_BATCH = 8
"""Where there is less data than a batch holds, a batch is all the data, but not less than batch norm can use."""

PRETRAIN_SHARE = 0.1
"""Of a time budget, what pretraining one source model may take."""
BACKWARD = 3
"""Forward passes that a training step on an image takes the time of."""


@dataclass(frozen=True)
class SearchSettings:
    """What the user decides besides the data and the space.

    trials: None for the space's own number. time_budget_s: for the whole search. lanes: trials at a time, None for as
    many as fit. gpus_per_trial: of each worker, may be a fraction. workers_per_trial: processes that train one trial
    together. patience: trials without a better one after which to stop. min_gain: stop when another trial is expected
    to raise the best score by less. cost_aware: prefer strategies that promise more per second. metric: what is meant
    by good (:mod:`raytl.evaluation.metrics`); None for accuracy, or balanced accuracy where classes are skewed.
    address: of a Ray cluster, None for this machine.
    """

    trials: int | None = None
    time_budget_s: float | None = None
    lanes: int | None = None
    gpus_per_trial: float = 0.0
    workers_per_trial: int = 1
    seed: int = 0
    patience: int | None = None
    address: str | None = None
    verbose: bool = False
    min_gain: float | None = None
    cost_aware: bool = False
    metric: str | None = None


def search(
    bound: BoundSpace,
    test: SealedTest | None,
    settings: SearchSettings,
    directory: Path,
    listener: SearchListener,
    *,
    first: Sequence[Strategy] = (),
    earlier: Sequence[TrialRecord] = (),
) -> tuple[SearchOutcome, Path | None]:
    """Search, choose, refit, open the test split once. Returns the outcome and the directory of the winner's model.

    directory: of the run, on the driver's disk; refitted models and Tune's own files go below it.
    first: strategies to try before the space's own. earlier: trials of this search from before it was interrupted.
    An interrupt (Ctrl-C) ends the search early; what is known by then is concluded from, without a refit and with the
    test split sealed, so that the search can be resumed.
    Raises UserError where no trial succeeded, KeyboardInterrupt where it was interrupted before one had.
    """
    started = time.monotonic()
    data = bound.data
    resources = (settings.lanes, settings.gpus_per_trial, settings.workers_per_trial)
    with cluster(*resources, verbose=settings.verbose, address=settings.address) as lanes:
        if len(ray.nodes()) > 1:
            data = data.portable()
        workspace_settings = make_workspace_settings(data, bound.space, settings, lanes)
        if settings.time_budget_s is not None:
            workspace_settings = replace(workspace_settings, pretrain_s=PRETRAIN_SHARE * settings.time_budget_s)
        workspace = Workspace(data, workspace_settings)
        plan = make_plan(
            bound, settings, workspace, lanes, directory, listener, first, has_test=test is not None, started=started
        )
        plan.restore(earlier)
        if settings.metric is None and workspace_settings.metric != "accuracy":
            title = metrics.get(workspace_settings.metric).title
            listener.on_phase("metric", f"{title}: one class has over {metrics.SKEWED} times the images of another")
        with lane_trainable(data, workspace_settings, lanes, directory) as trainable:
            interrupted = not run_plan(plan, trainable, lanes, directory, verbose=settings.verbose)
    if interrupted and plan.winner() is None:
        raise KeyboardInterrupt
    if not interrupted:
        listener.on_phase("test", "")
    seconds = time.monotonic() - started
    outcome = conclude(plan, data, None if interrupted else test, workspace, seconds, interrupted=interrupted)
    refit = plan.refits.done.get(outcome.best.strategy_key)
    return outcome, Path(refit) if refit else None


def make_workspace_settings(
    data: TrainingData, space: SearchSpace, settings: SearchSettings, lanes: Lanes
) -> WorkspaceSettings:
    """What every lane is told. Raises UserError for an unknown metric."""
    folds = splits.plan_folds(data.target.labels, data.target.groups) if data.target is not None else (0, 0)
    given = space.settings
    largest = max((len(images) for images in (data.target, data.unlabelled) if images is not None), default=1)
    batch = min(given.batch_size, max(largest, SMALLEST_BATCH))
    rungs = SuccessiveHalving(given.grace_epochs, given.reduction_factor, given.epochs).rungs
    return WorkspaceSettings(
        seed=settings.seed,
        budget=Budget(given.epochs, given.steps_per_epoch, batch, tuple(rungs)),
        pretrain=space.pretrain,
        image_size=given.image_size or None,
        folds=folds,
        device="auto" if lanes.gpus else "cpu",
        gpu_share=min(1.0, lanes.gpus) if lanes.gpus else 1.0,
        threads=max(1, int(lanes.cpus)),
        metric=metrics.get(settings.metric).name if settings.metric else usual_metric(data),
    )


def usual_metric(data: TrainingData) -> str:
    """The metric where the user names none."""
    return "accuracy" if data.target is None else metrics.usual_metric(list(data.target.counts().values()))


def make_plan_settings(
    bound: BoundSpace,
    settings: SearchSettings,
    workspace: Workspace,
    lanes: Lanes,
    directory: Path,
    *,
    has_test: bool,
) -> PlanSettings:
    """How much a plan is to search."""
    trials = settings.trials or bound.space.settings.trials
    data, budget = bound.data, workspace.settings.budget
    # Confirming must not take more trials than searching did, nor holding the winner against its controls.
    folds = min(len(workspace.folds), 1 + math.ceil(trials / CONFIRM_STRATEGIES))
    largest = max((len(images) for images in (data.target, data.unlabelled) if images is not None), default=0)
    return PlanSettings(
        trials=trials,
        folds=folds,
        lanes=lanes.count,
        epochs=budget.epochs,
        directory=directory / "refits",
        time_budget_s=settings.time_budget_s,
        tested=has_test,
        patience=settings.patience,
        min_gain=settings.min_gain,
        surveys=bool(data.joinable) or data.unlabelled is not None,
        control_folds=folds,
        trial_images=BACKWARD * budget.epochs * budget.steps_for(largest) * budget.batch_size,
        pretrain_s=workspace.settings.pretrain_s or 0.0,
    )


def make_plan(
    bound: BoundSpace,
    settings: SearchSettings,
    workspace: Workspace,
    lanes: Lanes,
    directory: Path,
    listener: SearchListener,
    first: Sequence[Strategy] = (),
    *,
    has_test: bool,
    started: float,
) -> SearchPlan:
    """The plan of a search over a bound space."""
    given = bound.space.settings
    parsed = [(uri, parse_pretrain(uri)) for uri in bound.source_models]
    pretraining = [uri for uri, parts in parsed if parts is not None and not is_pretrained(workspace, *parts)]
    plan_settings = make_plan_settings(bound, settings, workspace, lanes, directory, has_test=has_test)
    halving = SuccessiveHalving(given.grace_epochs, given.reduction_factor, given.epochs)
    sampler = (CostAwareSampler if settings.cost_aware else TpeSampler)(bound, settings.seed, first)
    return SearchPlan(
        plan_settings, sampler, halving, Recipes(bound), pretraining, listener, time.monotonic, started,
        _labels(bound.data, workspace),
    )  # fmt: skip


def _labels(data: TrainingData, workspace: Workspace) -> Labels | None:
    """What strategies are judged by; nothing where no fold of the target can be validated on."""
    if data.target is None or not workspace.folds:
        return None
    metric = metrics.get(workspace.settings.metric)
    return Labels(data.target.labels, data.target.groups, len(data.classes), metric)


@contextmanager
def lane_trainable(
    data: TrainingData, settings: WorkspaceSettings, lanes: Lanes, directory: Path
) -> Iterator[Callable[..., None]]:
    """What does the jobs: a lane in the trial's own process, or a worker group that is kept up in the meantime."""
    if lanes.workers == 1:
        yield lane_for(data, settings)
        return
    from raytl.search.lanes.worker_group import worker_groups  # seconds of import that the usual search does not need

    with worker_groups(lanes, data, settings, directory / "tune") as pool:
        yield tune.with_parameters(forward, pool=pool)


def run_plan(
    plan: SearchPlan, trainable: Callable[..., None], lanes: Lanes, directory: Path, *, verbose: bool = False
) -> bool:
    """Run a plan's jobs on Tune; whether it came to its end without an interrupt.

    trainable: does ``config["job"]`` and reports as :func:`raytl.search.lanes.lane.lane` does.
    directory: for Tune's files.
    """
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # every result is in the run's own journal already
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(lanes.count)  # all lanes start at once
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"  # what the user named by a relative path (file:model/) must be found
    logging.getLogger("ray.tune").setLevel(logging.INFO if verbose else logging.CRITICAL)
    searcher = PlanSearcher(plan, lanes.room)
    tuner = Tuner(
        tune.with_resources(trainable, lane_resources(lanes)),
        tune_config=TuneConfig(
            search_alg=searcher,
            scheduler=PlanScheduler(searcher),
            num_samples=-1,
            reuse_actors=True,
            trial_dirname_creator=trial_directory,
        ),
        run_config=RunConfig(
            name="tune",
            storage_path=str(directory.resolve()),
            callbacks=[LaneWatch(searcher)],
            verbose=1 if verbose else 0,
        ),
    )
    tuner.fit()
    finished = plan.finished()
    if not finished:
        plan.interrupt()
    return finished
