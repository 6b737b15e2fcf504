"""Consistency: whether predictions hold when the image is moved a little; needs no label at all."""

from __future__ import annotations

import numpy as np

from raytl.evaluation.validators.base import validator


@validator("consistency", "unlabelled_probabilities", "unlabelled_moved_probabilities")
def consistency(probabilities: np.ndarray, moved: np.ndarray) -> float:
    """Share of images whose predicted class is the same for the image and for a slightly moved version of it.

    The idea behind FixMatch (Sohn et al., 2020) used as a score. A predictor that always says the same class is
    perfectly consistent: never use it without information maximisation or labelled images beside it.
    """
    return float((probabilities.argmax(1) == moved.argmax(1)).mean())
