"""How often a model is right on images that nobody has labelled.

What a classifier says of its own certainty does not tell: under another light a logistic regression on pixels was right
in 15 % and sure of 99 %, and average confidence, difference of confidences and average thresholded confidence (Garg et
al., 2022) were all wrong by over 30 points on such shifts. So a second opinion is asked: of the labels of those images
that look most alike. Whether a prediction is right is learned from both, on images that the model was not trained on
and on changed versions of them (after Deng & Zheng, 2021), where it is known. How far the estimate can be off is
learned from kinds of change that were left out of the learning.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

NEIGHBOURS = 5
REDRAWN = 30
LEVEL = 0.9
_NORMAL = 1.6449  # standard errors on either side of a 90 % interval
LEAST_TOGETHER = 20
"""Images that a share of right predictions is taken of, to see what an estimate of it is off by."""
_SLOPES = np.linspace(0.0, 1.5, 16)
_PULL = 1.0
_CELLS = 4_000_000


@dataclass(frozen=True)
class Estimate:
    """Estimated share of predictions that are right on some images, with a 90 % interval."""

    value: float
    low: float
    high: float


def opinions(
    probabilities: np.ndarray,
    chosen: np.ndarray,
    thumbnails: np.ndarray,
    known: np.ndarray,
    known_labels: np.ndarray,
) -> np.ndarray:
    """Of each image (m, 3): log-odds of the chosen label, log distance to what looks alike, how much of it agrees.

    probabilities: (m, k); chosen: (m,) predicted labels; thumbnails: (m, d); known: (n, d) thumbnails of labelled
    images with known_labels (n,), none of which the images are or were changed from.
    """
    p = np.clip(probabilities[np.arange(len(chosen)), chosen].astype(np.float64), 1e-6, 1 - 1e-4)
    count = min(NEIGHBOURS, len(known))
    distance, agreeing = np.ones(len(chosen)), np.zeros(len(chosen))
    shapes = known - known.mean(axis=1, keepdims=True)
    step = max(1, _CELLS // max(1, known.size))
    for start in range(0, len(chosen), step):
        rows = slice(start, start + step)
        asked = thumbnails[rows].astype(np.float64)
        apart = _squares(asked, known)
        alike = _squares(asked - asked.mean(axis=1, keepdims=True), shapes)  # whatever the light
        distance[rows] = np.sqrt(np.partition(apart, count - 1, axis=1)[:, :count].mean(axis=1))
        nearest = np.argpartition(alike, count - 1, axis=1)[:, :count]
        agreeing[rows] = (known_labels[nearest] == chosen[rows, None]).mean(axis=1)
    return np.stack([np.log(p / (1 - p)), np.log(distance + 1e-3), agreeing], axis=1)


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean squared differences (m, n)."""
    found = (a**2).mean(1)[:, None] + (b**2).mean(1)[None, :] - 2 * (a @ b.T) / a.shape[1]
    return np.asarray(np.maximum(found, 0.0))


@dataclass(frozen=True)
class Correctness:
    """How probably a prediction is right, by :func:`opinions`. Made by :func:`fit_correctness`.

    centre, scale: (3,). coefficients: (1 + REDRAWN, f), the first of all images, the others of images drawn again.
    usual: share of right predictions on unchanged images; images: how many of these there were. offset, slope: what
    the estimate is off by (standard error) on kinds of change that were left out, beyond chance: an offset, and a share
    of the fall in accuracy that was estimated.
    """

    centre: np.ndarray
    scale: np.ndarray
    coefficients: np.ndarray
    usual: float
    images: int
    offset: float
    slope: float

    def probabilities(self, opinions: np.ndarray) -> np.ndarray:
        """Of being right, (m,)."""
        return _logistic(_design(opinions, self.centre, self.scale) @ self.coefficients[0])

    def estimate(self, opinions: np.ndarray) -> Estimate:
        """Of the share of right predictions among these images; (0, 1) knows nothing where there are none.

        The interval has in it that the images are few, that the reference images were few (drawn again, and as if two
        more had been seen, one right and one wrong), and what the estimate was off by on other kinds of change.
        """
        m = len(opinions)
        if not m:
            return Estimate(float("nan"), 0.0, 1.0)
        shares = _logistic(_design(opinions, self.centre, self.scale) @ self.coefficients.T)
        means = shares.mean(axis=0)
        value = float(means[0])
        chance = _chance(shares[:, 0], float(means[1:].std()), self.usual, self.images)
        error = float(np.hypot(chance, np.hypot(self.offset, self.slope * max(0.0, self.usual - value))))
        return Estimate(value, max(0.0, value - _NORMAL * error), min(1.0, value + _NORMAL * error))

    def renewed(self, opinions: np.ndarray, right: np.ndarray) -> Correctness:
        """The same for a model that was changed a little, by what it says of unchanged images.

        opinions: (n, 3), n >= 1; right: (n,) bool. What an opinion is worth beside another one is kept; all are moved
        alike until they are right on average.
        """
        usual = float(right.mean())
        wanted = (usual * len(right) + 1) / (len(right) + 2)
        z = _design(opinions, self.centre, self.scale) @ self.coefficients[0]
        low, high = -30.0, 30.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if _logistic(z + middle).mean() < wanted else (low, middle)
        coefficients = self.coefficients.copy()
        coefficients[:, 0] += low
        return replace(self, coefficients=coefficients, usual=usual, images=len(right))


