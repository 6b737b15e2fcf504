"""By what the chosen model is judged later, and extended with: its yardstick, and its features of labelled images."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from raytl.judging.health import FEW, LEAST_IMAGES, Yardstick
from raytl.judging.kept_features import KeptFeatures
from raytl.search.on_unlabelled import NOT_HAD, add_on_unlabelled, as_there_is_time, images_to_ask
from raytl.search.plan.schedule import SearchPlan
from raytl.search.plan.time_budget import LEAST_ROOM_S, SOLVED_AT_LEAST, unlimited_yardstick_seconds
from raytl.search.records import SearchOutcome
from raytl.sources.checkpoint import load_checkpoint
from raytl.tasks import LabelledImages
from raytl.training.kept_features import gather_features, images_to_pass, lacking
from raytl.training.material import ELSEWHERE
from raytl.training.strategy import Strategy
from raytl.training.workspace import Workspace
from raytl.training.yardstick import NoYardstickError, gather_yardstick, images_left_out, labelled_target

_ANEW = "once more without a part of the labelled images"
"""What tells how often a model is right: on these."""
ASKING_SHARE = 1 / 3
"""Of the time for judging, what is left for asking about unlabelled images; of a large network these are fewer then."""


def add_means_of_judging(
    plan: SearchPlan, workspace: Workspace, outcome: SearchOutcome, refit: Path, seconds: float
) -> None:
    """Add what the model is judged by, and extended with, as far as there is time and it can be had.

    refit: the winner's checkpoint. seconds: that the search took.
    """
    source_model = outcome.best.strategy["source_model"]
    room, spare_s = room_for_judging(plan), plan.spare_seconds()
    features_s = _features_seconds(plan, workspace, outcome) if room else 0.0
    keeps = features_s < room / 2
    room -= features_s if keeps else 0.0
    try:
        # Nobody sees what a yardstick says before it is asked: of unlabelled images now, as far as there are such.
        asking_s = min(plan.image_seconds(images_to_ask(workspace), source_model), ASKING_SHARE * room)
        outcome.yardstick = _yardstick(plan, workspace, outcome, seconds, room, asking_s)
    except NoYardstickError as error:
        outcome.no_yardstick = str(error)
    left_s = room - (spare_s - plan.spare_seconds() if math.isfinite(room) else 0.0)
    out_of_fold = plan.contest.said.out_of_fold(outcome.best.strategy_key)
    in_time = partial(as_there_is_time, plan, source_model, left_s)
    add_on_unlabelled(workspace, outcome, refit, out_of_fold, in_time)
    if keeps:
        outcome.features = kept_features(workspace, outcome.best.strategy, refit)


def _yardstick(
    plan: SearchPlan, workspace: Workspace, outcome: SearchOutcome, seconds: float, room: float, asking_s: float
) -> Yardstick:
    """What the endpoint will be judged by. seconds: that the search took; room: that there are for it.

    asking_s: of these, what is better left for asking it at once.

    Heads on frozen features are solved for anew, if that takes a moment. What was trained is trained once more without
    a fold, if that took a small part of the search, and if this process has what the lanes had.
    Raises NoYardstickError where it would take longer than it is worth, or cannot be had.
    """
    best = outcome.best
    strategy = Strategy.from_dict(best.strategy)
    budget_s = plan.settings.time_budget_s
    target = labelled_target(workspace)
    if not room:
        raise NoYardstickError(
            f"of the {budget_s:.0f} s that the time budget left the search, too few remained to train the model {_ANEW}"
        )
    allowed = unlimited_yardstick_seconds(seconds, convex=strategy.convex) if budget_s is None else room
    records = plan.contest.completed(best.strategy_key)
    took = min((r.again_s if strategy.convex else r.seconds for r in records), default=None)
    if not strategy.convex and (took is None or workspace.elsewhere):
        raise NoYardstickError(f"the model was not trained {_ANEW}: {ELSEWHERE}")
    # As many folds as have the images without which nothing is known.
    least = math.ceil(LEAST_IMAGES * workspace.folds_once / images_left_out(workspace))
    needed = (took or 0.0) * max(least, SOLVED_AT_LEAST if strategy.convex else 1)
    if strategy.convex:
        needed += _anew_seconds(plan, workspace, strategy, target)
    if needed > allowed:
        raise NoYardstickError(f"to train the model {_ANEW} takes {needed:.0f} s, and {allowed:.0f} s were allowed")
    point, classes = outcome.operating_point, workspace.data.classes

    def decide(rows: np.ndarray) -> np.ndarray:
        return np.asarray(rows.argmax(axis=1)) if point is None else point.decide(rows, classes)

    if budget_s is not None:
        allowed = max(needed, allowed - asking_s)
    # Heads, and few images, may take twice the time that they are given.
    paced = allowed / 2 if budget_s is not None and (strategy.convex or len(target) < FEW) else allowed
    at_most = math.inf if budget_s is None else allowed
    try:
        return gather_yardstick(
            workspace, strategy, best.temperature, decide, paced, at_most=at_most, training_s=took
        )  # fmt: skip
    except NOT_HAD as error:  # no reason to lose the model: its bundle says so
        raise NoYardstickError(f"the model could not be trained {_ANEW}: {error}") from error


def _anew_seconds(plan: SearchPlan, workspace: Workspace, strategy: Strategy, target: LabelledImages) -> float:
    """What a head's images take through its network here, where a lane on another machine has had them pass it.

    Raises NoYardstickError where this machine cannot have its source model.
    """
    try:
        images = lacking(workspace, strategy, target, strategy.cached_views)
    except NOT_HAD as error:
        raise NoYardstickError(f"the model could not be trained {_ANEW}: {error}") from error
    return plan.image_seconds(images, strategy.source_model)


def room_for_judging(plan: SearchPlan) -> float:
    """Seconds for what the model is judged by: what is left of those kept for it, or half of all unused. 0: too few.

    Without a time budget there is no end to them.
    """
    budget_s = plan.settings.time_budget_s
    if budget_s is None:
        return math.inf
    spare_s = plan.spare_seconds()
    # What came before may have taken longer than was expected, and so may what comes after, which has the other half.
    room_s = max(min(plan.settings.yardstick_s, spare_s), spare_s / 2)
    return room_s if room_s >= LEAST_ROOM_S else 0.0


def _features_seconds(plan: SearchPlan, workspace: Workspace, outcome: SearchOutcome) -> float:
    """What the images whose features are kept take through the winner's network; infinite where it cannot be had."""
    strategy = Strategy.from_dict(outcome.best.strategy)
    if not strategy.convex and workspace.elsewhere:  # none are kept then
        return 0.0
    try:
        return plan.image_seconds(images_to_pass(workspace, strategy), strategy.source_model)
    except NOT_HAD:
        return math.inf


def kept_features(workspace: Workspace, strategy: dict[str, Any], refit: Path) -> KeptFeatures | None:
    """What the model in ``refit`` makes of the images that it was trained on; None where that cannot be had cheaply."""
    read = Strategy.from_dict(strategy)
    if not read.convex and workspace.elsewhere:
        return None
    try:
        return gather_features(workspace, read, load_checkpoint(refit)[1])
    except NOT_HAD:  # no reason to lose the model: it cannot be extended then
        return None
