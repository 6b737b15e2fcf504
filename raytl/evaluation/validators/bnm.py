"""Batch nuclear norm (Cui et al., 2020; as a validator Musgrave et al., 2022): certain and diverse predictions."""

from __future__ import annotations

import numpy as np

from raytl.evaluation.validators.base import validator


@validator("bnm", "unlabelled_probabilities")
def batch_nuclear_norm(probabilities: np.ndarray) -> float:
    """Nuclear norm of the (n, k) probabilities over n, in (0, sqrt(k / n)]; comparable for the same images only."""
    values = np.linalg.svd(np.asarray(probabilities, dtype=np.float64), compute_uv=False)
    return float(values.sum() / len(probabilities))
