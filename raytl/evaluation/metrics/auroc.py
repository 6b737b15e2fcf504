"""Area under the ROC curve: how often an item of a class gets a higher probability for it than another item."""

from __future__ import annotations

import numpy as np

from raytl.evaluation.metrics.base import mean_of, metric
from raytl.evaluation.metrics.ranking import Ranking, compared_classes


def _influence(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    parts = []
    for label in compared_classes(labels, probabilities.shape[1]):
        ranking = Ranking.of(probabilities[:, label], labels == label)
        (mine,), (rest,) = ranking.counts(weights[None])
        if not mine.sum() or not rest.sum():
            continue
        beaten = (rest.sum() - np.cumsum(rest) + rest / 2) / rest.sum()
        beating = (np.cumsum(mine) - mine / 2) / mine.sum()
        area = mine @ beaten / mine.sum()
        above, below = (beaten - area) / mine.sum(), (beating - area) / rest.sum()
        parts.append(np.where(ranking.positive, above[ranking.place], below[ranking.place]))
    return np.mean(parts, axis=0) if parts else np.full(len(labels), np.nan)


def _places(labels: np.ndarray, k: int) -> np.ndarray:
    """A share of its class's items, and of the others' where each class is held against the rest."""
    classes, counts, n = compared_classes(labels, k), np.bincount(labels, minlength=k), len(labels)
    moved = np.zeros(n)
    for label in classes:
        mine = labels == label
        if 0 < counts[label] < n:
            moved += np.where(mine, 1 / counts[label], 1 / (n - counts[label]))
    return np.asarray(moved / max(1, len(classes)))


@metric("auroc", "area under the ROC curve", gradient=_influence, places=_places, by_class=True, by_order=True)
def auroc(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over the classes that occur of each one's area against the rest; ties count half.

    In a task of two classes the usual area, by the second class's probability. NaN where only one class has weight:
    there is nothing to rank.
    """
    areas, items = [], np.ascontiguousarray(weights.T)
    for label in compared_classes(labels, probabilities.shape[1]):
        areas.append(Ranking.of(probabilities[:, label], labels == label).areas(items))
    table = np.stack(areas, axis=1)
    return mean_of(np.isfinite(table), table)
