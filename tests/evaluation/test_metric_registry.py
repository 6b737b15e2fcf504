"""The registered metrics: against scikit-learn, under weights, and where they are undefined."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from raytl.core.errors import UserError
from raytl.evaluation import metrics

NAMES = ["accuracy", "auroc", "average-precision", "balanced-accuracy", "log-loss", "macro-f1"]


def outputs(seed: int, n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities with many ties, and labels in which every class occurs."""
    rng = np.random.default_rng(seed)
    p = np.round(rng.dirichlet(np.full(k, 0.6), size=n), 1) + 0.01
    return p / p.sum(axis=1, keepdims=True), rng.permutation(np.arange(n) % k)


def _average_precision(y: np.ndarray, p: np.ndarray) -> float:
    k = p.shape[1]
    labels = [int(2 * y.sum() <= len(y))] if k == 2 else range(k)
    return float(np.mean([reference.average_precision_score(y == label, p[:, label]) for label in labels]))


def _auroc(y: np.ndarray, p: np.ndarray) -> float:
    return float(reference.roc_auc_score(y, p[:, 1] if p.shape[1] == 2 else p, multi_class="ovr"))


SCIKIT_LEARN: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": lambda y, p: reference.accuracy_score(y, p.argmax(1)),
    "auroc": _auroc,
    "average-precision": _average_precision,
    "balanced-accuracy": lambda y, p: reference.balanced_accuracy_score(y, p.argmax(1)),
    "log-loss": lambda y, p: reference.log_loss(y, p, labels=range(p.shape[1])),
    "macro-f1": lambda y, p: reference.f1_score(y, p.argmax(1), average="macro", zero_division=0),
}


def test_the_metrics_are_known_by_name() -> None:
    assert metrics.names() == NAMES
    with pytest.raises(UserError, match="did you mean 'balanced-accuracy'"):
        metrics.get("balanced_accuracy")
    loss = metrics.get("log-loss")
    assert (loss.higher_is_better, loss.share, loss.oriented(0.4)) == (False, False, -0.4)
    assert metrics.get("balanced-accuracy").title == "balanced accuracy"


@pytest.mark.parametrize("name", NAMES)
class TestEveryMetric:
    @given(st.integers(0, 10**6), st.integers(6, 40), st.integers(2, 5))
    @settings(max_examples=25)
    def test_is_scikit_learns(self, name: str, seed: int, n: int, k: int) -> None:
        p, y = outputs(seed, n, k)
        assert metrics.get(name)(p, y) == pytest.approx(SCIKIT_LEARN[name](y, p))

    @given(st.integers(0, 10**6), st.integers(6, 40), st.integers(2, 5))
    @settings(max_examples=25)
    def test_weights_are_items_taken_several_times_or_not_at_all(self, name: str, seed: int, n: int, k: int) -> None:
        p, y = outputs(seed, n, k)
        metric = metrics.get(name)
        rows = np.random.default_rng(seed).integers(0, 3, (5, n))
        values = metric.values(p, y, rows)
        for weights, value in zip(rows, values, strict=True):
            assert metric(p, y, weights) == pytest.approx(value, nan_ok=True)
            again, labels = np.repeat(p, weights, axis=0), np.repeat(y, weights)
            if len(labels) and (name != "average-precision" or k > 2 or len(set(np.bincount(labels))) == 1):
                assert value == pytest.approx(metric(again, labels), nan_ok=True)
        assert metric(p, y, np.ones(n)) == metric(p, y)

    @given(st.integers(0, 10**6), st.integers(6, 40), st.integers(2, 5))
    @settings(max_examples=15)
    def test_influence_is_the_derivative_by_the_weights(self, name: str, seed: int, n: int, k: int) -> None:
        p, y = outputs(seed, n, k)
        weights = np.random.default_rng(seed).integers(1, 4, n).astype(float)
        metric = metrics.get(name)
        exact = metric.influence(p, y, weights)
        np.testing.assert_allclose(exact, replace(metric, gradient=None).influence(p, y, weights), atol=1e-5)
        assert exact @ weights == pytest.approx(0, abs=1e-9)

    def test_is_best_for_a_model_that_is_right_and_sure(self, name: str) -> None:
        metric = metrics.get(name)
        _, y = outputs(0, 30, 3)
        perfect, blind = np.eye(3)[y], np.full((30, 3), 1 / 3)
        best = metric.limits[1] if metric.higher_is_better else metric.limits[0]
        assert metric(perfect, y) == pytest.approx(best)
        assert metric.oriented(metric(perfect, y)) > metric.oriented(metric(blind, y))

    def test_is_undefined_where_nothing_has_weight(self, name: str) -> None:
        p, y = outputs(0, 6, 2)
        assert math.isnan(metrics.get(name)(p, y, np.zeros(6)))

    def test_negative_weights_are_refused(self, name: str) -> None:
        p, y = outputs(0, 6, 2)
        with pytest.raises(ValueError, match="multiplicities"):
            metrics.get(name).values(p, y, -np.ones((1, 6)))


