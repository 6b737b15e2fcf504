"""What a strategy's models say of labelled images that they were not trained on, as they are and changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from raytl.core.seeding import derive_seed
from raytl.evaluation.calibration import apply_temperature
from raytl.evaluation.changes import CHANGES, changed
from raytl.evaluation.image_statistics import image_statistics, thumbnails
from raytl.evaluation.unseen_accuracy import fit_correctness, opinions
from raytl.judging.health import LEAST_IMAGES, MOST_ASKED, Yardstick
from raytl.sources import SourceModel
from raytl.tasks.splits import spread
from raytl.training.loop import run_trial
from raytl.training.strategy import Strategy
from raytl.training.trial import TrialJob
from raytl.training.workspace import Workspace

STRENGTHS = (0.25, 0.5, 0.75, 1.0)
LEAST_CHANGED, MOST_CHANGED = 13, 3000
"""Changed images that are asked about: in each fold however long they take, and in all however fast they are."""
FOLDS, IMAGES_OF_A_FOLD = 20, 4
"""By which heads are judged that are solved for in a moment: with a fifth of few labels left out they are worse than
the model that is served."""
BATCH = 128
MOST_TIMED = 500
"""Images that one change is tried on, to see how long it takes."""

Decide = Callable[[np.ndarray], np.ndarray]


def gather_yardstick(
    workspace: Workspace, strategy: Strategy, temperature: float, decide: Decide, seconds: float
) -> Yardstick | None:
    """Train the strategy without each fold in turn, and ask it about the fold, as it is and changed.

    temperature: of the model that will be served; decide: its decision, from (n, k) to (n,). seconds: that this may
    take, about: it decides under how many changes an image is asked about, and of what takes long to train how many
    folds are. None where the target has no folds or too few images for anything to be said.
    Raises TrialError, UserError where the strategy cannot be trained.
    """
    target = workspace.data.target
    if target is None or not workspace.folds:
        return None
    started = time.monotonic()
    if strategy.convex:
        many = workspace.with_folds(max(2, min(FOLDS, len(target) // IMAGES_OF_A_FOLD)))
        run_trial(many, TrialJob(strategy, 0, final=True), lambda report: None)
        # All images have to be asked about, and most of the time is to go into that.
        if many.settings.folds[0] * (time.monotonic() - started) < seconds / 2:
            workspace = many
    numbers = [n for n in range(workspace.settings.folds[0]) if len(workspace.folds[n][1])]
    asked: list[_Asked] = []
    for done, number in enumerate(numbers):
        begun = time.monotonic()
        left = (seconds - (begun - started)) / (len(numbers) - done)
        asked.append(_ask(workspace, strategy, number, temperature, decide, begun + left))
        if not strategy.convex and 2 * time.monotonic() - begun - started > seconds:
            break  # training another one would take too long
    if not asked:
        return None
    plain = {name: np.concatenate([fold.plain[name] for fold in asked]) for name in asked[0].plain}
    if len(plain["labels"]) < LEAST_IMAGES:
        return None
    columns = zip(*(row for fold in asked for row in fold.told), strict=True)
    seen, right, index, kinds, groups = (np.concatenate(column) for column in columns)
    kept = spread(np.arange(len(target)), MOST_ASKED)
    return Yardstick(
        **plain,
        thumbnails=asked[0].thumbnails[kept],
        thumbnail_labels=target.labels[kept],
        correctness=fit_correctness(seen, right, index, kinds, groups),
    )


@dataclass
class _Asked:
    """Of one fold. plain: of the unchanged images. told: opinions, right or not, image, kind of change, its number."""

    thumbnails: np.ndarray
    plain: dict[str, np.ndarray] = field(default_factory=dict)
    told: list[tuple[np.ndarray, ...]] = field(default_factory=list)


def _ask(
    workspace: Workspace, strategy: Strategy, fold: int, temperature: float, decide: Decide, until: float
) -> _Asked:
    """until: when to be done, about, of the monotonic clock."""
    target = workspace.data.target
    assert target is not None
    train, validation = workspace.folds[fold]
    model = run_trial(workspace, TrialJob(strategy, fold, final=True), lambda report: None).model
    pixels = workspace.pixels(target, model.preprocessing).numpy()
    asked, known = _Asked(thumbnails(pixels)), spread(train, MOST_ASKED)

    def ask(batches: Iterable[np.ndarray], index: np.ndarray, kind: str, number: int) -> None:
        looks, logits = [], []
        for images in batches:
            looks.append(thumbnails(images))
            logits.append(_logits(model, images, workspace.device))
        p = apply_temperature(torch.cat(logits).softmax(1).numpy(), temperature)
        chosen, truth = decide(p), target.labels[index]
        seen = opinions(p, chosen, np.concatenate(looks), asked.thumbnails[known], target.labels[known])
        asked.told.append((seen, chosen == truth, index, np.full(len(index), kind), np.full(len(index), number)))
        if not kind:
            asked.plain = {"probabilities": p, "chosen": chosen, "labels": truth, "opinions": seen}

    begun = time.monotonic()
    rng = np.random.default_rng(derive_seed(workspace.settings.seed, "yardstick", fold))
    parts = [validation[first : first + BATCH] for first in range(0, len(validation), BATCH)]
    ask((pixels[part] for part in parts), validation, "", 0)
    asked.plain["statistics"] = np.concatenate([image_statistics(pixels[part]) for part in parts])
    each = (time.monotonic() - begun) / len(validation)
    begun = time.monotonic()
    few = validation[:MOST_TIMED]
    changed(pixels[few], "two", 1.0, rng)
    each += (time.monotonic() - begun) / len(few)
    changes = [(name, strength) for name in CHANGES for strength in STRENGTHS]
    wanted = MOST_CHANGED // workspace.settings.folds[0]
    affordable = max(LEAST_CHANGED, min(wanted, int((until - time.monotonic()) / each)))
    most = affordable // len(changes) + (rng.permutation(len(changes)) < affordable % len(changes))
    for number, (name, strength) in enumerate(changes, 1):
        index = np.sort(rng.permutation(validation)[: most[number - 1]])
        if len(index):
            ask([changed(pixels[index], name, strength, rng)], index, name, number)
    return asked


@torch.inference_mode()
def _logits(model: SourceModel, images: np.ndarray, device: torch.device) -> Tensor:
    """Of uint8 images, on the CPU."""
    model = model.to(device).eval()
    chunks = torch.from_numpy(images).split(BATCH)
    return torch.cat([model(model.preprocessing.normalise(chunk.to(device))).float() for chunk in chunks]).cpu()
