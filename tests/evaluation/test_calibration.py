"""Temperatures against a plain search, and the calibration error on predictions whose error is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from raytl.evaluation.calibration import (
    HOTTEST,
    apply_temperature,
    calibration_error,
    confidence_temperature,
    cross_temperatures,
    fit_temperature,
)


def calibrated(n: int, k: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels drawn from them: the right temperature is 1."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, k)) * 2
    return logits, (softmax(logits, axis=1).cumsum(axis=1) < rng.uniform(size=(n, 1))).sum(axis=1)


@pytest.mark.parametrize("factor", [0.2, 1.0, 6.0])
def test_the_temperature_undoes_a_factor_and_is_the_best_there_is(factor: float) -> None:
    logits, labels = calibrated(4000, 4)
    found = fit_temperature(logits * factor, labels, pull=0.0)

    def loss(t: float) -> float:
        return float(-log_softmax(logits * factor / t, axis=1)[np.arange(4000), labels].mean())

    assert found == pytest.approx(minimize_scalar(loss, bounds=(0.05, 20), method="bounded").x, rel=1e-3)
    assert found == pytest.approx(factor, rel=0.1)
    assert fit_temperature(logits * factor, labels) == pytest.approx(found, rel=0.01)
    assert fit_temperature(log_softmax(logits * factor, axis=1), labels, pull=0.0) == pytest.approx(found)


def test_no_evidence_leaves_one_and_little_evidence_moves_little() -> None:
    assert fit_temperature(np.full((5, 3), np.nan), np.zeros(5, int)) == 1.0
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, int)) == 1.0
    right = np.eye(3)[[0, 1, 2]] * 2.0
    assert 0.4 < fit_temperature(right, np.arange(3)) < 1.0
    wrong = np.eye(3)[[1, 2, 0]] * 200.0
    assert fit_temperature(wrong, np.arange(3), pull=0.0) == HOTTEST


def test_weights_stand_for_copies_and_rows_of_nan_for_nothing() -> None:
    logits, labels = calibrated(60, 3)
    copies = np.arange(60) % 3
    weighted = fit_temperature(3 * logits, labels, copies, pull=0.0)
    assert weighted == pytest.approx(fit_temperature(3 * logits.repeat(copies, 0), labels.repeat(copies), pull=0.0))
    logits[copies == 0] = np.nan
    assert fit_temperature(3 * logits, labels, copies, pull=0.0) == pytest.approx(weighted)


class TestCrossTemperatures:
    def test_undo_a_factor_without_the_item_itself(self) -> None:
        logits, labels = calibrated(400, 4)
        p = softmax(3 * logits, axis=1)
        found = cross_temperatures(p, labels)
        assert len(np.unique(found)) == 5 and found == pytest.approx(3, rel=0.3)
        moved = labels.copy()
        moved[0] = (labels[0] + 1) % 4
        again = cross_temperatures(p, moved)
        assert again[0] == found[0] and (again != found).any()

    def test_are_those_of_other_groups(self) -> None:
        logits, labels = calibrated(60, 3)
        p, groups = softmax(3 * logits, axis=1), np.arange(60) // 6
        found = cross_temperatures(p, labels, groups)
        assert all(len(np.unique(found[groups == group])) == 1 for group in range(10))
        assert len(np.unique(found)) == 5
        assert (cross_temperatures(p, labels, np.zeros(60, dtype=int)) == 1).all()

    def test_are_one_where_too_little_is_known(self) -> None:
        logits, labels = calibrated(40, 3)
        p = softmax(3 * logits, axis=1)
        p[:21] = np.nan
        assert (cross_temperatures(p, labels) == 1).all()

    def test_of_many_items_are_those_of_some(self) -> None:
        """One number is known well enough by then."""
        logits, labels = calibrated(6000, 100)
        found = cross_temperatures(softmax(2 * logits, axis=1), labels)
        assert found == pytest.approx(2, rel=0.1)


def test_calibration_error_is_the_gap_that_was_put_in() -> None:
    logits, labels = calibrated(20_000, 4)
    assert calibration_error(softmax(logits, axis=1), labels) < 0.015
    sure = np.tile([0.9, 0.1], (1000, 1))
    assert calibration_error(sure, np.arange(1000) % 2) == pytest.approx(0.4)
    assert calibration_error(sure[:0], labels[:0]) == 0.0
    # Errors of both signs in different bins do not cancel.
    both = np.repeat([[0.6, 0.4], [0.99, 0.01]], 500, axis=0)
    truth = np.r_[np.zeros(500, int), np.arange(500) % 2]
    assert calibration_error(both, truth, bins=2) == pytest.approx((0.4 + 0.49) / 2)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 20))
def test_a_temperature_keeps_order_and_sum_and_does_not_feel_the_order_of_classes(seed: int, t: float) -> None:
    logits, labels = calibrated(30, 4, seed)
    p = softmax(logits, axis=1)
    cooled = apply_temperature(p, t)
    np.testing.assert_allclose(cooled.sum(axis=1), 1.0)
    np.testing.assert_allclose(cooled, softmax(logits / t, axis=1), atol=1e-9)
    order = np.random.default_rng(seed).permutation(4)
    moved = fit_temperature(logits[:, order], np.argsort(order)[labels])
    assert moved == pytest.approx(fit_temperature(logits, labels))


def test_a_temperature_of_nought_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        apply_temperature(np.full((1, 2), 0.5), 0.0)


@pytest.mark.parametrize("accuracy", [0.5, 0.8, 0.95])
def test_a_confidence_that_is_asked_for_is_had_on_average(accuracy: float) -> None:
    probabilities = softmax(calibrated(300, 4)[0], axis=1)
    found = confidence_temperature(probabilities, accuracy)
    assert apply_temperature(probabilities, found).max(axis=1).mean() == pytest.approx(accuracy, abs=1e-3)
    assert confidence_temperature(probabilities, 0.1) == pytest.approx(HOTTEST)  # below chance nobody can be
