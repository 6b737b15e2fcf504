"""Intervals that say how little few examples tell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from raytl.evaluation.intervals.binomial import share_interval


def test_ten_right_answers_are_not_certainty() -> None:
    low, high = share_interval(1.0, 10)
    assert high == 1.0
    assert low == pytest.approx(0.05**0.1, abs=1e-6)  # all right, and half of that: p ** 10 / 2 = 0.025
    assert share_interval(0.0, 10) == pytest.approx((0.0, 1 - low))


@pytest.mark.parametrize(
    ("right", "of", "low", "high"),
    [(81, 263, 0.2544, 0.3658), (15, 148, 0.0601, 0.1581), (0, 20, 0.0, 0.1391), (1, 29, 0.0017, 0.1585)],
)
def test_known_mid_p_intervals(right: int, of: int, low: float, high: float) -> None:
    assert share_interval(right / of, of) == pytest.approx((low, high), abs=6e-5)  # Newcombe (1998), table I


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
