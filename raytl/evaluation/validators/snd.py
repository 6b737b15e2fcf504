"""Soft neighbourhood density (Saito et al., 2021): are alike predictions found in groups?"""

from __future__ import annotations

import math

import numpy as np

from raytl.evaluation.validators.base import validator
from raytl.evaluation.validators.entropies import entropies, mutual_information

_TEMPERATURE = 0.05
_MOST = 2000
"""Images looked at: the measure takes time and memory with their square."""
_FLOOR = 0.5


@validator("snd", "unlabelled_probabilities")
def soft_neighbourhood_density(probabilities: np.ndarray) -> float:
    """Mean entropy of each image's similarities to the others, in [0, log n].

    As published it is greatest for a model that gives every image the same answer. So the density counts in full only
    where the predictions carry at least half of the information that k equally frequent classes could, and in
    proportion below that.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if len(p) > _MOST:
        # At random but always the same ones: a stride could fall in step with the order of the classes.
        p = p[np.random.default_rng(0).choice(len(p), _MOST, replace=False)]
    if len(p) < 3 or p.shape[1] < 2:
        return 0.0
    unit = p / np.linalg.norm(p, axis=1, keepdims=True)
    similarity = unit @ unit.T / _TEMPERATURE
    np.fill_diagonal(similarity, -np.inf)
    similarity -= similarity.max(axis=1, keepdims=True)
    neighbours = np.exp(similarity)
    neighbours /= neighbours.sum(axis=1, keepdims=True)
    floor = _FLOOR * math.log(p.shape[1])
    return float(entropies(neighbours).mean()) * min(1.0, mutual_information(p) / floor)
