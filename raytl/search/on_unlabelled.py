"""How often the winner is right on the unlabelled images: where it will be used nobody has labels to tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from raytl.core.errors import UserError
from raytl.evaluation.calibration import apply_temperature
from raytl.evaluation.drift import MOST, drift_test
from raytl.evaluation.image_statistics import image_statistics, thumbnails
from raytl.judging.health import LEAST_IMAGES, judge_health
from raytl.search.plan.schedule import SearchPlan
from raytl.search.records import SearchOutcome
from raytl.search.test_split import probabilities_of
from raytl.sources.checkpoint import load_checkpoint
from raytl.tasks.splits import spread
from raytl.training.roles import PROBE_SAMPLE
from raytl.training.trial import TrialError
from raytl.training.workspace import Workspace
from raytl.training.yardstick import images_left_out

NOT_HAD = (TrialError, UserError, RuntimeError, MemoryError, OSError)
"""What goes wrong where an image was moved or deleted since, or there is no memory or no room on a disk."""
MOST_SEEN = 256
"""Unlabelled images that pass the network for it."""
LEAST_SEEN = 20
"""Unlabelled images without which what is said of them tells nothing."""


MOMENT_S = 2.0
"""What it takes to see whether unlabelled images are like the labelled ones is taken from no time budget."""


class NotJudgedError(Exception):
    """Why nothing is said of the winner on the unlabelled images, without a dot at the end."""


def as_there_is_time(
    plan: SearchPlan, source_model: str, seconds: float, images: int, beside: int = 0, *, networks: int = 1
) -> int:
    """How many of so many unlabelled images there is time for: all, half of them, a quarter, …, 0 of too few.

    seconds: for them and so many others ``beside`` them to be decoded and pass the source model's network, or as many
    networks that take as long. A moment is always allowed.
    """
    while images >= LEAST_SEEN:
        if plan.image_seconds(networks * images + beside, source_model) < max(MOMENT_S, seconds):
            return images
        images = max(images // 2, LEAST_SEEN) if images > LEAST_SEEN else 0
    return 0


def can_be_judged(workspace: Workspace) -> bool:
    """Whether there is anything to say: of unlabelled images, by what labelled ones tell."""
    return workspace.data.unlabelled is not None and workspace.data.target is not None


def is_worth_time(workspace: Workspace) -> bool:
    """Whether time is to be kept for it: nothing is said of few images, nor where few labelled ones are held out."""
    unlabelled = workspace.data.unlabelled
    enough = unlabelled is not None and len(unlabelled) >= LEAST_SEEN
    return enough and can_be_judged(workspace) and images_left_out(workspace) >= LEAST_IMAGES


def images_to_ask(workspace: Workspace) -> int:
    """How many unlabelled images are asked about where there is time; 0 where it is not worth any."""
    unlabelled = workspace.data.unlabelled
    return min(len(unlabelled), MOST_SEEN) if unlabelled is not None and is_worth_time(workspace) else 0


def add_on_unlabelled(
    workspace: Workspace,
    outcome: SearchOutcome,
    refit: Path,
    out_of_fold: np.ndarray | None,
    in_time: Callable[[int, int], int],
) -> None:
    """Add to an outcome what :func:`judged_on_unlabelled` says, or why that does not tell how often it is right."""
    try:
        outcome.on_unlabelled = judged_on_unlabelled(workspace, outcome, refit, out_of_fold, in_time)
        if outcome.on_unlabelled is not None and outcome.on_unlabelled["accuracy"] is None:
            outcome.why_not_on_unlabelled = outcome.no_yardstick
    except NotJudgedError as error:
        outcome.why_not_on_unlabelled = str(error)
    except NOT_HAD as error:  # an image was moved since, say: no reason to lose the model
        outcome.why_not_on_unlabelled = f"it could not be asked of them: {error}"


def judged_on_unlabelled(
    workspace: Workspace,
    outcome: SearchOutcome,
    refit: Path,
    out_of_fold: np.ndarray | None,
    in_time: Callable[[int, int], int] = lambda images, beside: images,
) -> dict[str, Any] | None:
    """What is said of the winner on some of the unlabelled images, as :meth:`Health.to_json` has it.

    By its yardstick; without one, whether they are of another kind than the labelled ones, and nothing of ``accuracy``.
    None where there are none, and where no target image has a label. refit: the winner's checkpoint. out_of_fold:
    (n, k), what it says of target images that it was not trained on, NaN of the others; None where it was asked of
    none. in_time: of so many unlabelled images, with so many others beside them, how many may be decoded and pass the
    network.
    Raises NotJudgedError of few images, of a model that was asked of none that it did not learn, and without time;
    UserError, OSError where an image cannot be read any more.
    """
    images, target, yardstick = workspace.data.unlabelled, workspace.data.target, outcome.yardstick
    if images is None or target is None:
        return None
    if len(images) < LEAST_SEEN:
        raise NotJudgedError(f"there {'is' if len(images) == 1 else 'are'} {len(images)}, and {LEAST_SEEN} are needed")
    if out_of_fold is None:
        raise NotJudgedError("no labelled image was held out, to tell by what its answers are worth")
    _, model = load_checkpoint(refit)
    asked = spread(np.flatnonzero(np.isfinite(out_of_fold).all(axis=1)), MOST)
    decoded = workspace.has_pixels(target, model.preprocessing)
    most = min(len(images), MOST_SEEN if yardstick else PROBE_SAMPLE)
    count = in_time(most, 0 if decoded or yardstick is not None else len(asked))
    if not count:
        raise NotJudgedError("there was no time left to ask it of them")
    seen = images.subset(spread(np.arange(len(images)), count))
    said = probabilities_of(model, [model.head], workspace, seen)[0]
    said = apply_temperature(said, outcome.best.temperature)
    point, classes = outcome.operating_point, workspace.data.classes

    def decide(rows: np.ndarray) -> np.ndarray:
        return np.asarray(rows.argmax(axis=1)) if point is None else point.decide(rows, classes)

    chosen = decide(said)
    pixels = workspace.pixels(seen, model.preprocessing).numpy()
    statistics = image_statistics(pixels)
    if yardstick is not None:
        told = yardstick.asked(said, chosen, thumbnails(pixels), statistics)
        return judge_health(yardstick, told, chosen, statistics).to_json(classes)
    if decoded:
        usual = image_statistics(workspace.pixels(target, model.preprocessing).numpy()[asked])
    else:
        usual = image_statistics(workspace.pixels(target.subset(asked), model.preprocessing).numpy())
    drift = drift_test(
        usual, statistics, (decide(apply_temperature(out_of_fold[asked], outcome.best.temperature)), chosen)
    )
    return {
        "images": len(seen),
        "accuracy": None,
        "drift": None if drift is None else {"alarm": drift.alarm, "p": drift.p},
    }
