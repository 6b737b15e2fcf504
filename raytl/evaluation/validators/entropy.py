"""Certainty (Morerio et al., 2018): minus the mean entropy of the target predictions."""

from __future__ import annotations

import numpy as np

from raytl.evaluation.validators.base import validator
from raytl.evaluation.validators.entropies import entropies


@validator("entropy", "unlabelled_probabilities", every_epoch=True)
def certainty(probabilities: np.ndarray) -> float:
    """In [-log k, 0]. Rewards confident collapse: a figure to look at, not one to choose by alone."""
    return -float(entropies(probabilities).mean())
