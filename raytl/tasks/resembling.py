"""Which of several sets of images looks most like another, by thumbnails: a first guess that takes no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from raytl.tasks.survey import Facts

_MOST = 300  # images of each side: as many of every set, for the larger one would have the nearer neighbours


def resemblance(images: Sequence[Facts], sets: Mapping[str, Sequence[Facts]]) -> dict[str, float]:
    """The share of the images whose nearest neighbour among all sets is in each; sets with the same one share it.

    Near is what correlates, whether or not dark and bright are exchanged. It fails where the images are so small or
    blurred that they show little: 8x8 digits at half their size look like textures.
    """
    if not images or not all(sets.values()):
        return dict.fromkeys(sets, 0.0)
    count = min(_MOST, *(len(facts) for facts in sets.values()))
    mine = _drawn(images, _MOST)
    nearest = np.stack([np.abs(mine @ _drawn(facts, count).T).max(axis=1) for facts in sets.values()])
    first = nearest >= nearest.max(axis=0) - 1e-9
    votes = (first / first.sum(axis=0)).mean(axis=1)
    return dict(zip(sets, votes.tolist(), strict=True))


def _drawn(facts: Sequence[Facts], count: int) -> np.ndarray:
    """Thumbnails (n, pixels) without their mean, of length one; of the same images each time."""
    chosen = np.random.default_rng(0).permutation(len(facts))[:count]
    rows = np.stack([facts[index].thumbnail.ravel() for index in chosen]).astype(np.float64)
    rows -= rows.mean(axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9))