@pytest.mark.parametrize("limits", [(0.0, 1.0), (-1.0, 1.0), (0.0, math.inf), (-math.inf, 0.0), (-math.inf, math.inf)])
@pytest.mark.parametrize("higher", [True, False])
def test_what_is_better_is_better_as_a_share_of_what_can_be_reached(limits: tuple[float, float], higher: bool) -> None:
    metric = replace(metrics.get("accuracy"), limits=limits, higher_is_better=higher)
    values = [value for value in (-40.0, -1.0, -0.4, 0.0, 0.3, 1.0, 40.0) if limits[0] <= value <= limits[1]]
    shares = [metric.goodness(value) for value in (values if higher else values[::-1])]
    assert all(0 <= share <= 1 for share in shares) and shares == sorted(shares) and shares[0] < shares[-1]
    assert math.isnan(metric.goodness(math.nan))
    worst, best = limits if higher else limits[::-1]
    assert not math.isfinite(best) or metric.goodness(best) == 1
    assert not math.isfinite(worst) or metric.goodness(worst) == 0


def test_of_shares_and_losses_it_is_what_it_says() -> None:
    assert metrics.get("accuracy").goodness(0.8) == 0.8
    assert metrics.get("log-loss").goodness(0.5) == pytest.approx(math.exp(-0.5))


def test_ranking_one_class_is_undefined() -> None:
    p = np.array([[0.3, 0.7], [0.6, 0.4]])
    assert math.isnan(metrics.get("auroc")(p, np.array([1, 1])))
    assert math.isnan(metrics.get("auroc")(p, np.array([0, 1]), np.array([0, 2])))


def test_a_task_s_average_precision_is_of_one_class_whatever_it_is_taken_on() -> None:
    """A test in which the frequencies are the other way round measured how the other class is found."""
    p, y = outputs(3, 40, 2)
    fixed = metrics.get("average-precision").finding(1, ("good", "bad"))
    assert (fixed.positive, fixed.title) == (1, "average precision of 'bad'")
    for labels in (y, np.where(np.arange(40) < 30, 1, y)):
        assert fixed(p, labels) == pytest.approx(reference.average_precision_score(labels, p[:, 1]))
    assert np.isnan(fixed(p, np.zeros(40, dtype=int)))
    rare, common = np.where(np.arange(40) < 10, 1, 0), np.where(np.arange(40) < 30, 1, 0)
    assert fixed.influence(p, rare)[:10].any() and fixed.influence(p, common)[:30].any()
    assert fixed.reach is not None and (fixed.reach(common, 2) > 0).tolist() == (common == 1).tolist()
    assert fixed.finding(0, ("good", "bad")) is fixed
    assert metrics.get("auroc").finding(0, ("good", "bad")) is metrics.get("auroc")
    three = metrics.get("average-precision").finding(0, ("a", "b", "c"))
    assert three is metrics.get("average-precision")


def test_average_precision_of_two_classes_is_that_of_the_rarer_whichever_column_it_has() -> None:
    p, _ = outputs(3, 20, 2)
    y = (np.arange(20) < 4).astype(np.int64)
    metric = metrics.get("average-precision")
    assert metric(p, y) == pytest.approx(reference.average_precision_score(y, p[:, 1]))
    assert metric(p[:, ::-1], 1 - y) == pytest.approx(metric(p, y))


def test_a_class_that_does_not_occur_counts_for_nothing() -> None:
    p, y = outputs(1, 20, 2)
    wider = np.concatenate([p, np.zeros((20, 1))], axis=1)
    for name in ("accuracy", "balanced-accuracy", "macro-f1", "log-loss"):
        assert metrics.get(name)(wider, y) == pytest.approx(metrics.get(name)(p, y))


@pytest.mark.parametrize(
    ("counts", "name"),
    [([10, 29], "accuracy"), ([10, 30], "balanced-accuracy"), ([10, 0, 12], "accuracy"), ([], "accuracy")],
)
def test_skewed_classes_call_for_balanced_accuracy(counts: list[int], name: str) -> None:
    assert metrics.usual_metric(counts) == name


def _gone(p: np.ndarray, y: np.ndarray, w: np.ndarray) -> np.ndarray:
    raise IndexError("index 3 is out of bounds")


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (_gone, "raised IndexError: index 3 is out of bounds"),
        (lambda p, y, w: np.float64(0.5), r"shape \(\) for 2 rows"),
    ],
)
def test_what_a_metric_of_ones_own_does_wrong_is_told_in_a_sentence(
    function: metrics.base.Values, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = metrics.Metric("mine", "mine", function)
    monkeypatch.setitem(metrics.base.registry._entries, "mine", mine)
    monkeypatch.setitem(metrics.base.registry._origins, "mine", "kit.figures")
    p, y = outputs(0, 6, 2)
    with pytest.raises(UserError, match=f"^metric 'mine' of module 'kit.figures' .*{told}"):
        mine.values(p, y, np.ones((2, 6)))


def test_figures_of_a_metric_that_is_not_here_are_told_by_its_name() -> None:
    gone = metrics.recorded("mine")
    assert (gone.title, gone.share, metrics.recorded("auroc")) == ("mine", False, metrics.get("auroc"))
    with pytest.raises(UserError, match="unknown metric 'mine'"):
        gone(*outputs(0, 6, 2))
