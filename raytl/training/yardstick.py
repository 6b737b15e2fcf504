"""What a strategy's models say of labelled images that they were not trained on, as they are and changed."""

from __future__ import annotations

import math
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
from raytl.evaluation.second_opinions import SecondOpinions
from raytl.evaluation.unseen_accuracy import fit_correctness
from raytl.judging.health import FEW, LEAST_IMAGES, MOST_ASKED, Yardstick
from raytl.sources import SourceModel
from raytl.sources.passing import at_once
from raytl.tasks.images import LabelledImages
from raytl.tasks.splits import spread
from raytl.training.loop import run_trial
from raytl.training.strategy import Strategy
from raytl.training.trial import TrialJob
from raytl.training.workspace import Workspace

STRENGTHS = (0.25, 0.5, 0.75, 1.0)
LEAST_CHANGED, MOST_CHANGED, MOST_VERSIONS = 520, 3000, 15
"""Changed images that are asked about: in all if they take no longer than is allowed at most, and however fast they
are; of each image."""
FEWEST_CHANGED = 104
"""In all however long they take: some of each kind. What is learned from so few is held for little, as it should be."""
FOLDS, IMAGES_OF_A_FOLD = 20, 4
"""By which models are judged where there is time: with a fifth of few labels left out they are worse than the model
that is served."""
BATCH = 128
MOST_TIMED = 500
"""Images that one change is tried on, to see how long it takes."""

Decide = Callable[[np.ndarray], np.ndarray]


class NoYardstickError(Exception):
    """Nothing can be said of the model on images without labels; the message says why."""


def labelled_target(workspace: Workspace) -> LabelledImages:
    """The target that a part can be left out of. Raises NoYardstickError where there is none: no time helps then."""
    target = workspace.data.target
    if target is None or not workspace.folds:
        raise NoYardstickError(
            "there are no labelled target images, or too few of them to leave some out of a training"
        )
    _enough(images_left_out(workspace))  # known before any of them is left out, which takes seconds
    return target


def images_left_out(workspace: Workspace) -> int:
    """How many labelled images trainings can leave out, each once."""
    return sum(len(validation) for _, validation in workspace.folds[: workspace.folds_once])


def _enough(judged: int) -> None:
    if judged < LEAST_IMAGES:
        raise NoYardstickError(f"{judged} labelled images could be left out of a training; {LEAST_IMAGES} are needed")


def gather_yardstick(
    workspace: Workspace,
    strategy: Strategy,
    temperature: float,
    decide: Decide,
    seconds: float,
    *,
    at_most: float = math.inf,
    training_s: float | None = None,
) -> Yardstick:
    """Train the strategy without each fold in turn, and ask it about the fold, as it is and changed.

    temperature: of the model that will be served; decide: its decision, from (n, k) to (n,). seconds: that this may
    take, about: it decides by how many folds and under how many changes an image is asked about, and of what takes long
    to train how many folds are. at_most: seconds that no fold is begun to take more than; few images, and heads that
    are solved for, else may. training_s: seconds that one training of a strategy that is not solved for takes.
    Raises NoYardstickError where the target has no folds or too few images for anything to be said; TrialError,
    UserError where the strategy cannot be trained.
    """
    target = labelled_target(workspace)
    started = time.monotonic()
    workspace = _with_more_folds(workspace, strategy, seconds, training_s)
    numbers = range(workspace.folds_once)
    if not numbers:
        raise NoYardstickError("no labelled image can be left out of a training")
    asked: list[_Asked] = []
    for done, number in enumerate(numbers):
        begun = time.monotonic()
        before = asked[0] if asked else None
        # Of few images all are worth twice the time; and heads, which usually take a moment each, worth finishing.
        allowed = seconds if sum(len(fold.plain["labels"]) for fold in asked) >= FEW else 2 * seconds
        most = min(2 * allowed if strategy.convex else allowed, at_most)
        about, latest = (begun + (s - (begun - started)) / (len(numbers) - done) for s in (seconds, most))
        until = _Until(about, latest, started + most)
        asked.append(_ask(workspace, strategy, number, temperature, decide, until, before))
        if 2 * time.monotonic() - begun - started > most:  # another one would take too long
            break
    plain = {name: np.concatenate([fold.plain[name] for fold in asked]) for name in asked[0].plain}
    _enough(len(plain["labels"]))
    columns = zip(*(row for fold in asked for row in fold.told), strict=True)
    told = [np.concatenate(column) for column in columns]
    kept = spread(np.arange(len(target)), MOST_ASKED)
    return Yardstick(
        **plain,
        thumbnails=asked[0].thumbnails[kept],
        thumbnail_statistics=asked[0].statistics[kept],
        thumbnail_labels=target.labels[kept],
        correctness=fit_correctness(*told),
    )


