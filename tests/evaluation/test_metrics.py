"""What metrics are counted from, against scikit-learn's, and what it must say at the edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from raytl.evaluation import confusion, correctness, log_losses


def outputs(seed: int, n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(k, 0.4), size=n).astype(np.float32)
    return p, rng.integers(0, k, n)


@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(2, 6))
@settings(max_examples=40)
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_tables_are_scikit_learns(seed: int, n: int, k: int) -> None:
    p, y = outputs(seed, n, k)
    predicted = p.argmax(axis=1)
    clipped = np.clip(p.astype(np.float64)[np.arange(n), y], 1e-7, 1.0)
    np.testing.assert_allclose(log_losses(p, y), -np.log(clipped))
    np.testing.assert_array_equal(confusion(p, y), reference.confusion_matrix(y, predicted, labels=range(k)))
    assert correctness(p, y).mean() == pytest.approx(reference.accuracy_score(y, predicted))


def test_a_perfect_model_has_no_loss_and_a_sure_mistake_a_finite_one() -> None:
    p = np.eye(3)
    assert log_losses(p, np.arange(3)).tolist() == [0.0] * 3
    assert log_losses(p, np.array([1, 2, 0])) == pytest.approx(-math.log(1e-7))


@pytest.mark.parametrize(
    ("p", "y"),
    [
        (np.ones((2, 2)) / 2, np.array([0])),
        (np.ones((0, 2)), np.zeros(0, dtype=np.int64)),
        (np.ones((2, 2)) / 2, np.array([0, 2])),
        (np.ones((2, 2)) / 2, np.array([-1, 0])),
    ],
)
def test_outputs_that_do_not_fit_are_refused(p: np.ndarray, y: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"belong together|labels run from"):
        confusion(p, y)
