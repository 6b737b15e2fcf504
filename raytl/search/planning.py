"""From a task, a space and a user's wishes to a plan and what every lane is told. No Ray in here."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from raytl.core.errors import UserError
from raytl.evaluation import metrics
from raytl.evaluation.head_probes import ON_CPU
from raytl.judging.operating import parse_goal
from raytl.search.lanes.sizing import Lanes
from raytl.search.on_unlabelled import is_worth_time
from raytl.search.plan.halving import SuccessiveHalving
from raytl.search.plan.said import Labels
from raytl.search.plan.schedule import SearchPlan
from raytl.search.plan.settings import PlanSettings
from raytl.search.plan.time_budget import CONFIRMED
from raytl.search.propose.cost import CostAwareSampler
from raytl.search.propose.effort import Effort
from raytl.search.propose.recipes import Recipes
from raytl.search.propose.sampler import TpeSampler
from raytl.search.records import SearchListener
from raytl.search.space.binding import BoundSpace
from raytl.search.space.definition import SearchSpace
from raytl.search.space.usual import usual_metric
from raytl.tasks import TrainingData, splits
from raytl.training.pretrain import is_pretrained, parse_pretrain
from raytl.training.strategy import Strategy
from raytl.training.workspace import Budget, Workspace, WorkspaceSettings

PRETRAIN_SHARE = 0.1
"""Of a time budget, what pretraining one source model may take."""
END_SHARE, END_S = 0.1, 3.0
"""Of a time budget, what is kept for after the search: bundle, report and the end of Ray's processes take three seconds
on two cores."""
UNLIMITED = 10**6
"""Strategies to try where only time is to end a search."""
LEAST_S = 1.0
"""What a search has however long it took to read the data: time for a first model is taken in any case."""


@dataclass(frozen=True)
class SearchSettings:
    """What the user decides besides the data and the space.

    trials: None for the space's own number, or for what there is time for with a budget. time_budget_s: for the whole
    search. lanes: trials at a time, None for as many as fit. gpus_per_trial: of each worker, may be a fraction.
    workers_per_trial: processes that train one trial together. patience: trials without a better one after which to
    stop. min_gain: stop when another trial is expected to raise the best score by less. cost_aware: prefer strategies
    that promise more per second. metric: what is meant by good (:mod:`raytl.evaluation.metrics`); None for accuracy, or
    balanced accuracy where classes are skewed (:func:`raytl.search.space.usual.usual_metric`).
    at: the operating point asked for, such as ``recall=0.95``. ship: the model that was ``tested``, or one trained on
    ``all`` labels, the test's included, after that was opened. address: of a Ray cluster, None for this machine.
    pretrain_s: seconds that pretraining a source model may take, None for a tenth of the time budget; a search that
    goes on has those that it began with, for its source models are to stay what they are.
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
    at: str | None = None
    ship: str = "tested"
    pretrain_s: float | None = None

    @property
    def pretraining_s(self) -> float | None:
        """Seconds that pretraining a source model may take; None for any."""
        if self.pretrain_s is None and self.time_budget_s is not None:
            return PRETRAIN_SHARE * self.time_budget_s
        return self.pretrain_s


def check_goal(data: TrainingData, settings: SearchSettings) -> None:
    """Raise UserError where the operating point that is asked for is none, or the task has none."""
    if settings.at is None:
        return
    parse_goal(settings.at).check(data.classes)
    if data.target is None:
        raise UserError(
            "--at needs labelled images of the target, on which its threshold is found, and this task has none: give "
            "some with --target, or leave --at out"
        )


def make_workspace_settings(
    data: TrainingData, space: SearchSpace, settings: SearchSettings, lanes: Lanes
) -> WorkspaceSettings:
    """What every lane is told. Raises UserError for an unknown metric."""
    folds = splits.plan_folds(data.target.labels, data.target.groups) if data.target is not None else (0, 0)
    given = space.settings
    rungs = SuccessiveHalving(given.grace_epochs, given.reduction_factor, given.epochs).rungs
    return WorkspaceSettings(
        seed=settings.seed,
        budget=Budget(given.epochs, given.steps_per_epoch, given.batch_size, tuple(rungs)),
        pretrain=space.pretrain,
        image_size=given.image_size or None,
        folds=folds,
        pretrain_s=settings.pretraining_s,
        device="auto" if lanes.gpus else "cpu",
        gpu_share=min(1.0, lanes.gpus) if lanes.gpus else 1.0,
        threads=lanes.threads if lanes.gpus else max(1, int(lanes.cpus)),
        metric=chosen_metric(data, settings),
    )


