"""What solving all folds and strengths at once saves: our probe against scikit-learn's LogisticRegressionCV.

    python benchmarks/probes.py

One thread, the same grid, folds and objective, on rectified Gaussian features of a network's size. The difference of
the log losses out of fold shows that both found the same optima; under a hundred items ours are of two passes, whose
probabilities are averaged.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from common import finish
from sklearn.linear_model import LogisticRegressionCV
from threadpoolctl import threadpool_limits

from raytl.evaluation.probes import STRENGTHS, fit_logistic
from raytl.tasks.splits import folds

CASES = ((40, 1280, 2), (200, 768, 5), (500, 1280, 10), (500, 2048, 10), (800, 1280, 100))
ROUNDS = 3


def features_of(n: int, d: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.arange(n) % k
    noise = rng.normal(size=(n, d)) * np.arange(1, d + 1) ** -0.25
    return np.maximum(0.04 * rng.normal(size=(k, d))[labels] + noise, 0.0), labels


def ours(features: np.ndarray, labels: np.ndarray, k: int) -> tuple[float, np.ndarray]:
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        probe = fit_logistic(features, labels, k)
        seconds.append(time.perf_counter() - start)
    return min(seconds), np.array([probe.log_losses[s] for s in STRENGTHS])


def theirs(features: np.ndarray, labels: np.ndarray, k: int) -> tuple[float, np.ndarray]:
    n, d = features.shape
    splits = folds(labels, None, 5, 2 if n < 100 else 1, 0)
    c = [(1 if k > 2 else 2) / (n * s) for s in STRENGTHS]
    model = LogisticRegressionCV(Cs=c, cv=splits, scoring="neg_log_loss", max_iter=2000, tol=1e-5)
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        # As a probe sees them: with ten items more, in which each feature varies as the median one does.
        variances = features.var(axis=0)
        usual = np.sort(variances)[(d - 1) // 2]
        standard = (features - features.mean(axis=0)) / np.sqrt((n * variances + 10 * usual) / (n + 10))
        standard /= np.sqrt(np.square(standard).sum(axis=1).mean())
        model.fit(standard, labels)
        seconds.append(time.perf_counter() - start)
    scores = model.scores_
    table = next(iter(scores.values())) if isinstance(scores, dict) else scores
    return min(seconds), -np.asarray(table).reshape(len(splits), len(c)).mean(axis=0)


def main() -> None:
    torch.set_num_threads(1)
    rows, figures = [], {}
    with threadpool_limits(1):
        for n, d, k in CASES:
            features, labels = features_of(n, d, k)
            seconds, losses = ours(features, labels, k)
            peer_seconds, peer_losses = theirs(features, labels, k)
            apart = float(np.abs(losses - peer_losses).max())
            rows.append([f"{n} x {d}, {k} classes", f"{seconds:.2f} s", f"{peer_seconds:.2f} s", f"{apart:.5f}"])
            figures[f"{n}x{d}x{k}"] = {"speed_up": peer_seconds / seconds, "log_loss_apart": apart}
    header = ["features", "raytl", "scikit-learn", "log losses apart"]
    finish("probes", "Cross-validated logistic regression, one thread", header, rows, figures)


if __name__ == "__main__":
    main()
