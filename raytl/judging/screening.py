"""What a strategy promises by one fold of few labelled images, helped by what was seen on many without labels."""

from __future__ import annotations

import numpy as np

LEAST = 8
"""Strategies that a relation between the two kinds of evidence is learned from; with fewer it is not."""


def posterior_means(direct: np.ndarray, images: np.ndarray, unlabelled: np.ndarray | None) -> np.ndarray:
    """Expected performance (m,) of m strategies: Fay and Herriot's small-area estimate (1979), higher is better.

    direct: what was measured on the labelled images (m,), in [0, 1] or near it; images: how many there were (m,).
    unlabelled: a score of the same strategies without labels (m,), None where there is none; NaN of single ones that
    were not looked at, which are taken for usual.

    Each direct figure is off by its sampling error. The strategies' true figures are taken to follow a line in the
    unlabelled score, with a scatter of their own that the data tell; each estimate lies between line and direct figure,
    nearer to the figure the more labelled images there were and the looser the relation is. Where the unlabelled score
    has not been telling (a slope of zero or below, as where it rewards the wrong thing) it has no say: the line is
    flat, and the order is that of the direct figures. So it counts as far as labels have confirmed it.
    """
    if unlabelled is None or np.isfinite(unlabelled).sum() < LEAST:
        return np.asarray(direct, dtype=np.float64)
    x = np.nan_to_num(unlabelled - unlabelled[np.isfinite(unlabelled)].mean())
    level = float(np.clip(direct.mean(), 0.05, 0.95))
    error = np.maximum(level * (1 - level) / images, 1e-6)
    scatter = _scatter(direct, x, error)
    weight = 1 / (scatter + error)
    slope, middle = _line(direct, x, weight)
    line = middle + slope * x
    share = scatter / (scatter + error)
    return np.asarray(share * direct + (1 - share) * line)


def _line(y: np.ndarray, x: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Slope, at least 0 and pulled towards it by its own uncertainty, and height at x = 0."""
    centre = float(np.average(x, weights=weight))
    middle = float(np.average(y, weights=weight))
    spread = float((weight * (x - centre) ** 2).sum())
    if spread <= 1e-12:
        return 0.0, middle
    slope = float((weight * (x - centre) * (y - middle)).sum()) / spread
    # One standard error below: a relation that the labels have hardly shown hardly counts.
    slope = max(0.0, slope - spread**-0.5)
    return slope, middle - slope * centre


def _scatter(y: np.ndarray, x: np.ndarray, error: np.ndarray) -> float:
    """Variance of the true figures about the line, by moments (Prasad and Rao, 1990); at least a tenth of the error's.

    Estimated as zero it would leave nothing of what the labels say of a single strategy.
    """
    design = np.stack([np.ones_like(x), x], axis=1)
    hat = design @ np.linalg.pinv(design)
    residual = y - hat @ y
    left = max(1, len(y) - int(np.linalg.matrix_rank(design)))
    explained = float(((1 - np.diag(hat)) * error).sum())
    return max((float(residual @ residual) - explained) / left, 0.1 * float(error.mean()))
