"""Entropies of probability rows in nats, shared by the label-free validators."""

from __future__ import annotations

import numpy as np


def entropies(probabilities: np.ndarray) -> np.ndarray:
    """Entropy of each row of (n, k) probabilities, shape (n,), float64; 0 log 0 is 0."""
    p = np.asarray(probabilities, dtype=np.float64)
    return np.asarray(-(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=1))


def mutual_information(probabilities: np.ndarray) -> float:
    """Entropy of the mean row minus the mean entropy of the rows, in [0, log k].

    Near 0 for a model that gives every image the same answer, whether sure of it (collapse) or not.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    return float(max(0.0, entropies(p.mean(axis=0, keepdims=True))[0] - entropies(p).mean()))
