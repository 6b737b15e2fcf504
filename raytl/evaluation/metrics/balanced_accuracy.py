"""Balanced accuracy: the mean share of right answers per class, so that rare classes count as much as common ones."""

from __future__ import annotations

import numpy as np

from raytl.evaluation.metrics.base import mean_of, metric, ratio
from raytl.evaluation.metrics.tables import correctness, one_hot


def _influence(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    k = probabilities.shape[1]
    right = correctness(probabilities, labels)
    actual = np.bincount(labels, weights, k)
    recall = ratio(np.bincount(labels, weights * right, k), actual)
    gap = np.zeros(len(labels))
    counted = actual[labels] > 0  # an item of a class without weight changes which classes occur: no derivative
    gap[counted] = (right[counted] - recall[labels[counted]]) / actual[labels[counted]]
    return gap / np.count_nonzero(actual)


@metric("balanced-accuracy", "balanced accuracy", gradient=_influence, by_label=True, by_class=True)
def balanced_accuracy(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean recall over the classes that occur with weight."""
    classes = one_hot(labels, probabilities.shape[1])
    actual = weights @ classes
    hits = weights @ (classes * correctness(probabilities, labels)[:, None])
    return mean_of(actual > 0, ratio(hits, actual))
