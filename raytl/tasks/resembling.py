"""Which of several sets of images looks most like another, by thumbnails: a first guess that takes no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from raytl.tasks.survey import THUMBNAIL, Facts

_MOST = 300  # images of each side: as many of every set, for the larger one would have the nearer neighbours
_SIDES = (4, 8, THUMBNAIL)
_DETAIL = 0.9  # of a thumbnail's variance, what has to be left of it at a side that still shows what it shows


def resemblance(images: Sequence[Facts], sets: Mapping[str, Sequence[Facts]]) -> dict[str, float]:
    """The share of the images whose nearest neighbour among all sets is in each; sets with the same one share it.

    Near is what correlates, whether or not dark and bright are exchanged, at as many pixels as the least detailed of
    them fill: what is small or blurred is else nearest to whatever is smooth, whatever it shows.
    """
    if not images or not all(sets.values()):
        return dict.fromkeys(sets, 0.0)
    count = min(_MOST, *(len(facts) for facts in sets.values()))
    mine, others = _drawn(images, _MOST), [_drawn(facts, count) for facts in sets.values()]
    side = min(_detail(thumbnails) for thumbnails in (mine, *others))
    rows = _rows(mine, side)
    nearest = np.stack([np.abs(rows @ _rows(thumbnails, side).T).max(axis=1) for thumbnails in others])
    first = nearest >= nearest.max(axis=0) - 1e-9
    votes = (first / first.sum(axis=0)).mean(axis=1)
    return dict(zip(sets, votes.tolist(), strict=True))


def _drawn(facts: Sequence[Facts], count: int) -> np.ndarray:
    """Thumbnails (n, 16, 16) of the same images each time."""
    chosen = np.random.default_rng(0).permutation(len(facts))[:count]
    return np.stack([facts[index].thumbnail for index in chosen])


def _detail(thumbnails: np.ndarray) -> int:
    """The smallest side at which most of these are still what they are: of 4 pixels scaled up it is 4."""
    for side in _SIDES[:-1]:
        left = [_left_at(side, thumbnail) for thumbnail in thumbnails if thumbnail.std() > 1]
        if left and np.median(left) >= _DETAIL:
            return side
    return THUMBNAIL


def _left_at(side: int, thumbnail: np.ndarray) -> float:
    """The share of a thumbnail's variance that is left when it is scaled down and up again."""
    small = Image.fromarray(thumbnail).resize((side, side), Image.Resampling.BOX)
    again = np.asarray(small.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BICUBIC), dtype=np.float64)
    return float(1 - np.mean((thumbnail - again) ** 2) / np.var(thumbnail, dtype=np.float64))


def _rows(thumbnails: np.ndarray, side: int) -> np.ndarray:
    """Rows (n, side * side) without their mean, of length one."""
    block = THUMBNAIL // side
    means = thumbnails.reshape(-1, side, block, side, block).mean(axis=(2, 4))
    rows = means.reshape(len(thumbnails), side * side)
    rows = rows - rows.mean(axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9))
