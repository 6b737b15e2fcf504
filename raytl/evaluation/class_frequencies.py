"""How frequent the classes are among unlabelled images, from a model's predictions; labels need not be drawn fairly.

The estimates assume label shift: that images of a class look alike in both domains and only the classes' frequencies
differ. Where the images differ too they are wrong by any amount, so :func:`estimate_frequencies` also tests that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize, nnls
from scipy.special import chdtri, log_softmax, logsumexp, ndtri, stdtrit

_SMALLEST = 1e-12
_STEPS = 2000
_CHANGE = 1e-8
_CONTRADICTION = 3.0
"""Standard errors by which the labels' shares must differ from the images' before they are not believed."""

_PULL = 10.0
"""Items' worth of a prior towards no correction of bias and temperature (log), of variance 1."""

_PER_UNEXPLAINED = 2.0
"""Share of images that an estimate is off by, for each share of the predictions that frequencies do not explain."""

_WIDE = 0.5
"""Mean half-width of the ranges over the classes' mean frequency, from which on an estimate tells nothing."""

_TELLS_APART = 0.5
"""Mean recall, from chance (0) to certainty (1), below which predictions say too little of what is in front of them.

A weak predictor's few held-out errors decide everything: on photographs with 20 labels of each of two classes, told
apart in 3 of 5 cases, the estimate was that one of them does not occur.
"""

_LEAST_LABELS = 5
"""Held-out images, or groups of them, of every class: with four a range held the truth in eight of ten cases."""

_REDRAWN = 2000
"""Unlabelled images redrawn at most in each round: from there on the held-out images are what limits."""


