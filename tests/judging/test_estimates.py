"""What the winner of many is worth."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import norm

from raytl.evaluation import metric_interval, metrics
from raytl.evaluation.intervals import Interval
from raytl.judging import corrected_estimate, estimates, with_all_labels

ACCURACY = metrics.get("accuracy")


def candidates(
    rng: np.random.Generator, sizes: list[int], truths: np.ndarray, alike: float, together: float = 0.0
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Predictions of models with these accuracies. alike, together: correlation between models, and within groups."""
    groups = np.repeat(np.arange(len(sizes)), sizes)
    n = len(groups)
    shared = rng.standard_normal(len(sizes))[groups]
    hard = math.sqrt(together) * shared + math.sqrt(1 - together) * rng.standard_normal(n)
    latent = math.sqrt(alike) * hard + math.sqrt(1 - alike) * rng.standard_normal((len(truths), n))
    y = np.arange(n) % 2
    right = latent < norm.ppf(truths)[:, None]
    return [np.where((row == (y == 1))[:, None], [0.2, 0.8], [0.8, 0.2]) for row in right], y, groups


def simulate(
    sizes: list[int], count: int, *, together: float = 0.0, spread: float = 0.0, raced: int = 0, runs: int = 80
) -> tuple[float, float, float]:
    """Share of runs in which the corrected and the plain interval hold the winner's truth, and the mean error.

    raced: so many of the candidates alone were tried on more than a fifth of the items.
    """
    rng = np.random.default_rng(len(sizes))
    hits, plain, errors = [], [], []
    for _ in range(runs):
        truths = np.clip(0.7 + spread * rng.standard_normal(count), 0.5, 0.95)
        p, y, groups = candidates(rng, sizes, truths, 0.7, together)
        grouped = groups if together else None
        if raced:
            first = len(y) // 5
            order = np.argsort([-ACCURACY(rows[:first], y[:first]) for rows in p], kind="stable")
            for index in order[raced:]:
                p[index][first:] = np.nan
        complete = [index for index, rows in enumerate(p) if np.isfinite(rows).all()]
        winner = max(complete, key=lambda index: ACCURACY(p[index], y))
        found = corrected_estimate(ACCURACY, p, y, grouped)
        alone = metric_interval(ACCURACY, p[winner], y, grouped)
        hits.append(found.low <= truths[winner] <= found.high)
        plain.append(alone.low <= truths[winner] <= alone.high)
        errors.append(found.value - truths[winner])
    return float(np.mean(hits)), float(np.mean(plain)), float(np.mean(errors))


@pytest.mark.parametrize("n", [30, 60, 200])
def test_the_winner_of_equals_is_worth_what_they_all_are(n: int) -> None:
    covered, plain, error = simulate([1] * n, 30)
    assert covered >= 0.90
    assert plain < 0.85
    assert abs(error) < 0.005 + 3 * math.sqrt(0.7 * 0.3 / n / 80)


def test_also_with_groups() -> None:
    covered, _, error = simulate([10] * 20, 20, together=0.3)
    assert covered >= 0.90
    assert abs(error) < 0.02


def test_also_where_some_are_better() -> None:
    covered, _, error = simulate([1] * 100, 20, spread=0.05)
    assert covered >= 0.88
    assert -0.03 < error < 0.01


def test_also_where_most_were_left_behind_after_the_first_fold() -> None:
    covered, plain, error = simulate([1] * 100, 30, raced=5, runs=40)
    assert covered >= 0.90
    assert plain < covered
    assert abs(error) < 0.025


@pytest.mark.parametrize("n", [10, 30])
def test_also_where_the_winner_alone_was_tried_on_more(n: int) -> None:
    """It was chosen by two or six images, on which it is right more often than on others."""
    covered, _, error = simulate([1] * n, 10, raced=1, runs=100)
    assert covered >= 0.90
    assert abs(error) < 0.035


def unsure(rng: np.random.Generator, labels: np.ndarray, lead: float = 2.0) -> np.ndarray:
    """Probabilities whose largest is as often the label's as its lead over noise makes it."""
    k = int(labels.max()) + 1
    return np.asarray(softmax(1.5 * (rng.standard_normal((len(labels), k)) + lead * np.eye(k)[labels]), axis=1))


@pytest.mark.parametrize("name", metrics.names())
@pytest.mark.parametrize("counts", [(40, 40), (2,) * 20, (60, 4)], ids=str)
@pytest.mark.parametrize("raced", [False, True])
def test_one_candidate_needs_no_correction(name: str, counts: tuple[int, ...], raced: bool) -> None:
    """Nor does it where a race was won against a copy of itself: nothing was chosen, whatever fewer images do."""
    metric, y = metrics.get(name), np.repeat(np.arange(len(counts)), counts)
    p = unsure(np.random.default_rng(0), y)
    behind = np.where((np.arange(len(y)) % 2 == 0)[:, None], p, np.nan)
    found, alone = corrected_estimate(metric, [p, behind] if raced else [p], y), metric_interval(metric, p, y)
    assert found.to_json() == pytest.approx(alone.to_json(), abs=1e-3)


def test_the_seed_decides() -> None:
    p, y, _ = candidates(np.random.default_rng(1), [1] * 60, np.array([0.9, 0.5, 0.6]), 0.2)
    assert corrected_estimate(ACCURACY, p, y, seed=3) == corrected_estimate(ACCURACY, p, y, seed=3)


