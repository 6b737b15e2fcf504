"""What few labels and many unlabelled images say of a strategy together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raytl.judging.screening import LEAST, posterior_means

shares = st.floats(0, 1, allow_subnormal=False)
many = st.integers(LEAST, 30)


@st.composite
def measured(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Direct figures, numbers of images, unlabelled scores."""
    count = draw(many)
    arrays = [draw(st.lists(kind, min_size=count, max_size=count)) for kind in (shares, st.integers(1, 500), shares)]
    return tuple(np.array(array, dtype=np.float64) for array in arrays)  # type: ignore[return-value]


def made(seed: int, images: int, slope: float, count: int = 30) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True figures, direct ones on so many images, and an unlabelled score that follows the truth by ``slope``."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.5, 0.9, count)
    direct = rng.binomial(images, truth) / images
    unlabelled = 0.7 + slope * (truth - 0.7) + rng.normal(0, 0.03, count)
    return truth, direct, unlabelled


@given(measured())
def test_never_outvotes_labels_by_turning_their_order_round_where_the_scores_agree(values: tuple) -> None:
    """Of two strategies with equal evidence otherwise, the one with more right answers stays ahead."""
    direct, images, _ = values
    same = np.full(len(direct), 0.5)
    images = np.full(len(direct), images[0])
    estimate = posterior_means(direct, images, same)
    order = np.argsort(direct, kind="stable")
    assert (np.diff(estimate[order]) >= -1e-9).all()


@given(measured())
def test_lies_between_line_and_direct_figure_and_does_not_depend_on_the_order(values: tuple) -> None:
    direct, images, unlabelled = values
    estimate = posterior_means(direct, images, unlabelled)
    assert np.isfinite(estimate).all()
    turned = posterior_means(direct[::-1], images[::-1], unlabelled[::-1])
    np.testing.assert_allclose(turned[::-1], estimate, atol=1e-9)
    shifted = posterior_means(direct, images, 7.0 + 3.0 * unlabelled)  # whatever unit the score is in
    np.testing.assert_allclose(shifted, estimate, atol=1e-6)


@given(measured())
def test_a_misleading_score_has_no_say(values: tuple) -> None:
    """The worse by labels, the higher it is: the order is that of the direct figures."""
    direct, images, _ = values
    images = np.full(len(direct), images[0])
    estimate = posterior_means(direct, images, -direct)
    order = np.argsort(direct, kind="stable")
    assert (np.diff(estimate[order]) >= -1e-9).all()


def test_a_telling_score_brings_the_estimates_nearer_to_the_truth() -> None:
    gains, lifts = [], []
    for seed in range(40):
        truth, direct, unlabelled = made(seed, images=15, slope=1.0)
        estimate = posterior_means(direct, np.full(30, 15), unlabelled)
        gains.append(np.square(direct - truth).mean() - np.square(estimate - truth).mean())
        lifts.append(truth[estimate.argmax()] - truth[direct.argmax()])
    assert np.mean(gains) > 0.003  # of 0.013 that the sampling error is
    assert np.mean(lifts) > 0.02  # and a better one is picked


@pytest.mark.parametrize("slope", [0.0, -1.0])
def test_a_score_that_does_not_follow_the_truth_costs_next_to_nothing(slope: float) -> None:
    lost = []
    for seed in range(40):
        truth, direct, unlabelled = made(seed, images=15, slope=slope)
        estimate = posterior_means(direct, np.full(30, 15), unlabelled)
        lost.append(truth[direct.argmax()] - truth[estimate.argmax()])
    assert np.mean(lost) < 0.015


def test_among_equals_a_misleading_score_favours_nobody() -> None:
    """Not even the other way round: what was wrong so far is no evidence."""
    _, direct, unlabelled = made(0, images=15, slope=-1.0)
    direct[1], unlabelled[:2] = direct[0], (0.4, 0.9)
    estimate = posterior_means(direct, np.full(30, 15), unlabelled)
    assert estimate[0] == pytest.approx(estimate[1])


def test_with_many_labels_it_is_the_direct_figures() -> None:
    _, direct, unlabelled = made(0, images=100_000, slope=1.0)
    estimate = posterior_means(direct, np.full(30, 100_000), unlabelled)
    np.testing.assert_allclose(estimate, direct, atol=0.005)


@pytest.mark.parametrize("unlabelled", [None, np.full(LEAST, np.nan)])
def test_without_other_evidence_it_is_the_direct_figures(unlabelled: np.ndarray | None) -> None:
    direct = np.linspace(0.3, 0.8, LEAST)
    np.testing.assert_array_equal(posterior_means(direct, np.full(LEAST, 10), unlabelled), direct)


def test_of_a_few_strategies_nothing_is_learned() -> None:
    direct = np.linspace(0.3, 0.8, LEAST - 1)
    np.testing.assert_array_equal(posterior_means(direct, np.full(LEAST - 1, 10), direct), direct)


@given(values=st.integers(0, 1000))
def test_what_was_not_looked_at_is_taken_for_usual(values: int) -> None:
    """Of all that were, the evidence counts as if those were not there."""
    rng = np.random.default_rng(values)
    direct, seen = rng.uniform(0.3, 0.8, LEAST + 4), rng.uniform(0.2, 0.9, LEAST + 4)
    images = np.full(len(direct), 20)
    without, usual = seen.copy(), seen.copy()
    without[:3], usual[:3] = np.nan, seen[3:].mean()
    np.testing.assert_allclose(posterior_means(direct, images, without), posterior_means(direct, images, usual))