def em_frequencies(
    probabilities: np.ndarray, source_frequencies: np.ndarray, *, prior_counts: np.ndarray | None = None
) -> np.ndarray:
    """Class frequencies (k,) of unlabelled images that make their predictions most likely (Saerens et al., 2002).

    probabilities: (m, k) of a calibrated model, see :func:`fit_bias_correction`; source_frequencies: (k,) of the
    classes in the model's eyes: the mean of its calibrated predictions on held-out source images, or the shares of its
    training labels. prior_counts: (k,) >= 0, images of known class drawn as the unlabelled ones were (a Dirichlet
    prior). A class that the source does not have gets frequency 0. The likelihood is concave: the start is no matter.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    source = np.asarray(source_frequencies, dtype=np.float64)
    counts = np.zeros(p.shape[1]) if prior_counts is None else np.asarray(prior_counts, dtype=np.float64)
    if p.ndim != 2 or source.shape != p.shape[1:] or counts.shape != source.shape:
        raise ValueError(f"probabilities {p.shape}, frequencies {source.shape}, counts {counts.shape} do not fit")
    if (source < 0).any() or not source.any() or (counts < 0).any() or not len(p):
        raise ValueError("frequencies and counts must be at least 0 and not all 0, and there must be an image")
    known = source > 0
    ratio = np.where(known, p / np.where(known, source, 1.0), 0.0) + _SMALLEST * known
    frequencies = source / source.sum()
    for _ in range(_STEPS):
        posterior = ratio * frequencies
        posterior /= posterior.sum(axis=1, keepdims=True)
        renewed = (posterior.sum(axis=0) + counts) / (len(p) + counts.sum())
        change = np.abs(renewed - frequencies).max()
        frequencies = renewed
        if change < _CHANGE:
            break
    return np.asarray(frequencies)


def bbse_frequencies(confusion: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Class frequencies (k,) that explain how often each class is predicted (Lipton et al., 2018).

    confusion: (k, k) on held-out source images, rows the true class and columns the predicted one, counts or shares;
    predicted: (k,) shares of the predictions on the unlabelled images. The class weights (target over source frequency)
    are pulled towards 1 by 1 / (k n) of the n counts, about the confusion's own error, times their squared distance
    (Azizzadenesheli et al., 2019: RLLS), and kept at or above 0.
    """
    table, shares = np.asarray(confusion, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    k = len(shares)
    if table.shape != (k, k) or table.sum() <= 0 or shares.sum() <= 0:
        raise ValueError(f"confusion {table.shape} and predicted shares {shares.shape} do not fit, or are empty")
    total = table.sum()
    pull = math.sqrt(1.0 / (k * max(total, 1.0)))
    joint, source = table.T / total, table.sum(axis=1) / total
    left = np.vstack([joint, pull * np.eye(k)])
    right = np.r_[shares / shares.sum(), np.full(k, pull)]
    frequencies = nnls(left, right)[0] * source
    return np.asarray(frequencies / frequencies.sum()) if frequencies.sum() > 0 else source


@dataclass(frozen=True)
class BiasCorrection:
    """A temperature > 0 and a bias (k,) for each class's logit."""

    temperature: float
    bias: np.ndarray

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        """Calibrated probabilities (m, k)."""
        return np.asarray(np.exp(log_softmax(_logs(probabilities) / self.temperature + self.bias, axis=1)))


def fit_bias_correction(probabilities: np.ndarray, labels: np.ndarray) -> BiasCorrection:
    """Bias-corrected temperature scaling (Alexandari et al., 2020) on items that did not train the model.

    probabilities: (n, k); labels: (n,). Temperature scaling alone leaves classes over- or understated, and that is
    just what frequencies are read from. A pull towards no correction keeps few items, or none of a class, from asking
    for an infinite one.
    """
    logs, n = _logs(probabilities), len(labels)
    k = logs.shape[1]
    hot = np.eye(k)[labels]

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        z = logs * math.exp(x[0]) + x[1:]
        p = np.exp(log_softmax(z, axis=1))
        value = (logsumexp(z, axis=1) - (z * hot).sum(axis=1)).sum() + 0.5 * _PULL * (x @ x)
        inner = ((p - hot) * logs).sum() * math.exp(x[0])
        return float(value) / n, (np.r_[inner, (p - hot).sum(axis=0)] + _PULL * x) / n

    bounds = [(-3.0, 3.0)] + [(-8.0, 8.0)] * k
    best = minimize(loss, np.zeros(k + 1), jac=True, method="L-BFGS-B", bounds=bounds).x
    return BiasCorrection(math.exp(-best[0]), best[1:])


@dataclass(frozen=True)
class Frequencies:
    """Estimated class frequencies of the unlabelled images.

    frequencies, low, high: (k,), each range meant to hold the truth in nine of ten cases. wider: (k,), by how much more
    on either side all of them together are. reliable: nothing speaks against the estimate, there are labels enough of
    every class, and the ranges are narrow enough to tell something.
    """

    frequencies: np.ndarray
    low: np.ndarray
    high: np.ndarray
    wider: np.ndarray
    reliable: bool

    def furthest_from(self, shares: np.ndarray) -> tuple[int, float, float] | None:
        """The class that is furthest from its share (k,), and its range; None where none is known to differ.

        The class that stands out of many is the one that the estimate is most wrong about: its range is one that holds
        whichever class is named in nine of ten cases (Bonferroni).
        """
        low, high = np.maximum(0.0, self.low - self.wider), np.minimum(1.0, self.high + self.wider)
        beyond = np.maximum(low - shares, shares - high)
        if beyond.max() <= 0:
            return None
        differing = np.where(beyond > 0, np.abs(self.frequencies - shares), -1.0)
        found = int(differing.argmax())
        return found, float(low[found]), float(high[found])


def estimate_frequencies(
    unlabelled: np.ndarray,
    held_out: np.ndarray,
    held_out_labels: np.ndarray,
    *,
    target_counts: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    seed: int = 0,
    rounds: int = 50,
) -> Frequencies:
    """Class frequencies of unlabelled images, their uncertainty, and whether they can be relied on.

    unlabelled: (m, k) probabilities; held_out: (n, k) of the same (kind of) model for labelled images of the
    target that it did not train on, both before or both after any temperature; rows of NaN are left out.
    held_out_labels: (n,). How often each class occurs among them is no matter, only how it is predicted.
    groups: (n,) of the held-out images or None; those of one group are redrawn together.

    target_counts: (k,) labels of the target. Nobody knows how they were drawn; an even hand is as likely as a fair one.
    They count as draws (a Dirichlet prior) unless they are more even than draws are, or contradict what the unlabelled
    images say; and they do not narrow the ranges.

    The ranges come from redrawing unlabelled and, within classes, held-out images, calibrated anew each time, and hold
    the estimate by :func:`bbse_frequencies` too. Where no frequencies make the held-out predictions look like the
    unlabelled ones, the images themselves differ. EM then made the estimate worse in every case tried, so the shares
    of the predictions stand, and the ranges widen with what is unexplained. But a shift of the images can be large
    without a sign in the predictions, so the labels of another domain do not do.
    """
    p, q, y = np.asarray(unlabelled, np.float64), np.asarray(held_out, np.float64), np.asarray(held_out_labels)
    seen = np.isfinite(q).all(axis=1)
    q, y, k = q[seen], y[seen], p.shape[1]
    own = np.arange(len(y)) if groups is None else np.asarray(groups)[seen]
    counts = np.bincount(y, minlength=k).astype(np.float64)
    if not len(p) or (counts < 2).any():
        return Frequencies(np.full(k, 1.0 / k), np.zeros(k), np.ones(k), np.zeros(k), False)
    first = _calibrated_em(p, q, y)
    weights = (first / counts)[y]
    gap = _moments(p) - _moments(q, weights)
    rng = np.random.default_rng(seed)
    members = [_by_group(np.flatnonzero(y == c), own) for c in range(k)]
    draws, chance = [], []
    for _ in range(rounds):
        again = np.concatenate([m[i] for m in members for i in rng.integers(0, len(m), len(m))])
        redrawn = p[rng.integers(0, len(p), min(len(p), _REDRAWN))]
        draws.append(_calibrated_em(redrawn, q[again], y[again]))
        chance.append(np.abs(_moments(redrawn) - _moments(q[again], weights[again]) - gap).sum() / 2)
    unexplained = max(0.0, float(np.abs(gap).sum() / 2 - np.quantile(chance, 0.95)))
    # Errors of this total, spread at random over the classes.
    doubt = _PER_UNEXPLAINED * unexplained * math.sqrt(2.0 / k)
    shares = np.bincount(p.argmax(axis=1), minlength=k) / len(p)
    bbse = bbse_frequencies(np.bincount(y * k + q.argmax(axis=1), minlength=k * k).reshape(k, k), shares)
    estimate = shares if unexplained > 0 else first
    deviation = np.sqrt(np.var(draws, axis=0) + doubt**2)
    low = np.minimum(np.quantile(draws, 0.05, axis=0), np.minimum(estimate, bbse)) - doubt
    high = np.maximum(np.quantile(draws, 0.95, axis=0), np.maximum(estimate, bbse)) + doubt

    labels = np.zeros(k) if target_counts is None else np.asarray(target_counts, dtype=np.float64)
    if labels.sum() > 0 and not _too_even(labels) and not _contradict(labels, estimate, deviation):
        # The unlabelled images are worth as many labels as would leave the same uncertainty.
        worth = float(np.clip((estimate * (1 - estimate)).sum() / max((deviation**2).sum(), 1e-12), 1.0, len(p)))
        # The ranges stay: that the labels were drawn fairly is only not excluded.
        estimate = (worth * estimate + labels) / (worth + labels.sum())
    low, high = np.clip(low, 0.0, estimate), np.clip(high, estimate, 1.0)
    narrow = float((high - low).mean()) / 2 * k <= _WIDE
    fewest = min(map(len, members))
    reliable = unexplained <= 0 and _told_apart(q, y) >= _TELLS_APART and narrow and fewest >= _LEAST_LABELS
    # How far a class of few held-out images varies is itself known by these few.
    wider = float(stdtrit(max(1, fewest - 1), 1 - 0.05 / k) - ndtri(0.95)) * deviation
    return Frequencies(estimate, low, high, wider, reliable)


def _by_group(index: np.ndarray, groups: np.ndarray) -> list[np.ndarray]:
    """Images of a class, those of each group together."""
    return [index[groups[index] == group] for group in np.unique(groups[index])]


def _told_apart(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """How far from chance (0) to certainty (1) the mean recall of the classes is."""
    k = probabilities.shape[1]
    right = probabilities.argmax(axis=1) == labels
    recall = np.mean([right[labels == c].mean() for c in range(k)])
    return float((recall - 1 / k) / (1 - 1 / k))


def _calibrated_em(p: np.ndarray, q: np.ndarray, labels: np.ndarray) -> np.ndarray:
    correction = fit_bias_correction(q, labels)
    return em_frequencies(correction(p), correction(q).mean(axis=0))


def _moments(p: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Mean of the products of two classes' probabilities, (k, k), summing to 1: what is predicted, and how surely."""
    w = np.full(len(p), 1.0 / len(p)) if weights is None else weights / weights.sum()
    return np.asarray((p * w[:, None]).T @ p)


def _too_even(counts: np.ndarray) -> bool:
    """Whether fair draws, be it from even classes, would nearly never come out as even as this: somebody saw to it."""
    expected = counts.sum() / len(counts)
    return bool(((counts - expected) ** 2).sum() / expected <= chdtri(len(counts) - 1, 0.99))


def _contradict(counts: np.ndarray, frequencies: np.ndarray, deviation: np.ndarray) -> bool:
    """Whether label counts are further from the frequencies than both their errors allow, in any class."""
    # One label more of each class: none among few says little about its frequency.
    shares = (counts + 1.0) / (counts.sum() + len(counts))
    errors = np.sqrt(shares * (1 - shares) / (counts.sum() + len(counts)) + deviation**2)
    return bool((np.abs(shares - frequencies) > _CONTRADICTION * errors).any())


def _logs(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.clip(np.asarray(probabilities, dtype=np.float64), _SMALLEST, None))
