"""How sure a classifier should be: one temperature for its logits, and how far its confidence is from the truth."""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax

from raytl.tasks.splits import spread

HOTTEST = 20.0
"""Temperatures are sought in [1 / HOTTEST, HOTTEST]: beyond it a classifier says nothing, or has said it already."""

LEAST_CALIBRATING = 20
"""Images that the temperature of a model is fitted on at least."""
_PARTS = 5
_CELLS, _LEAST_ROWS = 200_000, 500
"""Of a larger table of probabilities some rows tell one number well enough; but so many at least."""
_SMALLEST = 1e-12
_STEPS = 60


def fit_temperature(
    logits: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    pull: float = 1.0,
    usual: float = 1.0,
) -> float:
    """The temperature (Guo et al., 2017) by which dividing the logits gives the least log loss, in [1/20, 20].

    logits: (n, k), or log-probabilities, which are logits too; labels: (n,); weights: (n,) >= 0. Items that did not
    train the model, always: on its training items a model is right whatever it is worth, and the answer would be the
    smallest temperature there is. Rows that are not finite (an item that was never held out) are left out.

    pull: items' worth of a prior (Gamma) towards the ``usual`` temperature, convex in its reciprocal as the loss is.
    Without it a handful of items, all of them right, would ask for endless confidence. More of it suits a model that
    was chosen for its log loss and can hardly be far off. Without any item the answer is the usual temperature.
    """
    usable = np.isfinite(logits).all(axis=1)
    z = np.asarray(logits, dtype=np.float64)[usable]
    y = np.asarray(labels, dtype=np.int64)[usable]
    w = np.ones(len(z)) if weights is None else np.asarray(weights, dtype=np.float64)[usable]
    if not len(z) or w.sum() <= 0:
        return usual
    given = z[np.arange(len(z)), y]
    w = w / w.sum()
    prior = pull * (w**2).sum()

    def slope(beta: float) -> float:
        p = np.exp(log_softmax(beta * z, axis=1))
        return float(w @ ((p * z).sum(axis=1) - given) + prior * (usual - 1.0 / beta))

    low, high = 1.0 / HOTTEST, HOTTEST
    if slope(low) >= 0:
        return HOTTEST
    if slope(high) <= 0:
        return 1.0 / HOTTEST
    for _ in range(_STEPS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return float((low * high) ** -0.5)


def apply_temperature(probabilities: np.ndarray, temperature: float | np.ndarray) -> np.ndarray:
    """The probabilities (n, k) that logits divided by ``temperature`` > 0, or one of each row (n,), give.

    NaN rows stay NaN.
    """
    if not np.all(np.asarray(temperature) > 0):
        raise ValueError(f"a temperature is above 0, not {temperature}")
    logs = np.log(np.clip(np.asarray(probabilities, dtype=np.float64), _SMALLEST, None))
    return np.asarray(np.exp(log_softmax(logs / np.reshape(temperature, (-1, 1)), axis=1)))


def cross_temperatures(
    probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None, *, times: float = 1.0
) -> np.ndarray:
    """Of each item the temperature that the others ask for, (n,): with it a model is as good as it is when calibrated.

    probabilities: (n, k), of items that it was not trained on; labels: (n,). groups: (n,), equal where items belong
    together, or None. A fifth of the items, whole groups, has the temperature that is fitted on the other four: fitted
    on all of them it would flatter each. 1 where there are fewer items than a temperature is fitted on, or only one
    group, and for rows that are not finite. times: how often an item is among them, each time said by another model
    and in one group with the others: it counts once.
    """
    found = np.ones(len(labels))
    known = np.flatnonzero(np.isfinite(probabilities).all(axis=1))
    codes = np.arange(len(known)) if groups is None else np.unique(groups[known], return_inverse=True)[1].reshape(-1)
    if len(known) < LEAST_CALIBRATING * times or not codes.any():
        return found
    # At random: items may come in the order of their classes, or these in turns.
    part = np.random.default_rng(0).permutation(int(codes.max()) + 1)[codes] % _PARTS
    logs = np.log(np.clip(probabilities[known], 1e-7, 1.0))
    for one in np.unique(part):
        others = np.flatnonzero(part != one)
        some = others[telling_rows(len(others), probabilities.shape[1])]
        found[known[part == one]] = fit_temperature(logs[some], labels[known[some]], pull=times)
    return found


def telling_rows(rows: int, classes: int) -> np.ndarray:
    """Which rows of a table of probabilities a temperature is fitted on: all, or of a large one some at random.

    Evenly spread ones would be of some classes alone where items come in these in turns.
    """
    return spread(np.arange(rows), max(_LEAST_ROWS, _CELLS // classes))


def confidence_temperature(probabilities: np.ndarray, accuracy: float) -> float:
    """The temperature in [1/20, 20] with which the most probable class has on average this probability.

    probabilities: (n, k), n >= 1, finite. A warmer classifier is less sure: where even the hottest is too sure, that.
    """
    low, high = 1.0 / HOTTEST, HOTTEST
    for _ in range(_STEPS):
        middle = (low * high) ** 0.5
        sure = apply_temperature(probabilities, middle).max(axis=1).mean()
        low, high = (middle, high) if sure > accuracy else (low, middle)
    return float((low * high) ** 0.5)


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error of the most probable class, in [0, 1]: mean |confidence - accuracy| over bins.

    Bins of equal mass (Nixon et al., 2019: adaptive), not of equal width: with a few dozen items most bins of equal
    width hold none or one, whose error is noise. At most as many bins as leave 5 items in each.
    probabilities: (n, k); labels: (n,). Positively biased on few items, as every binned estimate is.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    order = np.argsort(confidence, kind="stable")
    gap = (confidence - right)[order]
    parts = np.array_split(gap, max(1, min(bins, len(gap) // 5)))
    return float(sum(abs(part.sum()) for part in parts) / len(gap)) if len(gap) else 0.0
