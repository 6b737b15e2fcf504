"""Average precision: the precision at each item of a class, going down by its probability; for finding what is rare."""

from __future__ import annotations

import numpy as np

from raytl.evaluation.metrics.base import mean_of, metric, rarer, ratio
from raytl.evaluation.metrics.ranking import Ranking


def _classes(labels: np.ndarray, k: int, positive: int | None) -> list[int]:
    """Those that occur; of two the positive one, or where none is named the rarer.

    Goes by the labels and not by the weights, so that all resamples of the same items measure the same thing.
    """
    if k == 2:
        return [rarer(labels) if positive is None else positive]
    return [int(label) for label in np.unique(labels)]


def _influence(
    probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray, positive: int | None = None
) -> np.ndarray:
    parts = []
    for label in _classes(labels, probabilities.shape[1], positive):
        ranking = Ranking.of(probabilities[:, label], labels == label)
        (mine,), (rest,) = ranking.counts(weights[None])
        total = mine.sum()
        if not total:
            continue
        found, taken = np.cumsum(mine), np.cumsum(mine + rest)
        precision = np.nan_to_num(ratio(found, taken))
        # An item moves the precision at its own place and at all places below.
        gain = np.nan_to_num(ratio(mine * (taken - found), taken**2))[::-1].cumsum()[::-1]
        loss = np.nan_to_num(ratio(mine * found, taken**2))[::-1].cumsum()[::-1]
        own = precision - mine @ precision / total + gain
        parts.append(np.where(ranking.positive, own[ranking.place], -loss[ranking.place]) / total)
    return np.mean(parts, axis=0) if parts else np.full(len(labels), np.nan)


def _reach(labels: np.ndarray, k: int, positive: int | None = None) -> np.ndarray:
    """A share of each class's items, as Boyd, Eng & Page (2013) take it for intervals."""
    classes = _classes(labels, k, positive)
    counts = np.bincount(labels, minlength=k)
    return np.where(np.isin(labels, classes), 1 / (len(classes) * counts[labels]), 0.0)


def _flattery(
    probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray | None, positive: int | None = None
) -> float:
    """Twice what is owed to items being found at their own places.

    Of two items of a class one is at once half of what there is to find, and the fewer they are the higher is the
    precision wherever one of them comes. Leaving each item out for itself shows about half of that: of 50 classes of
    two items each, of 20 of five, of 10 of 20 the figure was too high by one and a half to two times as much.
    """
    parts = []
    for label in _classes(labels, probabilities.shape[1], positive):
        if (labels == label).any():
            parts.append(Ranking.of(probabilities[:, label], labels == label).own_part(groups))
    return max(0.0, 2 * float(np.mean(parts))) if parts else 0.0


@metric(
    "average-precision",
    "average precision",
    gradient=_influence,
    reach=_reach,
    by_class=True,
    finds=True,
    by_order=True,
    flattery=_flattery,
)
def average_precision(
    probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray, positive: int | None = None
) -> np.ndarray:
    """Mean over the classes that occur of each one's average precision against the rest; equal scores share a place.

    In a task of two classes that of the positive one alone: else of the rarer among the labels (of the second, where
    both are as many). NaN where no item of such a class has weight.
    """
    scores, items = [], np.ascontiguousarray(weights.T)
    for label in _classes(labels, probabilities.shape[1], positive):
        scores.append(Ranking.of(probabilities[:, label], labels == label).precisions(items))
    table = np.stack(scores, axis=1)
    return mean_of(np.isfinite(table), table)