def _with_more_folds(workspace: Workspace, strategy: Strategy, seconds: float, training_s: float | None) -> Workspace:
    """As many as half of the time allows; the rest goes into asking."""
    count, target = workspace.folds_once, workspace.data.target
    assert target is not None
    most = max(2, min(FOLDS, len(target) // IMAGES_OF_A_FOLD))
    if strategy.convex:
        many = workspace.with_folds(most)
        for fold in range(min(2, many.folds_once)):  # what all folds share is computed for the first one
            begun = time.monotonic()
            run_trial(many, TrialJob(strategy, fold, final=True), lambda report: None)
            training_s = time.monotonic() - begun
    if training_s is None:
        return workspace
    affordable = min(most, int(seconds / 2 / max(training_s, 1e-3)))
    return workspace.with_folds(affordable) if affordable > count else workspace


@dataclass(frozen=True)
class _Until:
    """When a fold is to be done, about and at the latest, and when all of them are; of the monotonic clock."""

    about: float
    latest: float
    end: float


@dataclass
class _Asked:
    """Of one fold.

    thumbnails, statistics: of all labelled images. plain: of the fold's unchanged images. told: opinions, right or not,
    image, kind of change, its number, predicted label.
    """

    thumbnails: np.ndarray
    statistics: np.ndarray
    plain: dict[str, np.ndarray] = field(default_factory=dict)
    told: list[tuple[np.ndarray, ...]] = field(default_factory=list)


def _ask(
    workspace: Workspace,
    strategy: Strategy,
    fold: int,
    temperature: float,
    decide: Decide,
    until: _Until,
    before: _Asked | None,
) -> _Asked:
    """until: when to be done. before: another fold, whose images are the same."""
    target = workspace.data.target
    assert target is not None
    train, validation = workspace.folds[fold]
    entered = time.monotonic()
    model = run_trial(workspace, TrialJob(strategy, fold, final=True), lambda report: None).model
    pixels = workspace.pixels(target, model.preprocessing).numpy()
    known = spread(train, MOST_ASKED)
    if before is None:
        asked = _Asked(thumbnails(pixels), image_statistics(pixels))
    else:
        asked = _Asked(before.thumbnails, before.statistics)
    others = SecondOpinions(
        asked.thumbnails[known], asked.statistics[known], target.labels[known], len(workspace.data.classes)
    )

    def ask(batches: Iterable[np.ndarray], index: np.ndarray, kinds: np.ndarray, numbers: np.ndarray) -> None:
        looks, described, logits = [], [], []
        for images in batches:
            looks.append(thumbnails(images))
            described.append(image_statistics(images))
            logits.append(_logits(model, images, workspace.device))
        p = apply_temperature(torch.cat(logits).softmax(1).numpy(), temperature)
        chosen, truth = decide(p), target.labels[index]
        seen = others.about(p, chosen, np.concatenate(looks), np.concatenate(described))
        asked.told.append((seen, chosen == truth, index, kinds, numbers, chosen))
        if not asked.plain:
            asked.plain = {"probabilities": p, "chosen": chosen, "labels": truth, "opinions": seen}

    training_s = time.monotonic() - entered
    begun = time.monotonic()
    rng = np.random.default_rng(derive_seed(workspace.settings.seed, "yardstick", fold))
    parts = [validation[first : first + BATCH] for first in range(0, len(validation), BATCH)]
    ask((pixels[part] for part in parts), validation, np.full(len(validation), ""), np.zeros(len(validation), int))
    asked.plain["statistics"] = asked.statistics[validation]
    each = (time.monotonic() - begun) / len(validation)
    begun = time.monotonic()
    few = validation[:MOST_TIMED]
    changed(pixels[few], "two", 1.0, rng)
    each += (time.monotonic() - begun) / len(few)
    changes = [(name, strength) for name in CHANGES for strength in STRENGTHS]
    folds = workspace.folds_once
    wanted = min(MOST_CHANGED // folds, MOST_VERSIONS * len(validation))
    now = time.monotonic()
    # Where there is no time for another training, what is left of it is this one's.
    latest = until.end if now + training_s > until.end else until.latest
    usual, possible = (int((moment - now) / each) for moment in (until.about, latest))
    least = max(FEWEST_CHANGED // folds, min(LEAST_CHANGED // folds, possible))
    affordable = min(wanted, max(least, usual))
    most = affordable // len(changes) + (rng.permutation(len(changes)) < affordable % len(changes))
    # Of each change there are a few images, and asking about one takes nearly as long as about a batch.
    waiting: list[tuple[np.ndarray, ...]] = []
    for number, (name, strength) in enumerate(changes, 1):
        index = np.sort(rng.permutation(validation)[: most[number - 1]])
        if len(index):
            images = changed(pixels[index], name, strength, rng)
            waiting.append((images, index, np.full(len(index), name), np.full(len(index), number)))
        if waiting and (number == len(changes) or sum(len(one[0]) for one in waiting) >= BATCH):
            images, *which = map(np.concatenate, zip(*waiting, strict=True))
            ask([images], *which)
            waiting.clear()
    return asked


@torch.inference_mode()
def _logits(model: SourceModel, images: np.ndarray, device: torch.device) -> Tensor:
    """Of uint8 images, on the CPU."""
    model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    chunks = torch.from_numpy(images).split(at_once(model.preprocessing.size, device))
    return torch.cat([model(model.preprocessing.normalise(chunk.to(device))).float() for chunk in chunks]).cpu()
