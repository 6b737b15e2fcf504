"""Images that a bundle is to learn in addition: whether they may be added, and what its network makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from raytl.bundles.bundle import Bundle
from raytl.core.errors import UserError
from raytl.core.names import encodable, printable
from raytl.evaluation.image_statistics import image_statistics, thumbnails
from raytl.judging.kept_features import KeptFeatures
from raytl.tasks.images import Images

LEAST_NEW = 2
"""Images of a new class: of one alone it cannot be said whether it is told from others."""
FIRST = 4
"""Images of a class whose pictures are handed on."""
_BATCH = 64
_SAME = 1e-3
"""Distance of features, in lengths of the vector, below which two images are one."""


def check_names(directory: Path, labels: tuple[str, ...], given: Mapping[str, Images]) -> None:
    """Raise UserError where a class of ``given`` cannot be added to these labels."""
    if not given:
        raise UserError(f"{directory}: no class was given to add; name one with --class NAME and its folder")
    for name in given:
        if encodable(name) != name:
            raise UserError(f"--class '{printable(name)}': is no text in UTF-8; give another name")
        if not name.strip() or name != name.strip():
            raise UserError(f"--class '{name}': give a name without spaces around it")
        alike = next((label for label in [*labels, *given] if label != name and label.lower() == name.lower()), None)
        if alike is not None:
            raise UserError(
                f"--class {name}: there is '{alike}', which differs in upper and lower case only; give that name to "
                "add images to it, or another one"
            )
        if name not in labels and len(given[name]) < LEAST_NEW:
            raise UserError(f"--class {name}: has 1 image in {given[name].name}; a new class needs {LEAST_NEW}")


def look_at(
    bundle: Bundle, kept: KeptFeatures, name: str, labels: tuple[str, ...], images: Images
) -> tuple[KeptFeatures, list[Image.Image]]:
    """Features of those images of a class that are not in ``kept`` yet, and the first of these as pictures.

    labels: all there will be. Raises UserError where one is known under another label, or all are known.
    """
    pixels = images.tensor(bundle.manifest.preprocessing)
    features, label = _features(bundle, pixels), labels.index(name)
    digests = np.stack([np.frombuffer(bytes.fromhex(item.digest), dtype=np.uint8) for item in images.items])
    fresh = []
    for row, item in enumerate(images.items):
        same = _known(kept, features[row], digests[row])
        other = [number for number in kept.labels[same] if number != label]
        if other:
            raise UserError(f"--class {name}: {item.name} is in the training set already, as '{labels[other[0]]}'")
        if not same.any():
            fresh.append(row)
    if not fresh:
        raise UserError(f"--class {name}: all {len(images)} images of {images.name} are in the training set already")
    index = np.array(fresh)
    groups = np.arange(len(images)) if images.groups is None else images.groups
    old = kept.labels < len(bundle.labels)
    own = kept.weights[old & kept.target] if (old & kept.target).any() else kept.weights[old]
    weight = float(own.mean())
    if name not in bundle.labels:
        # So much as an old class has on average: that there are five images does not say how often it will be seen.
        weight = float(own.sum()) / len(bundle.labels) / len(index)
    made = replace(
        kept,
        features=features[index],
        labels=np.full(len(index), label),
        weights=np.full(len(index), weight),
        # Without target images what stands for them are all, now and when it is extended again.
        target=np.full(len(index), bool(kept.target.any())),
        groups=np.unique(groups[index], return_inverse=True)[1].astype(np.int64),
        digests=digests[index],
        thumbnails=thumbnails(pixels[index].numpy()),
        statistics=image_statistics(pixels[index].numpy()),
    )
    return made, [images.items[row].open() for row in fresh[:FIRST]]


@torch.inference_mode()
def _features(bundle: Bundle, pixels: torch.Tensor) -> np.ndarray:
    """What the bundle's head reads of uint8 images, float32 (n, d)."""
    normalise, model = bundle.manifest.preprocessing.normalise, bundle.model
    rows = []
    for part in pixels.split(_BATCH):
        inputs = normalise(part.to(bundle.device))
        rows.append(model.head_inputs(inputs).float().cpu())
    return torch.cat(rows).numpy()


def _known(kept: KeptFeatures, features: np.ndarray, digest: np.ndarray) -> np.ndarray:
    """Which of the old images this one is, by its bytes or by what the network sees of it; bool (n,)."""
    return np.asarray(looks_the_same(kept.features, features) | (kept.digests == digest).all(axis=1))


def looks_the_same(features: np.ndarray, one: np.ndarray) -> np.ndarray:
    """Which of some images, features (n, d), are to the network the same as one more, (d,); bool (n,)."""
    apart = np.linalg.norm(features - one, axis=1)
    return np.asarray(apart <= _SAME * max(float(np.linalg.norm(one)), 1e-12))
