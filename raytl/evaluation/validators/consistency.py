"""Consistency: whether predictions hold when the image is moved a little; needs no label at all."""

from __future__ import annotations

import numpy as np

from raytl.evaluation.validators.base import validator


@validator("consistency", "unlabelled_probabilities", "unlabelled_moved_probabilities", every_epoch=True)
def consistency(probabilities: np.ndarray, moved: np.ndarray) -> float:
    """Cohen's kappa of the classes predicted for the images and for slightly moved versions of them, at most 1.

    The idea behind FixMatch (Sohn et al., 2020) used as a score. Corrected for chance (Cohen, 1960), because a
    predictor that says the same class of everything agrees with itself everywhere and is worth nothing: it scores 0.
    """
    first, second = probabilities.argmax(1), moved.argmax(1)
    agreement = float((first == second).mean())
    classes = probabilities.shape[1]
    share_first = np.bincount(first, minlength=classes) / len(first)
    share_second = np.bincount(second, minlength=classes) / len(second)
    chance = float((share_first * share_second).sum())
    return (agreement - chance) / (1 - chance) if chance < 1 else 0.0