def test_in_whatever_order_they_were_tried() -> None:
    """Of few images many are equals: the first of them is no more the choice than another."""
    rng, apart = np.random.default_rng(4), []
    for _ in range(30):
        p, y, _ = candidates(rng, [1] * 8, np.linspace(0.5, 0.9, 8), 0.3)
        apart.append(corrected_estimate(ACCURACY, p, y).value - corrected_estimate(ACCURACY, p[::-1], y).value)
    assert abs(np.mean(apart)) < 0.01 and np.std(apart) < 0.02


@pytest.mark.parametrize("name", metrics.names())
def test_every_metric_stays_within_its_limits(name: str) -> None:
    rng = np.random.default_rng(2)
    y = rng.integers(0, 3, 40)
    p = [rng.dirichlet(np.ones(3), size=40) for _ in range(6)]
    p[0][10:] = np.nan
    p[1][25:] = np.nan
    metric = metrics.get(name)
    found = corrected_estimate(metric, p, y)
    assert metric.limits[0] <= found.low <= found.value <= found.high <= metric.limits[1]


def test_where_nothing_is_common_there_is_nothing_to_estimate() -> None:
    p = np.full((2, 4, 2), 0.5)
    p[0, :2], p[1, 2:] = np.nan, np.nan
    with pytest.raises(ValueError, match="no item in common"):
        corrected_estimate(ACCURACY, list(p), np.array([0, 1, 0, 1]))
    with pytest.raises(ValueError, match="needs candidates"):
        corrected_estimate(ACCURACY, [], np.array([0, 1]))


@pytest.mark.parametrize("share", [0.5, 0.8, 1.0])
def test_more_labels_than_the_judged_had_may_only_be_better(share: float) -> None:
    found = with_all_labels(ACCURACY, Interval(0.8, 0.7, 0.9), share)
    assert (found.value, found.low) == (0.8, 0.7) and found.high == pytest.approx(1 - 0.1 * math.sqrt(share))
    loss = with_all_labels(metrics.get("log-loss"), Interval(0.5, 0.4, 0.6), share)
    assert (loss.value, loss.high) == (0.5, 0.6) and loss.low == pytest.approx(0.4 * math.sqrt(share))


def test_of_very_many_probabilities_fewer_resamples_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, auroc = np.random.default_rng(0), metrics.get("auroc")
    y = rng.integers(0, 4, 3000)
    told = [rng.dirichlet(np.ones(4), 3000) + 0.3 * np.eye(4)[y] for _ in range(5)]
    p = [rows / rows.sum(axis=1, keepdims=True) for rows in told]
    drawn: list[int] = []
    resamples = estimates._resamples
    monkeypatch.setattr(estimates, "_resamples", lambda *given: drawn.append(given[2]) or resamples(*given))
    full = corrected_estimate(auroc, p, y)
    monkeypatch.setattr(estimates, "_CELLS", 1000)
    few = corrected_estimate(auroc, p, y)
    assert drawn == [400, 50]
    width = full.high - full.low
    assert abs(few.value - full.value) < 0.1 * width and (few.high - few.low) == pytest.approx(width, rel=0.05)


def test_the_good_end_is_where_the_metric_s_best_is() -> None:
    """Of a share of errors as of a loss the low one, of a coefficient from -1 to 1 the high one; the other stays."""
    judged = Interval(0.3, 0.2, 0.4)
    errors = with_all_labels(replace(ACCURACY, higher_is_better=False), judged, 0.25)
    assert errors == Interval(0.3, pytest.approx(0.1), 0.4)
    kappa = with_all_labels(replace(ACCURACY, share=False, limits=(-1.0, 1.0)), judged, 0.25)
    assert kappa == Interval(0.3, 0.2, pytest.approx(0.7))
    odds = with_all_labels(replace(ACCURACY, share=False, limits=(0.0, math.inf)), judged, 0.25)
    assert odds == judged  # of what has no best there are no errors


@pytest.mark.parametrize("exponent", [0.0, 0.25, 0.5])
def test_what_a_model_of_all_labels_is_worth_is_covered_however_fast_errors_fall(exponent: float) -> None:
    rng, n, share, missed = np.random.default_rng(0), 200, 0.5, 0
    for error in np.linspace(0.05, 0.5, 400):
        said = np.where((rng.random(n) < error)[:, None], [0.2, 0.8], [0.8, 0.2])
        judged = metric_interval(ACCURACY, said, np.zeros(n, dtype=int))
        found = with_all_labels(ACCURACY, judged, share)
        missed += not found.low <= 1 - error * share**exponent <= found.high
    assert missed <= 0.06 * 400


def test_nothing_is_scored_twice_out_of_the_bag() -> None:
    """Of hundreds of classes a metric that ranks takes seconds for it."""
    rng, accuracy, asked = np.random.default_rng(0), metrics.get("accuracy"), []
    labels = rng.integers(0, 3, 60)
    rows = [unsure(rng, labels) for _ in range(3)]

    def counted(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
        asked.append(len(weights))
        return accuracy.function(probabilities, labels, weights)

    corrected_estimate(replace(accuracy, function=counted), rows, labels)
    resampled = [count for count in asked if count > 1]
    assert sum(resampled) <= 2 * len(rows) * max(resampled)
