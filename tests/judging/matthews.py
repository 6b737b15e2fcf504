"""A metric of one's own that has no figure where a model says the same of everything."""

from __future__ import annotations

import numpy as np

from raytl.evaluation.metrics import Metric


def _correlation(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    said, true = probabilities.argmax(1), labels
    total = weights.sum(axis=1)
    mean_said, mean_true = weights @ said / total, weights @ true / total
    both = weights @ (said * true) / total - mean_said * mean_true
    spread = mean_said * (1 - mean_said) * mean_true * (1 - mean_true)
    defined = spread > 1e-12
    return np.where(defined, both / np.sqrt(np.where(defined, spread, 1.0)), np.nan)


MATTHEWS = Metric("mcc", "Matthews' correlation", _correlation, limits=(-1.0, 1.0), share=False, by_label=True)
"""Of two classes."""
