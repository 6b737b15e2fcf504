"""LogME against the exact marginal likelihood, H-score against its formula, and rank aggregation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import multivariate_normal, spearmanr
from sklearn.covariance import LedoitWolf

from raytl.evaluation import h_score, log_me, rank_aggregate


def data(n: int, d: int, k: int = 3, signal: float = 1.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % k
    features = rng.normal(size=(n, d)) @ np.diag(rng.uniform(0.2, 2.0, d))
    features[:, 0] += signal * labels
    return features, labels


def exact(features: np.ndarray, labels: np.ndarray) -> float:
    """Max over α, β of log N(y; 0, F Fᵀ / α + I / β) / n by a general optimiser from several starts."""
    n, total = len(labels), []
    gram = features @ features.T
    for label in np.unique(labels):
        y = (labels == label) * 1.0

        def loss(x: np.ndarray, y: np.ndarray = y) -> float:
            covariance = gram * math.exp(-x[0]) + np.eye(n) * math.exp(-x[1])
            return float(-multivariate_normal.logpdf(y, np.zeros(n), covariance))

        starts = [(a, b) for a in (-2.0, 2.0, 6.0) for b in (0.0, 3.0)]
        bounds = [(-12, 14), (-12, 14)]
        total.append(-min(minimize(loss, s, method="L-BFGS-B", bounds=bounds).fun for s in starts) / n)
    return float(np.mean(total))


@pytest.mark.parametrize(("n", "d"), [(40, 5), (20, 20), (15, 60), (24, 200)])
@pytest.mark.parametrize("signal", [0.0, 1.5])
def test_log_me_is_the_exact_evidence_also_with_more_features_than_images(n: int, d: int, signal: float) -> None:
    features, labels = data(n, d, signal=signal)
    assert log_me(features, labels) == pytest.approx(exact(features, labels), abs=2e-4)


@pytest.mark.parametrize("score", [log_me, h_score])
def test_more_telling_features_score_higher(score) -> None:  # type: ignore[no-untyped-def]
    for d in (4, 100):
        scores = [score(*data(60, d, signal=signal)) for signal in (0.0, 1.0, 4.0)]
        assert scores == sorted(scores)
        assert scores[2] > scores[0] + 0.02


def test_log_me_does_not_change_with_rotation_scale_or_empty_features() -> None:
    features, labels = data(30, 8)
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))
    padded = np.concatenate([features, np.zeros((30, 50))], axis=1)
    expected = log_me(features, labels)
    assert log_me(100 * features @ rotation, labels) == pytest.approx(expected, abs=1e-4)
    assert log_me(padded, labels) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("score", [log_me, h_score])
@pytest.mark.parametrize("case", ["constant", "zero", "one class", "perfect", "one per class"])
def test_scores_are_finite_on_degenerate_features(score, case: str) -> None:  # type: ignore[no-untyped-def]
    features, labels = data(12, 6)
    if case == "constant":
        features = np.ones_like(features)
    elif case == "zero":
        features = np.zeros_like(features)
    elif case == "one class":
        labels = np.zeros_like(labels)
    elif case == "perfect":
        features = np.eye(3)[labels]
    else:
        labels = np.arange(12)
    assert math.isfinite(score(features, labels))


@pytest.mark.parametrize(("n", "d"), [(40, 5), (20, 50)])
def test_h_score_is_its_formula(n: int, d: int) -> None:
    features, labels = data(n, d)
    fit = LedoitWolf().fit(features)
    means = np.stack([features[labels == label].mean(axis=0) for label in labels])
    between = np.cov(means.T, bias=True)
    expected = (1 - fit.shrinkage_) * np.trace(np.linalg.inv(fit.covariance_) @ between)
    assert h_score(features, labels) == pytest.approx(expected)


def test_h_score_of_features_rotated_into_fewer_dimensions_needs_their_width_only() -> None:
    features, labels = data(20, 50)
    rotated = features @ np.linalg.svd(features, full_matrices=False)[2].T
    assert rotated.shape == (20, 20)
    assert h_score(rotated, labels, 50) == pytest.approx(h_score(features, labels))
    assert h_score(rotated, labels) != pytest.approx(h_score(features, labels))


def test_h_score_has_its_bounds() -> None:
    assert h_score(np.ones((9, 4)), np.arange(9) % 3) == 0.0
    features, labels = data(600, 4, signal=100.0)
    assert 0.9 < h_score(features, labels) <= 2.0


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=8))
@settings(max_examples=40)
def test_ranks_of_one_score_order_like_the_score(values: list[int]) -> None:
    ranks = rank_aggregate({"a": [float(v) for v in values]})
    assert sum(ranks) == pytest.approx(len(values) * (len(values) + 1) / 2)
    for i, a in enumerate(values):
        for j, b in enumerate(values):
            assert (ranks[i] < ranks[j]) == (a > b)


def test_ranks_of_several_scores_are_averaged_and_nan_is_last() -> None:
    assert rank_aggregate({"a": [3.0, 2.0, 1.0], "b": [0.0, 100.0, -5.0]}) == [1.5, 1.5, 3.0]
    assert rank_aggregate({"a": [math.nan, 2.0, -1e9]}) == [3.0, 1.0, 2.0]
    assert rank_aggregate({}) == []
    with pytest.raises(ValueError, match="cannot be aggregated"):
        rank_aggregate({"a": [1.0], "b": [1.0, 2.0]})


def test_the_aggregate_finds_the_order_of_source_models_of_different_width() -> None:
    """Width must not decide: the leftover terms of the determinant are what keeps it from doing so."""
    models = [(0.2, 400), (1.0, 10), (2.0, 150), (4.0, 40)]
    features = [data(45, d, signal=signal) for signal, d in models]
    scores = {"log_me": [log_me(*f) for f in features], "h_score": [h_score(*f) for f in features]}
    assert spearmanr(rank_aggregate(scores), [4, 3, 2, 1]).statistic > 0.7
