"""Whether answers are right more often than chance has it."""

from __future__ import annotations

import numpy as np
from scipy.special import bdtrc

DOUBT = 0.01
"""A share of right answers that chance gives less often than this is taken for knowledge."""


def by_chance(said: np.ndarray, labels: np.ndarray, classes: int) -> float:
    """How often chance gives at least as many right answers, in (0, 1].

    said, labels: (n,) in [0, classes), n >= 1. Chance draws answers in the shares in which they were given, and labels
    in theirs, so that always saying the most frequent class is no knowledge.
    """
    right = int((said == labels).sum())
    if not right:
        return 1.0
    answered, asked = (np.bincount(each, minlength=classes) / len(said) for each in (said, labels))
    return float(bdtrc(right - 1, len(said), min(max(float(answered @ asked), 1e-9), 1.0)))


def beyond_chance(said: np.ndarray, labels: np.ndarray, classes: int) -> bool:
    """Whether so many answers are right that chance hardly gives as many (:func:`by_chance`)."""
    return by_chance(said, labels, classes) < DOUBT
