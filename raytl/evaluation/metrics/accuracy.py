"""Accuracy: the share of right answers."""

from __future__ import annotations

import numpy as np

from raytl.evaluation.metrics.base import metric, ratio
from raytl.evaluation.metrics.tables import correctness


def _influence(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    right = correctness(probabilities, labels)
    return np.asarray((right - weights @ right / weights.sum()) / weights.sum())


@metric("accuracy", "accuracy", gradient=_influence, by_label=True)
def accuracy(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted share of the items whose most probable class is the label."""
    return ratio(weights @ correctness(probabilities, labels), weights.sum(axis=1))
