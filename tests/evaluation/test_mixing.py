"""Shares of classifiers in an average: the optimum of what they are meant to maximise."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from raytl.evaluation.mixing import mixture_shares


def said(right: float, labels: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Probabilities (n, k) of a classifier that gives the right class the most in so many cases."""
    first = np.where(rng.random(len(labels)) < right, labels, rng.integers(0, k, len(labels)))
    return np.full((len(labels), k), 0.3 / k) + 0.7 * np.eye(k)[first]


def test_the_better_one_is_heard_more_the_more_images_say_so() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 400)
    both = np.stack([said(0.9, labels, 4, rng), said(0.2, labels, 4, rng)])
    few, many = mixture_shares(both[:, :10], labels[:10]), mixture_shares(both, labels)
    assert 0.5 < few[0] < many[0]
    assert many[0] > 0.95


def test_no_images_no_preference() -> None:
    nothing = np.full((3, 5, 2), np.nan)
    np.testing.assert_array_equal(mixture_shares(nothing, np.zeros(5, dtype=int)), np.full(3, 1 / 3))
    np.testing.assert_array_equal(mixture_shares(np.full((1, 5, 2), 0.5), np.zeros(5, dtype=int)), [1.0])


def test_an_image_that_one_of_them_trained_on_is_left_out() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 30)
    both = np.stack([said(0.9, labels, 3, rng), said(0.5, labels, 3, rng)])
    both[1, :10] = np.nan
    np.testing.assert_allclose(mixture_shares(both, labels), mixture_shares(both[:, 10:], labels[10:]))


def test_weights_count_images() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, 12)
    both = np.stack([said(0.9, labels, 3, rng), said(0.5, labels, 3, rng)])
    times = rng.integers(1, 4, 12)
    by_weight = mixture_shares(both, labels, times.astype(float))
    np.testing.assert_allclose(by_weight, mixture_shares(both.repeat(times, axis=1), labels.repeat(times)), atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(1, 40), st.integers(2, 5), st.integers(0, 10_000))
def test_no_other_shares_are_more_probable(p: int, n: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    probabilities = rng.dirichlet(np.ones(k), (p, n))
    shares = mixture_shares(probabilities, labels, pull=3.0)
    assert shares.min() > 0
    np.testing.assert_allclose(shares.sum(), 1.0)

    def log_posterior(which: np.ndarray) -> float:
        mean = np.maximum(probabilities[:, np.arange(n), labels], 1e-6).T @ which
        return float(np.log(mean).sum() + 3.0 * np.log(which).sum())

    for other in rng.dirichlet(np.ones(p), 20):
        between = 0.9 * shares + 0.1 * np.maximum(other, 1e-9)
        assert log_posterior(between / between.sum()) <= log_posterior(shares) + 1e-3
