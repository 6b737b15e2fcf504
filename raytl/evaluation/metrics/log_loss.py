"""Log loss: minus the log probability of the label, in nats; the metric that sees how sure a model is."""

from __future__ import annotations

import math

import numpy as np

from raytl.evaluation.metrics.base import metric, ratio
from raytl.evaluation.metrics.tables import log_losses


def _influence(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    losses = log_losses(probabilities, labels)
    return np.asarray((losses - weights @ losses / weights.sum()) / weights.sum())


@metric("log-loss", "log loss", gradient=_influence, higher_is_better=False, share=False, limits=(0.0, math.inf))
def log_loss(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean; lower is better; a probability below 1e-7 counts as 1e-7."""
    return ratio(weights @ log_losses(probabilities, labels), weights.sum(axis=1))
