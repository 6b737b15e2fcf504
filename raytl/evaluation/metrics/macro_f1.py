"""Macro F1: the mean over the classes of the harmonic mean of precision and recall."""

from __future__ import annotations

import numpy as np

from raytl.evaluation.metrics.base import mean_of, metric, ratio
from raytl.evaluation.metrics.tables import correctness, one_hot


def _influence(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    k, predicted = probabilities.shape[1], probabilities.argmax(axis=1)
    right = correctness(probabilities, labels)
    both = np.bincount(labels, weights, k) + np.bincount(predicted, weights, k)
    f1 = np.nan_to_num(ratio(2 * np.bincount(labels, weights * right, k), both))
    per = np.nan_to_num(ratio(np.ones(k), both)) / np.count_nonzero(both)
    return np.asarray(2 * right * per[labels] - (f1 * per)[labels] - (f1 * per)[predicted])


@metric("macro-f1", "macro F1", gradient=_influence, by_label=True, by_class=True)
def macro_f1(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean F1 over the classes that occur with weight, in the labels or among the predictions."""
    k = probabilities.shape[1]
    classes = one_hot(labels, k)
    both = weights @ (classes + one_hot(probabilities.argmax(axis=1), k))
    hits = weights @ (classes * correctness(probabilities, labels)[:, None])
    return mean_of(both > 0, ratio(2 * hits, both))
