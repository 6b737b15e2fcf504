"""A task that trains in a tenth of a second: three shapes of 16 pixels, in one light or another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from raytl.tasks import Images, LabelledImages, TrainingData
from raytl.tasks.items import PixelsItem
from raytl.training.workspace import Budget, PretrainSettings, Workspace, WorkspaceSettings

CLASSES = ("bar", "cross", "disc")
SIDE = 16
MODEL = "scratch:cnn-small"
STAGES = 5
PRETRAINED = f"pretrain:bright/{MODEL}"
ENOUGH_S = 600.0
"""For what does as much as there is time for, and is done in a second or two: of three a busy machine makes less."""


def shape(kind: int, rng: np.random.Generator) -> np.ndarray:
    """uint8 (16, 16): a bright shape at a random place on a dark, noisy ground."""
    y, x = np.mgrid[:SIDE, :SIDE] - rng.uniform(6, 9, (2, 1, 1))
    size = rng.uniform(3.5, 5.0)
    drawn = [
        (abs(y) < 1.6) & (abs(x) < size + 1),
        ((abs(y) < 1.2) & (abs(x) < size + 1)) | ((abs(x) < 1.2) & (abs(y) < size + 1)),
        y**2 + x**2 < size**2,
    ][kind]
    pixels = 30 + 180 * drawn * rng.uniform(0.8, 1.0) + rng.normal(0, 12, (SIDE, SIDE))
    return np.asarray(pixels.clip(0, 255), dtype=np.uint8)


def shapes(
    per_class: int,
    seed: int = 0,
    *,
    name: str = "shapes",
    classes: tuple[str, ...] = CLASSES,
    contrast: float = 1.0,
    light: float = 0.0,
) -> LabelledImages:
    """``per_class`` of each class, in class order. contrast, light: its pixels are contrast * p + light."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(classes)), per_class)
    pixels = [(contrast * shape(kind, rng) + light).clip(0, 255).astype(np.uint8) for kind in labels]
    items = [PixelsItem(f"{name} {i}", image) for i, image in enumerate(pixels)]
    return LabelledImages(name, items, None, classes, labels.astype(np.int64))


def data(
    target: int | None = 6,
    unlabelled: int | None = 9,
    domains: bool = True,
    **shift: float,
) -> TrainingData:
    """Training data of tiny shapes. target, unlabelled: images per class, None to go without.

    domains: whether there are the source domains ``bright`` (the task's labels) and ``other`` (labels of its own).
    shift: of the target domain, as in :func:`shapes`.
    """
    named = {"bright": shapes(12, 3, name="bright"), "other": shapes(5, 4, name="other", classes=("p", "q"))}
    return TrainingData(
        "shapes",
        CLASSES,
        shapes(target, 1, name="target", **shift) if target is not None else None,
        pool(shapes(unlabelled, 2, name="unlabelled", **shift)) if unlabelled is not None else None,
        named if domains else {},
        channels=1,
    )


def pool(images: LabelledImages) -> Images:
    """The images without their labels."""
    return images.without_labels()


def workspace(root: Path, held: TrainingData, epochs: int = 2, steps: int = 4, **settings: Any) -> Workspace:
    """A workspace with a small budget, its cache below ``root``."""
    defaults: dict[str, Any] = {
        "budget": Budget(epochs, steps, 16),
        "pretrain": PretrainSettings(steps=12, batch_size=16, augmentation="none"),
        "image_size": SIDE,
        "folds": (2, 1),
        "device": "cpu",
        "threads": 1,
    }
    return Workspace(held, WorkspaceSettings(**(defaults | settings)), root)
