"""A source model of one's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from raytl import sources
from raytl.bundles import export_bundle, reference_images
from raytl.core.errors import UserError
from raytl.core.seeding import derive_seed
from raytl.sources import Learned
from raytl.sources.checkpoint import check_place
from raytl.tasks import Problem, Severity, TrainingData, read_labelled, splits
from raytl.training.pretrain import train_source_model
from raytl.training.workspace import PretrainSettings, Workspace, WorkspaceSettings


def pretrain(
    data: str | os.PathLike[str],
    architecture: str,
    out: str | os.PathLike[str],
    *,
    steps: int = 1000,
    batch_size: int = 64,
    learning_rate: float = 0.05,
    image_size: int | None = None,
    augmentation: str = "shift",
    seed: int = 0,
    split: str | None = None,
    images: str | os.PathLike[str] | None = None,
    label: str | None = None,
    image_column: str | None = None,
    group_by: str | None = None,
    progress: Any = None,
    noticed: Callable[[Sequence[Problem]], None] | None = None,
) -> tuple[Path, float]:
    """Train a source model on labelled images and write it as a bundle; returns its folder and held-out accuracy.

    architecture: URI of the network to start from (``scratch:cnn-small``, ``torchvision:resnet18``). split, images,
    label, image_column, group_by: as of :class:`raytl.Task`. noticed: told what there is to say about the data, before
    the training. The bundle tells which images it has learned from (:mod:`raytl.sources.learned`). Raises UserError at
    once where ``out`` cannot be written or holds something else than a saved model.
    """
    check_place(Path(out))
    read = read_labelled(
        data, asked="--data", split=split, images=images, label=label, image_column=image_column, group_by=group_by
    )
    learned = read.images
    if noticed is not None:
        noticed(read.problems)
    if len(learned.classes) < 2:
        raise UserError(f"{data}: has one class, '{learned.classes[0]}'; a classifier needs at least two")
    held = TrainingData(learned.name, learned.classes, learned, None, {}, read.channels)
    workspace = Workspace(held, WorkspaceSettings(seed=seed, image_size=image_size))
    settings = PretrainSettings(steps, batch_size, learning_rate, augmentation=augmentation)
    start = sources.load(architecture, channels=read.channels, image_size=image_size, seed=seed)
    train, held_out = splits.holdout(learned.labels, learned.groups, 0.15, derive_seed(seed, "pretrain"))
    own, before = Learned.of(learned.items[i].digest for i in train), sources.learned_by(architecture)
    if before is not None:
        seen = before.among([learned.items[i].digest for i in held_out])
        if seen.any() and noticed is not None:
            what = f"{architecture} has learned from {seen.sum()} of the {len(seen)} images that are held out"
            noticed([Problem(Severity.WARNING, learned.name, f"{what}; the accuracy is of the others")])
        held_out, own = held_out[~seen], own.joined(before)
    model, accuracy, _ = train_source_model(
        workspace, start, learned, train, held_out, settings, seed, progress or (lambda step, loss: None)
    )
    provenance = {"data": str(data), "images": len(train), "seed": seed, **asdict(settings)}
    provenance["licence"] = sources.licence_of(architecture)
    metrics = {"accuracy": None if np.isnan(accuracy) else accuracy}
    examples = reference_images(learned)
    written = export_bundle(
        Path(out), model.cpu(), metrics=metrics, provenance=provenance, examples=examples, learned=own
    )
    return written, accuracy
