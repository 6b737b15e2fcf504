"""Sets of labels that hold the true one with a stated probability, and images that look like none of the classes.

Split-conformal (Vovk et al., 2005; Romano et al., 2020): whatever the model, the statements hold for images that come
as the reference images came, on average over reference images. They say nothing of images of another kind, but that
these are refused more often.
"""

from __future__ import annotations

import math

import numpy as np

COVERAGE = 0.9
"""How often a set of labels holds the true one."""
FALSE_REFUSALS = 0.05
"""How many images of the known kind are taken for none of the classes."""


def set_threshold(probabilities: np.ndarray, labels: np.ndarray, coverage: float = COVERAGE) -> float:
    """Up to which mass of probability labels are taken, the most probable first (adaptive prediction sets).

    probabilities: (n, k), labels: (n,), of images that the model was not trained on. The rank that makes up for there
    being few of them is ceil((n + 1) coverage); where there are too few for it, every label is taken (infinity).
    """
    n = len(labels)
    rank = math.ceil((n + 1) * coverage - 1e-9)
    if rank > n:
        return math.inf
    given = probabilities[np.arange(n), labels]
    before = np.where(probabilities > given[:, None], probabilities, 0.0).sum(axis=1)
    return float(np.sort(before)[rank - 1])


def label_sets(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Which labels are in the set of each image, bool (m, k): those with no more than ``threshold`` above them.

    The most probable one always is. threshold: of :func:`set_threshold`.
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ranked = np.take_along_axis(probabilities, order, axis=1)
    above = np.cumsum(ranked, axis=1) - ranked
    ties = np.concatenate([np.zeros((len(ranked), 1), bool), ranked[:, 1:] == ranked[:, :-1]], axis=1)
    for column in range(1, ranked.shape[1]):  # what is equally probable has the same above it
        above[:, column] = np.where(ties[:, column], above[:, column - 1], above[:, column])
    sets = np.zeros(probabilities.shape, dtype=bool)
    np.put_along_axis(sets, order, above <= threshold + 1e-9, axis=1)
    return sets


def refusal_threshold(scores: np.ndarray, false_refusals: float = FALSE_REFUSALS) -> float:
    """Below which score an image looks like none of the classes: at most so many of the known kind do.

    scores: (n,) of reference images, higher for what is better known. Minus infinity where there are too few of them
    for anything to be said at that level (fewer than 1 / false_refusals - 1).
    """
    rank = math.floor((len(scores) + 1) * false_refusals + 1e-9)
    return -math.inf if rank < 1 else float(np.sort(scores)[rank - 1])
