"""Augmentation policies: a batch in, a batch out, on whatever device it is on, one resampling per batch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from raytl.core.errors import UserError, nearest
from raytl.core.hashing import hash_file, hash_json
from raytl.finetuning.policy import Policy

Augmentation = Callable[[Tensor, torch.Generator], Tensor]
"""``(images, generator) -> images``: float (n, c, h, w), c 1 or 3, values in [0, 1]; all of these are kept."""


def _none(images: Tensor, generator: torch.Generator) -> Tensor:
    return images


_POLICIES: dict[str, Augmentation] = {
    "none": _none,
    # Characters, text, parts, anything that a mirror would turn into something else.
    "shift": Policy(rotation=10.0, translation=0.06, scale=0.1, stretch=0.07, shear=0.1),
    # Photos: the scene goes on beyond the edge, and its mirror image is as likely.
    "flip": Policy(rotation=10.0, translation=0.06, scale=0.15, stretch=0.1, flip=True, mirrored_edges=True),
    "color": Policy(
        rotation=10.0,
        translation=0.06,
        scale=0.15,
        stretch=0.1,
        flip=True,
        mirrored_edges=True,
        brightness=0.25,
        contrast=0.25,
        saturation=0.4,
    ),
    # What keeps an image as sharp as it was: a head on frozen features takes blur for a trait.
    "crop": Policy(crop=0.25),
    "crop-flip": Policy(crop=0.25, flip=True),
    # The second view of consistency losses; no flip, because it must suit what each of the others suits.
    "strong": Policy(
        rotation=15.0, translation=0.09, scale=0.15, stretch=0.1, shear=0.15, contrast=0.3, brightness=0.2, erase=0.25
    ),
}


def names() -> list[str]:
    """The policies."""
    return sorted(_POLICIES)


def get(name: str) -> Augmentation:
    """The policy called ``name``. Raises UserError that names the nearest known one."""
    try:
        return _POLICIES[name]
    except KeyError:
        raise UserError(f"unknown augmentation '{name}'{nearest(name, _POLICIES)}") from None


def flips(name: str) -> bool:
    """Whether a policy makes mirror images. Raises UserError like :func:`get`."""
    return bool(getattr(get(name), "flip", False))


def definition(name: str) -> str:
    """Hash of all that a policy makes of an image, but for the random numbers: its settings, and the code they are for.

    What is kept on disk of augmented images is kept under it, so that a policy that changes never finds what it made
    before. Raises UserError like :func:`get`.
    """
    policy = get(name)
    settings = asdict(policy) if isinstance(policy, Policy) else name
    return hash_json([settings, _code()])


@cache
def _code() -> str:
    return hash_file(Path(str(sys.modules[Policy.__module__].__file__)))
