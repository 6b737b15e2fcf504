"""How often a model is right on images that nobody has labelled.

What a classifier says of its own certainty does not tell: under another light a logistic regression on pixels was right
in 15 % and sure of 99 %, and average confidence, difference of confidences and average thresholded confidence (Garg et
al., 2022) were all wrong by over 30 points on such shifts. So second opinions are asked (see ``second_opinions.py``).
Whether a prediction is right is learned from all of them, on images that the model was not trained on and on changed
versions of them (after Deng & Zheng, 2021), where it is known. On average over the unchanged ones it then says how many
of these are right; of others this holds the less the further they have moved. Images that have moved and are all given
the same few labels are right less often than each of them looks (see ``narrowing.py``). Where opinions lie as under a
change that was made, what was missed there counts too (see ``nearby.py``). How far the estimate can be off is learned
from kinds of change that were left out of the learning.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from raytl.evaluation.narrowing import alike, narrowing
from raytl.evaluation.nearby import LEAST_NEARBY, Nearby, fit_nearby

REDRAWN = 30
_NORMAL = 1.6449  # standard errors on either side of a 90 % interval
LEAST_TOGETHER = 20
"""Images that a share of right predictions is taken of, to see what an estimate of it is off by."""
FADES = 0.5
"""Standard deviations that opinions have moved by when a third is left of what unchanged images tell beside them."""
UNKNOWN_SLOPE = 0.15
"""What it came to at most on a dozen tasks; of a task of its own it is known the better the more kinds of change."""
_SLOPE_KINDS = 3
"""Kinds of change that tell as much as other tasks do: those left out are never quite as new as the world's."""
NARROWED_DOUBT = 0.3
"""What it varied by among eight tasks (standard deviation) that predictions lose by narrowing: log-odds for each
logarithm of how much more often they are the same."""
_NARROWED_PULL = 20.0
_PULL = 1.0
GAIN_DOUBT = 0.05
"""What a gain may be off by beside what few labelled images cost: about what it was in the median on pairs of models of
three tasks, as the images are and under shifts (0.06, with the chance that is in 300 images)."""


