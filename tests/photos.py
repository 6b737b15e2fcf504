"""Folders of small pictures that a network learns at once: every class has a colour of its own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"daisy": (230, 230, 90), "poppy": (210, 40, 40), "tulip": (120, 60, 200)}
SPACE = """\
about: for tests
image_size: 16
epochs: 2
grace_epochs: 1
batch_size: 16
space:
  source_model: [scratch:cnn-small]
  head_lr: [0.03, 0.1]
  backbone_ratio: [1.0]
  augmentation: [none, shift]
"""


def picture(name: str, number: int, brightness: float = 1.0) -> Image.Image:
    """16 pixels of noise about the colour of the class; the same number gives the same picture."""
    rng = np.random.default_rng([number, *name.encode()])
    pixels = np.array(COLOURS[name]) * brightness + rng.normal(0, 30, (16, 16, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def folder(
    root: Path,
    per_class: int = 8,
    *,
    first: int = 0,
    flat: bool = False,
    brightness: float = 1.0,
    names: Iterable[str] = COLOURS,
) -> Path:
    """``class/0.png`` … below root, or all in root where ``flat``."""
    for name in names:
        for number in range(first, first + per_class):
            path = root / f"{name}-{number}.png" if flat else root / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(name, number, brightness).save(path)
    return root


def space(root: Path) -> Path:
    """A search space of which a trial takes a second."""
    path = root / "tiny.yaml"
    path.write_text(SPACE)
    return path
