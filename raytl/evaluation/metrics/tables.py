"""What metrics are counted from: right and wrong answers, confusions, losses."""

from __future__ import annotations

import numpy as np

_SMALLEST = 1e-7
"""Probabilities below this count as this: a float32 softmax that says 0 is not infinitely sure."""


def confusion(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Counts, int64 (k, k): rows are the true class, columns the predicted one.

    probabilities: (n, k), rows summing to 1; labels: (n,), indices into the k columns; n >= 1.
    Raises ValueError for shapes that do not fit.
    """
    check(probabilities, labels)
    k = probabilities.shape[1]
    cells = np.bincount(labels * k + probabilities.argmax(axis=1), minlength=k * k)
    return np.asarray(cells.reshape(k, k), dtype=np.int64)


def correctness(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """1.0 where the most probable class is the label, else 0.0; (n,), for intervals and paired comparisons."""
    check(probabilities, labels)
    return np.asarray(probabilities.argmax(axis=1) == labels, dtype=np.float64)


def log_losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Minus the log probability of each label, (n,), in nats and finite."""
    check(probabilities, labels)
    given = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return np.asarray(-np.log(np.clip(given, _SMALLEST, 1.0)))


def one_hot(labels: np.ndarray, k: int) -> np.ndarray:
    """(n,) indices -> float64 (n, k)."""
    return np.asarray(labels[:, None] == np.arange(k), dtype=np.float64)


def check(probabilities: np.ndarray, labels: np.ndarray) -> None:
    """Raise ValueError where the two do not belong together, or there are none."""
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not len(labels):
        raise ValueError(f"probabilities {probabilities.shape} and labels {labels.shape} do not belong together")
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise ValueError(
            f"labels run from {labels.min()} to {labels.max()}, there are {probabilities.shape[1]} classes"
        )