def chosen_metric(data: TrainingData, settings: SearchSettings) -> str:
    """Name of the metric that a search goes by. Raises UserError for one that there is not."""
    return metrics.get(settings.metric).name if settings.metric else usual_metric(data)


def most_trials(usual: int, trials: int | None, time_budget_s: float | None) -> int:
    """How many strategies are to be trained: as asked for, else what a budget has time for, or the usual number.

    usual: of the space. Who says ten minutes means them: the space's number is for who says nothing.
    """
    return trials or (usual if time_budget_s is None else UNLIMITED)


def wished_trials(bound: BoundSpace, settings: SearchSettings) -> int:
    """The same; none where nothing would tell what does better from what does harm."""
    most = most_trials(bound.space.settings.trials, settings.trials, settings.time_budget_s)
    return most if bound.can_train else 0


def nothing_trained(data: TrainingData, settings: SearchSettings) -> str:
    """Why a search makes heads on frozen features and no more."""
    why = "no image would tell what is better"
    if data.can_score:
        why = (
            "images without labels do not tell whether a trained network is better than a head on frozen features; "
            "a second labelled image of each class would"
        )
    return f"nothing is trained{', whatever --trials says' if settings.trials else ''}: {why}"


def make_plan_settings(
    bound: BoundSpace,
    settings: SearchSettings,
    workspace: Workspace,
    lanes: Lanes,
    directory: Path,
    *,
    test_images: int,
    spent_s: float = 0.0,
) -> PlanSettings:
    """How much a plan is to search. spent_s: of the time budget, what starting and reading the data took."""
    budget_s, apart_s = settings.time_budget_s, 0.0
    if budget_s is not None:
        apart_s = spent_s + min(END_S, END_SHARE * budget_s)
        budget_s = max(LEAST_S, budget_s - apart_s)
    trials = wished_trials(bound, settings)
    data, budget = bound.data, workspace.settings.budget
    ships_all = bool(test_images) and settings.ship == "all"
    # Confirming must not take more trials than searching did, nor holding the winner against its controls.
    folds = min(len(workspace.folds), 1 + math.ceil(trials / CONFIRMED))
    return PlanSettings(
        trials=trials,
        folds=folds,
        lanes=lanes.count,
        epochs=budget.epochs,
        directory=directory / "refits",
        time_budget_s=budget_s,
        apart_s=apart_s,
        tested=test_images > 0,
        test_images=test_images,
        refits=2 if ships_all else 1,
        shipped_images=test_images + len(data.target or ()) if ships_all else 0,
        patience=settings.patience,
        min_gain=settings.min_gain,
        surveys=bool(data.joinable) or data.unlabelled is not None,
        # Once over all images: repeats are of the same ones, and each of a trained winner's controls is a training.
        folds_once=min(folds, workspace.folds_once),
        passes=Effort(bound, budget).passes,
        pretrain_s=workspace.settings.pretrain_s or 0.0,
        squashed=bound.squashed,
        larger=bound.larger,
        closer=bound.closer,
        head_augmentations=bound.head_augmentations,
        trains=bound.can_train,
        few=data.target is None or len(data.target) <= ON_CPU,
        judged=is_worth_time(workspace),
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
    test_images: int,
    started: float,
    spent_s: float = 0.0,
    on_first_model: Callable[[str], str] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> SearchPlan:
    """The plan of a search over a bound space, timed from ``started`` of the clock, the monotonic one unless given.

    spent_s: of the time budget, what was gone by then.
    """
    given = bound.space.settings
    parsed = [(uri, parse_pretrain(uri)) for uri in bound.source_models]
    pretraining = [uri for uri, parts in parsed if parts is not None and not is_pretrained(workspace, *parts)]
    plan_settings = make_plan_settings(
        bound, settings, workspace, lanes, directory, test_images=test_images, spent_s=spent_s
    )
    halving = SuccessiveHalving(given.grace_epochs, given.reduction_factor, given.epochs)
    sampler = (CostAwareSampler if settings.cost_aware else TpeSampler)(bound, settings.seed, first)
    meant = metrics.get(workspace.settings.metric)
    recipes = Recipes(bound, by_label=meant.by_label, by_class=meant.by_class)
    return SearchPlan(
        plan_settings, sampler, halving, recipes, pretraining, listener, clock, started,
        _labels(bound.data, workspace), on_first_model,
    )  # fmt: skip


def _labels(data: TrainingData, workspace: Workspace) -> Labels | None:
    """What strategies are judged by; nothing where no fold of the target can be validated on."""
    if data.target is None or not workspace.folds:
        return None
    return Labels(data.target.labels, data.target.groups, len(data.classes), workspace.metric)
