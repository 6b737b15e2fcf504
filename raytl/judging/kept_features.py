"""What a network makes of the images it was fitted on, or adapted to: enough to fit another head in seconds."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from raytl.tasks.splits import spread_by_class

MOST_IMAGES = 2000
MOST_BYTES = 96 * 2**20
"""Of the features; with fewer images where they are wide."""
MOST_UNLABELLED, MOST_UNLABELLED_BYTES = 300, 24 * 2**20
"""The same of images without labels: they tell where the domain lies, for which hundreds are enough."""


@dataclass(frozen=True)
class KeptFeatures:
    """Of n labelled images, all arrays in one order.

    features: float32 (n, d), what the head reads; labels: int64 (n,). weights: float64 (n,), how much each counts in
    solving for a head. target: bool (n,), whether it is of the domain that the model is for (others are of a source
    domain). groups: int64 (n,), images of one group are never on two sides of a split. digests: uint8 (n, 32), SHA-256
    of the encoded image. thumbnails: (n, t), statistics: (n, s), float32, as a yardstick has them.
    frozen: whether the network has never been trained on these images, so that heads that were fitted without some of
    them can be judged by these. balanced: whether every class weighs the same in solving. unlabelled: float32 (m, d),
    the features of some images of the target domain without labels; m may be 0.
    """

    features: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    target: np.ndarray
    groups: np.ndarray
    digests: np.ndarray
    thumbnails: np.ndarray
    statistics: np.ndarray
    frozen: bool
    balanced: bool
    unlabelled: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, index: np.ndarray) -> KeptFeatures:
        """The images at ``index``."""
        arrays: dict[str, Any] = {name: getattr(self, name)[index] for name in ARRAYS}
        return replace(self, **arrays)

    def bounded(self) -> KeptFeatures:
        """At most :data:`MOST_IMAGES` and :data:`MOST_BYTES` of them; every class keeps its share, and an image.

        That holds for any number of classes, as without an image a head forgets the class; of many classes features are
        small (:meth:`raytl.sources.SourceModel.reads_for`).
        """
        most = min(MOST_IMAGES, MOST_BYTES // max(1, 4 * self.features.shape[1]))
        most = max(most, len(np.unique(self.labels)))
        kept = spread_by_class(self.labels, most)
        return self if len(kept) == len(self) else self.subset(kept)

    def joined(self, other: KeptFeatures) -> KeptFeatures:
        """These and others; no group of one is a group of the other."""
        moved = replace(other, groups=other.groups + self.groups.max(initial=-1) + 1)
        arrays: dict[str, Any] = {name: np.concatenate([getattr(self, name), getattr(moved, name)]) for name in ARRAYS}
        return replace(self, **arrays)


def most_unlabelled(width: int) -> int:
    """How many images without labels are kept whose features have this width."""
    return min(MOST_UNLABELLED, MOST_UNLABELLED_BYTES // max(1, 4 * width))


ARRAYS = tuple(field.name for field in fields(KeptFeatures) if field.name not in ("frozen", "balanced", "unlabelled"))
