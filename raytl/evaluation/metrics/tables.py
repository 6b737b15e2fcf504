"""What metrics are counted from: right and wrong answers, confusions, losses; and the usual figures at a glance."""

from __future__ import annotations

import numpy as np

_SMALLEST = 1e-7
"""Probabilities below this count as this: a float32 softmax that says 0 is not infinitely sure."""


def classification_metrics(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """``accuracy``, ``balanced_accuracy``, ``macro_f1`` (all in [0, 1]) and ``log_loss`` (nats, lower is better).

    probabilities: (n, k), rows summing to 1; labels: (n,), indices into the k columns; n >= 1.
    Balanced accuracy is the mean recall over the classes that occur in ``labels``; macro F1 the mean over the classes
    that occur in ``labels`` or among the predictions. Raises ValueError for shapes that do not fit.
    """
    table = confusion(probabilities, labels)
    hits, actual, predicted = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    occurs, either = actual > 0, (actual + predicted) > 0
    return {
        "accuracy": float(hits.sum() / table.sum()),
        "balanced_accuracy": float((hits[occurs] / actual[occurs]).mean()),
        "macro_f1": float((2 * hits[either] / (actual + predicted)[either]).mean()),
        "log_loss": float(log_losses(probabilities, labels).mean()),
    }


def confusion(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Counts, int64 (k, k): rows are the true class, columns the predicted one. Arguments as above."""
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
