"""Minus the log loss on the validation fold: finer than accuracy where the fold has few images."""

from __future__ import annotations

import numpy as np

from raytl.evaluation.metrics import log_losses
from raytl.evaluation.validators.base import validator


@validator("target-log-loss", "target_probabilities", "target_labels", every_epoch=True)
def target_log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean log probability of the labels in nats, <= 0."""
    return float(-log_losses(probabilities, labels).mean())
