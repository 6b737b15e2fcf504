"""Accuracy on the validation fold of the labelled target images: the best there is, where there are labels."""

from __future__ import annotations

import numpy as np

from raytl.evaluation.metrics import correctness
from raytl.evaluation.validators.base import validator


@validator("target-accuracy", "target_probabilities", "target_labels", every_epoch=True)
def target_accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Share of right answers, in [0, 1]."""
    return float(correctness(probabilities, labels).mean())
