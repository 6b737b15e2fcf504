"""Intervals that say how little few examples tell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from raytl.evaluation import bootstrap_interval, paired_interval
from raytl.evaluation.intervals.binomial import share_interval

shares = st.lists(st.floats(0, 1), min_size=1, max_size=30)
answers = st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=30)


@given(shares | answers)
@settings(max_examples=60)
def test_the_interval_holds_the_mean_and_stays_within_the_possible(values: list[float]) -> None:
    interval = bootstrap_interval(np.array(values), resamples=200)
    assert interval.value == pytest.approx(np.mean(values))
    assert 0.0 <= interval.low <= interval.value <= interval.high <= 1.0


@given((answers | shares).flatmap(lambda a: st.tuples(st.just(a), st.permutations(a))))
@settings(max_examples=60)
def test_the_paired_interval_holds_the_mean_difference(pair: tuple[list[float], list[float]]) -> None:
    a, b = np.array(pair[0]), np.array(pair[1])
    interval = paired_interval(a, b, resamples=200)
    assert interval.value == pytest.approx((a - b).mean(), abs=1e-12)
    assert -1.0 <= interval.low <= interval.value <= interval.high <= 1.0


def test_ten_right_answers_are_not_certainty() -> None:
    perfect = bootstrap_interval(np.ones(10))
    assert (perfect.value, perfect.high) == (1.0, 1.0)
    assert perfect.low == pytest.approx(0.05**0.1, abs=1e-6)  # all right, and half of that: p ** 10 / 2 = 0.025
    hopeless = bootstrap_interval(np.zeros(10))
    assert (hopeless.low, hopeless.high) == pytest.approx((0.0, 1 - perfect.low))


@pytest.mark.parametrize(
    ("right", "of", "low", "high"),
    [(81, 263, 0.2544, 0.3658), (15, 148, 0.0601, 0.1581), (0, 20, 0.0, 0.1391), (1, 29, 0.0017, 0.1585)],
)
def test_known_mid_p_intervals(right: int, of: int, low: float, high: float) -> None:
    interval = bootstrap_interval(np.array([1.0] * right + [0.0] * (of - right)))
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=6e-5)  # Newcombe (1998), table I


@pytest.mark.parametrize("count", [6, 10, 20, 50, 100])
def test_a_good_model_is_seldom_above_its_interval(count: int) -> None:
    ends = [share_interval(right / count, count) for right in range(count + 1)]
    for truth in np.linspace(0.5, 0.995, 100):
        chances = binom.pmf(np.arange(count + 1), count, truth)
        above = sum(chance for chance, (_, high) in zip(chances, ends, strict=True) if high < truth)
        below = sum(chance for chance, (low, _) in zip(chances, ends, strict=True) if low > truth)
        assert above <= 0.05
        assert above + below <= 0.09


@given(st.floats(0, 1), st.floats(1, 1e5), st.floats(1.96, 12))
@settings(max_examples=100)
def test_a_share_lies_in_its_interval_whatever_its_answers(share: float, answers: float, z: float) -> None:
    low, high = share_interval(share, answers, z)
    assert 0 <= low <= share <= high <= 1
    other_low, other_high = share_interval(1 - share, answers, z)
    assert (1 - other_high, 1 - other_low) == pytest.approx((low, high), abs=1e-6)
    wider = share_interval(share, answers, z + 1)
    assert wider[0] <= low + 1e-9
    assert wider[1] >= high - 1e-9


def test_one_value_says_nothing() -> None:
    assert bootstrap_interval(np.array([0.4])).to_json() == {"value": 0.4, "low": 0.0, "high": 1.0}
    assert paired_interval(np.array([0.4]), np.array([0.1])).to_json() == pytest.approx(
        {"value": 0.3, "low": -1.0, "high": 1.0}
    )


def test_two_models_alike_on_ten_images_may_still_differ() -> None:
    interval = paired_interval(np.ones(10), np.ones(10))
    assert interval.low <= -0.15
    assert interval.high >= 0.15


def test_pairing_sees_what_two_separate_intervals_would_not() -> None:
    rng = np.random.default_rng(0)
    b = (rng.random(600) < 0.7).astype(float)
    a = np.where(rng.random(600) < 0.05, 1.0, b)  # the same model with some of its mistakes mended
    gain = paired_interval(a, b)
    assert gain.low > 0
    assert bootstrap_interval(a).low < bootstrap_interval(b).high
    mirrored = paired_interval(b, a)
    assert (mirrored.low, mirrored.high) == pytest.approx((-gain.high, -gain.low), abs=0.006)


def test_the_seed_decides() -> None:
    values = np.random.default_rng(0).random(40)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


@pytest.mark.parametrize("n", [10, 60, 600])
@pytest.mark.parametrize("p", [0.6, 0.95])
def test_intervals_of_accuracies_cover_the_truth_95_times_in_100(n: int, p: float) -> None:
    rng = np.random.default_rng(1)
    intervals = [bootstrap_interval((rng.random(n) < p).astype(float)) for _ in range(1000)]
    assert 0.91 < np.mean([i.low <= p <= i.high for i in intervals]) < 0.995


@pytest.mark.parametrize("n", [8, 200])
def test_intervals_of_graded_values_cover_the_truth(n: int) -> None:
    rng = np.random.default_rng(2)
    intervals = [bootstrap_interval(rng.beta(2, 3, n), resamples=300) for _ in range(200)]
    assert 0.90 < np.mean([i.low <= 0.4 <= i.high for i in intervals]) < 0.99


@pytest.mark.parametrize("n", [20, 300])
def test_intervals_of_gains_cover_the_truth(n: int) -> None:
    rng = np.random.default_rng(3)
    hits = []
    for _ in range(300):
        b = rng.random(n) < 0.8
        a = np.where(rng.random(n) < 0.25, rng.random(n) < 0.9, b)
        truth = 0.25 * (0.9 - 0.8)
        interval = paired_interval(a.astype(float), b.astype(float), resamples=500)
        hits.append(interval.low <= truth <= interval.high)
    assert 0.91 < np.mean(hits) <= 1.0


@pytest.mark.parametrize("values", [[], [0.5, 1.2], [-0.1], [float("nan")]])
def test_what_is_no_share_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="each in \\[0, 1\\]"):
        bootstrap_interval(np.array(values))


def test_pairs_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="as many: 3 and 2"):
        paired_interval(np.ones(3), np.ones(2))
