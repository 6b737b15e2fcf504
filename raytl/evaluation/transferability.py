"""How well a source model's features suit a task, before any training: scores for ranking source models."""

from __future__ import annotations

import math

import numpy as np

_ZOOMS = 6
_POINTS = 41


def log_me(features: np.ndarray, labels: np.ndarray) -> float:
    """LogME (You et al., 2021): the log evidence of a Bayesian linear model from features to labels, per image.

    features: (n, d); labels: (n,). The mean over the classes that occur of log p(one-hot | features) / n, maximised
    over the precisions of weights and noise; higher is better. Exact for n < d as well. Features that explain the
    labels without any residual have unbounded evidence; it is taken as at least 1e-10 of the labels' square.
    """
    f = np.asarray(features, dtype=np.float64)
    u, singular, _ = np.linalg.svd(f, full_matrices=False)
    kept = singular > singular.max(initial=0.0) * max(f.shape) * np.finfo(np.float64).eps
    return float(
        np.mean(
            [_log_evidence(u[:, kept], singular[kept] ** 2, (labels == label) * 1.0) for label in np.unique(labels)]
        )
    )


def _log_evidence(u: np.ndarray, eigenvalues: np.ndarray, y: np.ndarray) -> float:
    """Greatest log N(y; 0, (I + F Fᵀ / r) / β) / n over r = α / β and β; F Fᵀ has ``eigenvalues`` along ``u``.

    For each r the best β is known in closed form, and the d - k directions that no image has drop out of the
    determinant together with their prior; what remains is one dimension, searched on a grid that zooms in. (The usual
    fixed-point iteration leaves those directions' terms out where n < d, and can stop short.)
    """
    n = len(y)
    square = float(y @ y)
    along = (u.T @ y) ** 2
    residual = max(square - float(along.sum()), 1e-10 * square)

    def evidence(log_r: np.ndarray) -> np.ndarray:
        gains = 1.0 + eigenvalues[None, :] / np.exp(log_r)[:, None]
        scale = (along[None, :] / gains).sum(axis=1) + residual
        log_determinant = np.log(gains).sum(axis=1)
        return np.asarray(-0.5 * (np.log(2 * math.pi * scale / n) + 1.0 + log_determinant / n))

    if not len(eigenvalues):
        return float(evidence(np.zeros(1))[0])
    centre, half = math.log(float(eigenvalues.mean())), 30.0
    for _ in range(_ZOOMS):
        grid = np.linspace(centre - half, centre + half, _POINTS)
        values = evidence(grid)
        centre, half = float(grid[values.argmax()]), half * 2 / (_POINTS - 1)
    return float(values.max())


def h_score(features: np.ndarray, labels: np.ndarray, width: int | None = None) -> float:
    """H-score (Bao et al., 2019) with Ledoit-Wolf shrinkage (Ibrahim et al., 2021): between-class over total variance.

    features: (n, d), n >= 2; labels: (n,). trace of the inverse shrunk covariance times (1 - shrinkage) times the
    covariance of the class means; in [0, min(classes - 1, d)], higher is better. Constant features give 0.
    width: d before the features were rotated into fewer dimensions that hold them all; by default as many as given.
    """
    f = np.asarray(features, dtype=np.float64)
    f = f - f.mean(axis=0)
    n, d = len(f), width or f.shape[1]
    u, singular, _ = np.linalg.svd(f, full_matrices=False)
    kept = singular > singular.max(initial=0.0) * max(n, d) * np.finfo(np.float64).eps
    if not kept.any():
        return 0.0
    u, variances = u[:, kept], singular[kept] ** 2 / n
    mean = variances.sum() / d
    # Ledoit and Wolf's shrinkage needs rotation-invariant sums only, so no d x d matrix is ever made.
    spread = (variances**2).sum()
    noise = ((f**2).sum(axis=1) ** 2).sum() / n - spread
    distance = spread - d * mean**2
    shrinkage = min(1.0, noise / n / distance) if noise > 0 and distance > 0 else float(noise > 0)
    # The pull is towards mean x identity; the class means lie within the span of the features.
    pulled = (1 - shrinkage) * variances + shrinkage * mean
    classes, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    sums = np.zeros((len(classes), len(variances)))
    np.add.at(sums, inverse, u)
    between = (sums**2 / counts[:, None]).sum(axis=0) * variances
    return float((1 - shrinkage) * (between / pulled).sum())


def rank_aggregate(scores: dict[str, list[float]]) -> list[float]:
    """Mean rank of each candidate over several scores, 1 for a candidate that is best in all; lower is better.

    scores: name of the score to its values for the same candidates in the same order, higher is better. Ties share
    their ranks; NaN ranks last. Raises ValueError where the lists are not equally long.
    """
    lengths = {len(values) for values in scores.values()}
    if len(lengths) > 1:
        raise ValueError(f"scores of {sorted(lengths)} candidates cannot be aggregated")
    ranks = [_ranks([-math.inf if math.isnan(v) else v for v in values]) for values in scores.values()]
    return [float(rank) for rank in np.mean(ranks, axis=0)] if ranks else []


def _ranks(values: list[float]) -> np.ndarray:
    """1 for the greatest; equal values share the mean of the ranks they take up."""
    better = np.array([sum(other > value for other in values) for value in values])
    equal = np.array([values.count(value) for value in values])
    return np.asarray(better + (equal + 1) / 2)