def fit_correctness(
    opinions: np.ndarray, right: np.ndarray, images: np.ndarray, kinds: np.ndarray, groups: np.ndarray, seed: int = 0
) -> Correctness:
    """Learn whether predictions are right.

    opinions: (n, 3); right: (n,) bool; images: (n,) of which image each is a version. kinds: (n,) which kind of
    change was made, "" for none; groups: (n,) number of the kind and strength, whose accuracy is estimated together.
    Raises ValueError without unchanged images.
    """
    plain = kinds == ""
    if not plain.any():
        raise ValueError("whether predictions are right is learned from unchanged images, too")
    centre, scale = opinions.mean(axis=0), opinions.std(axis=0) + 1e-6
    design = _design(opinions, centre, scale)
    # Unchanged images are what mostly comes: as a whole they count as much as all the changed ones of a kind.
    per_kind = max((int((kinds == kind).sum()) for kind in np.unique(kinds[~plain])), default=1)
    weights = np.where(plain, max(1.0, per_kind / plain.sum()), 1.0)
    start = _solve(design, right, weights)
    rng = np.random.default_rng(seed)
    drawn = [start]
    names, members = np.unique(images, return_inverse=True)
    for _ in range(REDRAWN):
        again = np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))[members]
        drawn.append(_solve(design, right, weights * again, start))
    usual, count = float(right[plain].mean()), int(plain.sum())
    own = float((_logistic(design[plain] @ np.stack(drawn[1:]).T).mean(axis=0)).std())
    missed, falls = [], []
    for kind in np.unique(kinds[~plain]):
        left_out = kinds == kind
        coefficients = _solve(design[~left_out], right[~left_out], weights[~left_out], start)
        for rows in _together(left_out, groups):
            shares = _logistic(design[rows] @ coefficients)
            miss = (float(shares.mean()) - float(right[rows].mean())) / _NORMAL
            missed.append(miss**2 - _chance(shares, own, usual, count) ** 2)
            falls.append(max(0.0, usual - float(shares.mean())))
    offset, slope = _beyond_chance(np.array(missed), np.array(falls)) if missed else (0.1, 1.0)
    return Correctness(centre, scale, np.stack(drawn), usual, count, offset, slope)


def _together(kind: np.ndarray, groups: np.ndarray) -> list[np.ndarray]:
    """Rows of one kind of change by its groups; all as one where these are too small for a share to say anything."""
    parts = [kind & (groups == group) for group in np.unique(groups[kind])]
    if min(int(part.sum()) for part in parts) >= LEAST_TOGETHER:
        return parts
    return [kind] if kind.sum() >= LEAST_TOGETHER else []


def _beyond_chance(squares: np.ndarray, falls: np.ndarray) -> tuple[float, float]:
    """Offset and slope of an error that is enough in 90 % of the groups, and of these the least on the whole.

    squares: (g,) of errors beyond chance, negative where chance explains them; falls: (g,) estimated.
    """
    # With few groups the rank beyond the last one is the last one: the largest miss that was seen.
    rank = min(len(squares), math.ceil((len(squares) + 1) * LEVEL)) - 1
    found = []
    for slope in _SLOPES:
        offset = np.sqrt(np.sort(np.maximum(0.0, squares - (slope * falls) ** 2))[rank])
        found.append((float(np.hypot(offset, slope * falls).mean()), float(offset), float(slope)))
    _, offset, slope = min(found)
    return offset, slope


def _chance(shares: np.ndarray, own: float, usual: float, count: int) -> float:
    """Standard error for there being few images, and few that all was learned from."""
    sampling = float((shares * (1 - shares)).mean()) / len(shares)
    smoothed = (usual * count + 1) / (count + 2)
    few = max(own**2, smoothed * (1 - smoothed) / (count + 2))
    return float(np.sqrt(sampling + few))


def _logistic(z: np.ndarray) -> np.ndarray:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(z, -30, 30))))


def _design(opinions: np.ndarray, centre: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """A quadratic form of the opinions, (n, 10); far from all that was seen it stays what it is at three deviations."""
    z = np.clip((opinions - centre) / scale, -3, 3)
    pairs = [z[:, i] * z[:, j] for i in range(z.shape[1]) for j in range(i + 1)]
    return np.concatenate([np.ones((len(z), 1)), z, np.stack(pairs, axis=1)], axis=1)


def _solve(design: np.ndarray, right: np.ndarray, weights: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
    """Logistic regression with a pull to 0 of all but the constant, by Newton's method."""
    width = design.shape[1]
    pull = np.full(width, _PULL)
    pull[0] = 1e-3
    w = np.zeros(width) if start is None else start.copy()
    for _ in range(25):
        p = _logistic(design @ w)
        slope = design.T @ (weights * (p - right)) + pull * w
        curve = (design * (weights * np.maximum(p * (1 - p), 1e-4))[:, None]).T @ design + np.diag(pull)
        step = np.linalg.solve(curve, slope)
        w = w - step
        if np.abs(step).max() < 1e-5:
            break
    return w
