"""Whether new images are of another kind than those a model was made with: a two-sample test of a stated level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MOST_ALARMS = 1 / 30
"""How many windows of unchanged images raise an alarm at most, in nine of ten endpoints or more."""
ALARM = MOST_ALARMS / 10
"""Level of the test. All windows of an endpoint are compared with the same few images, and may overlap: where these
happen to be unusual, far more than this share of them raise an alarm. But it is this share on average over what the
images may have been, so that by Markov's inequality at most one endpoint in ten has ten times as many."""
ROUNDS = 599
MOST = 500
"""Images of a side that are compared at most: the test costs the square of them."""


@dataclass(frozen=True)
class Drift:
    """Whether the images differ.

    p: how often images of the same kind differ as much, in (0, 1]. alarm: whether that is at most :data:`ALARM`.
    images: new ones that were compared, copies not counted.
    """

    p: float
    alarm: bool
    images: int


def drift_test(
    reference: np.ndarray,
    window: np.ndarray,
    strata: tuple[np.ndarray, np.ndarray] | None = None,
    *,
    level: float = ALARM,
    seed: int = 0,
) -> Drift | None:
    """Compare descriptions of images by the maximum mean discrepancy (Gretton et al., 2012), its level by permutation.

    reference: (n, d); window: (m, d). strata: a number for each, such as the predicted class: only images of the same
    number are exchanged, so that other class frequencies alone are no drift. The level then holds for any n, m and
    descriptions, as long as the two were drawn alike within strata. Blind to what the descriptions do not show.
    Images that are described alike to the last bit are one and the same, and count once: sent again and again, one says
    no more of the others than it did.
    None where either side has fewer than two images, or no stratum has images of both.
    """
    rng = np.random.default_rng(seed)
    once = [_once(side) for side in (reference, window)]
    kept = [index[_some(len(index), rng)] for index in once]
    reference, window = reference[kept[0]], window[kept[1]]
    n, m = len(reference), len(window)
    if min(n, m) < 2:
        return None
    numbers = np.zeros(n + m, dtype=np.int64)
    if strata is not None:
        numbers = np.concatenate([strata[0][kept[0]], strata[1][kept[1]]])
    is_new = np.arange(n + m) >= n
    both = [number for number in np.unique(numbers) if 0 < is_new[numbers == number].mean() < 1]
    if not both:
        return None
    among = np.isin(numbers, both)
    kernel = _kernel(np.concatenate([reference, window])[among])
    numbers, is_new = numbers[among], is_new[among]
    members = [np.flatnonzero(numbers == number) for number in both]
    sides = np.empty((ROUNDS + 1, len(is_new)))
    total = sum(int(is_new[index].sum()) for index in members)
    for index in members:
        drawn = np.repeat(is_new[index][None], ROUNDS + 1, axis=0)
        drawn[1:] = rng.permuted(drawn[1:], axis=1)
        new = int(drawn[0].sum())
        # The discrepancy within strata, each of which counts by its number of new images.
        sides[:, index] = np.where(drawn, 1 / total, -new / total / (len(index) - new))
    distances = ((sides @ kernel) * sides).sum(axis=1)
    p = float((distances >= distances[0] - 1e-12).mean())
    return Drift(p, p <= level, m)


def _kernel(rows: np.ndarray) -> np.ndarray:
    """Gaussian kernel on standardised descriptions, as wide as their median distance (of all images: no side's own)."""
    rows = rows.astype(np.float64)
    scale = rows.std(axis=0)
    rows = (rows - rows.mean(axis=0)) / np.where(scale > 1e-9, scale, 1.0)
    squares = (rows**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * rows @ rows.T, 0.0)
    usual = float(np.median(distances[np.triu_indices(len(rows), 1)])) or 1.0
    return np.asarray(np.exp(-distances / usual))


def _once(rows: np.ndarray) -> np.ndarray:
    """The first of each of the different rows (n, d), in order."""
    return np.sort(np.unique(rows, axis=0, return_index=True)[1])


def _some(count: int, rng: np.random.Generator) -> np.ndarray:
    return np.arange(count) if count <= MOST else np.sort(rng.choice(count, MOST, replace=False))