@dataclass(frozen=True)
class Estimate:
    """Estimated share of predictions that are right on some images, with a 90 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Correctness:
    """How probably a prediction is right, by opinions (n, d) of it. Made by :func:`fit_correctness`.

    centre, scale: (d,), the centre of unchanged images. coefficients: (1 + REDRAWN, 1 + d), the first of all images,
    the others of images drawn again; offsets: (1 + REDRAWN,), what is added to the log-odds of unchanged images. usual:
    share of right predictions on these; images: how many there were. slope: what the estimate is off by (standard
    error) beyond chance on kinds of change that were left out, by how far the opinions have moved. alike: share of
    pairs of predictions of unchanged images that are the same; narrowed: (1 + REDRAWN,), log-odds that are added by how
    much more often they are among images that have moved. nearby: log-odds that are added by where the opinions lie. A
    bundle of an older raytl knows none of the three: 1, zeros and nothing.
    """

    centre: np.ndarray
    scale: np.ndarray
    coefficients: np.ndarray
    offsets: np.ndarray
    usual: float
    images: int
    slope: float
    alike: float
    narrowed: np.ndarray
    nearby: Nearby

    def probabilities(self, opinions: np.ndarray) -> np.ndarray:
        """Of being right, (m,), each as among unchanged images."""
        return _logistic(_design(opinions, self.centre, self.scale) @ self.coefficients[0] + self.offsets[0])

    def estimate(self, opinions: np.ndarray, chosen: np.ndarray) -> Estimate:
        """Of the share of right predictions among these images; (0, 1) knows nothing where there are none.

        opinions: (m, d); chosen: (m,), the predicted labels. The interval has in it that the images are few, that the
        reference images were few (drawn again, and as if two more had been seen, one right and one wrong), what the
        estimate was off by on other kinds of change, and how little it tells that predictions are all the same.
        """
        m = len(opinions)
        if not m:
            return Estimate(float("nan"), 0.0, 1.0)
        design = _design(opinions, self.centre, self.scale)
        moved, narrow = _moved(design), _narrow(design, chosen, self.alike)
        added = self.offsets * _fading(moved) + self.narrowed * narrow + self.nearby.correction(design[:, 1:])
        shares = _logistic(design @ self.coefficients.T + added)
        means = shares.mean(axis=0)
        value = float(means[0])
        chance = _chance(shares[:, 0], float(means[1:].std()), self.usual, self.images)
        doubt = NARROWED_DOUBT * narrow * float((shares[:, 0] * (1 - shares[:, 0])).mean())
        error = float(np.sqrt(chance**2 + (self.slope * moved) ** 2 + doubt**2))
        return Estimate(value, max(0.0, value - _NORMAL * error), min(1.0, value + _NORMAL * error))

    @property
    def level_error(self) -> float:
        """Standard error of the log-odds of being right on average, as if two more had been seen, one of them right."""
        smoothed = (self.usual * self.images + 1) / (self.images + 2)
        return float(1 / np.sqrt(smoothed * (1 - smoothed) * (self.images + 2)))

    def renewed(self, opinions: np.ndarray, right: np.ndarray, chosen: np.ndarray) -> Correctness:
        """The same for a model that was changed a little, by what it says of unchanged images.

        opinions: (n, d), n >= 1; right: (n,) bool; chosen: (n,) predicted labels. What an opinion is worth beside
        another one is kept; all are moved alike until they are right on average.
        """
        centre, usual = opinions.mean(axis=0), float(right.mean())
        z = _design(opinions, centre, self.scale) @ self.coefficients[0]
        offsets = self.offsets - self.offsets[0] + _missing(z, right, np.ones(len(right)))
        return replace(self, centre=centre, offsets=offsets, usual=usual, images=len(right), alike=alike(chosen))


@dataclass(frozen=True)
class Gain:
    """How much more probably another prediction for an image is right, (m,), and what that may be off by, (m,)."""

    value: np.ndarray
    doubt: np.ndarray


def gain(before: np.ndarray, after: np.ndarray, errors: tuple[float, float]) -> Gain:
    """Of the second of two models over the first, on images for which they name different labels.

    before, after: (m,), of being right, each as if the other were not known; errors: :attr:`Correctness.level_error` of
    either. At most one of the two is right. So what is known of both is that one is right, or the other, or neither,
    and these are as probable as either says, apart from a factor. Where two models agree neither gains, whatever is
    said of them: an error that both estimates have in common does not count, and one's own can show on no more than the
    images in which they differ. Doubted is, at 90 %, how often either is right on average, which few labelled images
    do not tell, and :data:`GAIN_DOUBT` of the rest.
    """
    first, second, neither = before * (1 - after), after * (1 - before), (1 - before) * (1 - after)
    total = np.maximum(first + second + neither, 1e-12)
    first, second = first / total, second / total
    value = second - first
    # By the log-odds of either: what the gain changes by where all of a model's move alike.
    moved = np.hypot(errors[0] * first * (1 + value), errors[1] * second * (1 - value))
    return Gain(value, GAIN_DOUBT + _NORMAL * moved)


def fit_correctness(
    opinions: np.ndarray,
    right: np.ndarray,
    images: np.ndarray,
    kinds: np.ndarray,
    groups: np.ndarray,
    chosen: np.ndarray,
    *,
    seed: int = 0,
) -> Correctness:
    """Learn whether predictions are right.

    opinions: (n, d); right: (n,) bool; images: (n,) of which image each is a version. kinds: (n,) which kind of
    change was made, "" for none; groups: (n,) number of the kind and strength, whose accuracy is estimated together;
    chosen: (n,) predicted labels. Raises ValueError without unchanged images.
    """
    plain = kinds == ""
    if not plain.any():
        raise ValueError("whether predictions are right is learned from unchanged images, too")
    centre, scale = opinions[plain].mean(axis=0), opinions.std(axis=0) + 1e-6
    design = _design(opinions, centre, scale)
    # Unchanged images are what mostly comes: as a whole they count as much as all the changed ones of a kind.
    per_kind = max((int((kinds == kind).sum()) for kind in np.unique(kinds[~plain])), default=1)
    weights = np.where(plain, max(1.0, per_kind / plain.sum()), 1.0)
    usual_alike = alike(chosen[plain])
    changed = np.unique(kinds[~plain])
    together = [rows for kind in changed for rows in _together(kinds == kind, groups, LEAST_TOGETHER)]
    close = [rows for kind in changed for rows in _together(kinds == kind, groups, LEAST_NEARBY)]
    # Of each image: what its group has in common. Those in no group are alone, and nothing narrows there.
    narrow, fading = np.zeros(len(right)), np.ones(len(right))
    for rows in together:
        narrow[rows] = _narrow(design[rows], chosen[rows], usual_alike)
        fading[rows] = _fading(_moved(design[rows]))

    def learn(weights: np.ndarray, start: np.ndarray | None) -> tuple[np.ndarray, float, float]:
        w = _solve(design, right, weights, start)
        z = design @ w
        offset = _missing(z[plain], right[plain], weights[plain])
        return w, offset, _solve_narrowed(z + offset * fading, narrow, right, np.where(plain, 0.0, weights))

    def said(rows: np.ndarray, w: np.ndarray, offset: float, added: float) -> np.ndarray:
        """Log-odds of the images of a group."""
        part = design[rows]
        shift = offset * _fading(_moved(part)) + added * _narrow(part, chosen[rows], usual_alike)
        return np.asarray(part @ w + shift)

    def missed_nearby(without: str, w: np.ndarray, offset: float, added: float) -> Nearby:
        known = [rows for rows in close if kinds[rows][0] != without]
        changes = [(design[rows][:, 1:], said(rows, w, offset, added), right[rows]) for rows in known]
        return fit_nearby(design[plain][:, 1:], changes)

    drawn = [learn(weights, None)]
    start = drawn[0][0]
    rng = np.random.default_rng(seed)
    names, members = np.unique(images, return_inverse=True)
    seen = np.unique(members[plain])
    for _ in range(REDRAWN):
        again = np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))
        again[seen[0]] += not again[seen].any()  # without any unchanged image nothing could be learned
        drawn.append(learn(weights * again[members], start))
    coefficients, offsets, narrowed = (np.array(column) for column in zip(*drawn, strict=True))
    usual, count = float(right[plain].mean()), int(plain.sum())
    missed, moved, met = [], [], set()
    for kind in changed:
        learned = learn(np.where(kinds == kind, 0.0, weights), start)
        nearby = missed_nearby(kind, *learned)
        for rows in (rows for rows in together if kinds[rows][0] == kind):
            shares = _logistic(said(rows, *learned) + nearby.correction(design[rows][:, 1:]))
            # That the images are few is no reason for a miss here: the changed ones are the same as the unchanged.
            missed.append((float(shares.mean()) - float(right[rows].mean())) ** 2 - _sampling(shares))
            moved.append(_moved(design[rows]))
            met.add(kind)
    slope = _slope(_beyond_chance(np.array(missed), np.array(moved)) if missed else 0.0, len(met))
    nearby = missed_nearby("", *drawn[0])
    return Correctness(centre, scale, coefficients, offsets, usual, count, slope, usual_alike, narrowed, nearby)


def _together(kind: np.ndarray, groups: np.ndarray, least: int) -> list[np.ndarray]:
    """Rows of one kind of change by its groups; all as one where these are too small for a share to say anything."""
    parts = [kind & (groups == group) for group in np.unique(groups[kind])]
    if min(int(part.sum()) for part in parts) >= least:
        return parts
    return [kind] if kind.sum() >= least else []


def _moved(design: np.ndarray) -> float:
    """How far opinions are on average from those of unchanged images, in standard deviations."""
    return float(np.sqrt((design[:, 1:].mean(axis=0) ** 2).mean()))


def _fading(moved: float) -> float:
    """What is left of the offset."""
    return float(np.exp(-moved / FADES))


def _narrow(design: np.ndarray, chosen: np.ndarray, usual: float) -> float:
    """How much predictions have narrowed, as far as that is no question of the classes' frequencies.

    usual: share of pairs that are alike.
    """
    return min(1.0, _moved(design)) * narrowing(chosen, usual)


def _slope(own: float, kinds: int) -> float:
    """Of the error by how far opinions have moved, from so many kinds of change and from other tasks."""
    return float(np.sqrt((kinds * own**2 + _SLOPE_KINDS * UNKNOWN_SLOPE**2) / (kinds + _SLOPE_KINDS)))


def _beyond_chance(squares: np.ndarray, moved: np.ndarray) -> float:
    """Slope of the error beyond chance, by least squares: its variance is (slope · moved)², 0 where nothing moved.

    squares: (g,) of errors less the variance by chance, which leaves negative ones, too; moved: (g,).
    """
    return float(np.sqrt(max(0.0, float(squares @ moved**2)) / max(1e-12, float((moved**4).sum()))))


def _chance(shares: np.ndarray, own: float, usual: float, count: int) -> float:
    """Standard error for there being few images, and few that all was learned from."""
    smoothed = (usual * count + 1) / (count + 2)
    few = max(own**2, smoothed * (1 - smoothed) / (count + 2))
    return float(np.sqrt(_sampling(shares) + few))


def _sampling(shares: np.ndarray) -> float:
    """Variance of the share of right ones among images that are each right with these probabilities."""
    return float((shares * (1 - shares)).mean()) / len(shares)


def _missing(z: np.ndarray, right: np.ndarray, weights: np.ndarray) -> float:
    """What is to be added to these log-odds (n,) for them to be right on average, with one image more, half right."""
    total = float(weights.sum())
    wanted = (float(weights @ right) / total * len(right) + 0.5) / (len(right) + 1)
    low, high = -30.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if weights @ _logistic(z + middle) < wanted * total else (low, middle)
    return low


def _logistic(z: np.ndarray) -> np.ndarray:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(z, -30, 30))))


def _design(opinions: np.ndarray, centre: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Opinions and a constant, (n, 1 + d); far from all that was seen they stay what they are at three deviations.

    No products: of a few dozen images the way in which opinions depend on each other is not learned.
    """
    z = np.clip((opinions - centre) / scale, -3, 3)
    return np.concatenate([np.ones((len(z), 1)), z], axis=1)


def _solve_narrowed(z: np.ndarray, narrow: np.ndarray, right: np.ndarray, weights: np.ndarray) -> float:
    """Log-odds to be added to these (n,) by how narrow predictions are (n,), with a pull to 0.

    None above it: that changes of one task left the right ones of its labels is no promise for others.
    """
    added = 0.0
    for _ in range(25):
        p = _logistic(z + added * narrow)
        slope = float((weights * narrow) @ (p - right)) + _NARROWED_PULL * added
        step = slope / (float((weights * narrow**2) @ (p * (1 - p))) + _NARROWED_PULL)
        added -= step
        if abs(step) < 1e-5:
            break
    return min(0.0, added)


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
