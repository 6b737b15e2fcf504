"""When another trial is not worth its time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raytl.search.plan.stopping import LEAST, expected_gain


@pytest.mark.parametrize(("law", "scale"), [("exponential", 0.1), ("normal", 0.1)])
@pytest.mark.parametrize("n", [20, 80])
def test_is_about_what_another_draw_brings(law: str, scale: float, n: int) -> None:
    """On average over many searches, against the gain that the next draw really brought."""
    rng = np.random.default_rng(0)
    draws = getattr(rng, law)(size=(4000, n + 1)) * scale
    really = np.maximum.reduce(draws, axis=1) - np.maximum.reduce(draws[:, :n], axis=1)
    told = [expected_gain(list(row[:n]), n) for row in draws[:1000]]
    assert 0.6 < np.mean(told) / really.mean() < 1.7


def test_is_infinite_while_little_is_known() -> None:
    assert expected_gain([], 0) == math.inf
    assert expected_gain([0.1 * i for i in range(LEAST - 1)], 30) == math.inf
    assert expected_gain([0.1 * i for i in range(LEAST)], 30) < math.inf


def test_trials_that_were_stopped_early_count_as_tries() -> None:
    scores = [0.1, 0.5, 0.6, 0.7, 0.72, 0.75]
    assert expected_gain(scores, 60) < expected_gain(scores, 6) / 5


@given(st.lists(st.floats(0, 1), min_size=LEAST, max_size=40), st.floats(-5, 5))
def test_is_never_negative_and_does_not_depend_on_the_level(scores: list[float], shift: float) -> None:
    gain = expected_gain(scores, len(scores))
    assert gain >= -1e-12
    assert expected_gain([score + shift for score in scores], len(scores)) == pytest.approx(gain, abs=1e-9)
    assert expected_gain(scores[::-1], len(scores)) == pytest.approx(gain)
