"""Accuracy on held-out source images: without target labels the strong baseline, and a veto on what forgot the task."""

from __future__ import annotations

import numpy as np

from raytl.evaluation.metrics import correctness
from raytl.evaluation.validators.base import validator


@validator("source-accuracy", "source_probabilities", "source_labels", every_epoch=True)
def source_accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Share of right answers on the source domain, in [0, 1]."""
    return float(correctness(probabilities, labels).mean())
