"""Frequency match: are the classes predicted as often as they occur? Diverse does not have to mean even."""

from __future__ import annotations

import numpy as np

from raytl.evaluation.validators.base import validator
from raytl.evaluation.validators.entropies import entropies


@validator("frequency-match", "unlabelled_probabilities", "class_frequencies")
def frequency_match(probabilities: np.ndarray, frequencies: np.ndarray) -> float:
    """Minus the Jensen-Shannon divergence (nats) of mean prediction and class frequencies, in [-log 2, 0].

    What information maximisation's first term is where the classes are not even: it is least for a model that says one
    class of everything and greatest for one whose mean prediction is right. Symmetric and bounded (Lin, 1991), unlike
    the Kullback-Leibler divergence, which is infinite for a class that is never predicted or never occurs. A model that
    gives every image just the class frequencies is at the maximum too: a score to choose by beside others, not alone.
    """
    known = np.asarray(frequencies, dtype=np.float64)
    both = np.stack([np.asarray(probabilities, dtype=np.float64).mean(axis=0), known / known.sum()])
    return float(min(0.0, entropies(both).mean() - entropies(both.mean(axis=0, keepdims=True))[0]))
