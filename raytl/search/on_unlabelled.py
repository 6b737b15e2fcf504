"""How often the winner is right on the unlabelled images: where it will be used nobody has labels to tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from raytl.evaluation.calibration import apply_temperature
from raytl.evaluation.drift import MOST, drift_test
from raytl.evaluation.image_statistics import image_statistics, thumbnails
from raytl.judging.health import judge_health
from raytl.search.records import SearchOutcome
from raytl.search.test_split import probabilities_of
from raytl.sources.checkpoint import load_checkpoint
from raytl.tasks.splits import spread
from raytl.training.roles import PROBE_SAMPLE
from raytl.training.workspace import Workspace

MOST_SEEN = 256
"""Unlabelled images that pass the network for it."""
LEAST_SEEN = 20
"""Unlabelled images without which what is said of them tells nothing."""


def judged_on_unlabelled(
    workspace: Workspace,
    outcome: SearchOutcome,
    refit: Path,
    out_of_fold: np.ndarray | None,
    has_time: Callable[[int], bool] = lambda images: True,
) -> dict[str, Any] | None:
    """What is said of the winner on some of the unlabelled images, as :meth:`Health.to_json` has it.

    By its yardstick; without one, whether they are of another kind than the labelled ones, and nothing of ``accuracy``.
    None of few images, and where no target image has a label. refit: the winner's checkpoint. out_of_fold: (n, k), what
    it says of target images that it was not trained on, NaN of the others; None where it was asked of none. has_time:
    whether so many images may be decoded and pass the network; nothing is said where they may not.
    Raises UserError, OSError where an image cannot be read any more.
    """
    images, target, yardstick = workspace.data.unlabelled, workspace.data.target, outcome.yardstick
    if images is None or target is None or out_of_fold is None or len(images) < LEAST_SEEN:
        return None
    seen = images.subset(spread(np.arange(len(images)), MOST_SEEN if yardstick else PROBE_SAMPLE))
    _, model = load_checkpoint(refit)
    asked = spread(np.flatnonzero(np.isfinite(out_of_fold).all(axis=1)), MOST)
    decoded = workspace.has_pixels(target, model.preprocessing)
    if not has_time(len(seen) + (0 if decoded or yardstick is not None else len(asked))):
        return None
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
