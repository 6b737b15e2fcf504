"""What matched pairs say of the winner's parts."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from raytl.evaluation import Comparison, holm_comparisons, metrics
from raytl.judging import Control, Part, Tone, equivalence_margin, how_good, judged


def gap(value: float, error: float) -> Comparison:
    p = float(2 * norm.sf(abs(value) / error))
    return Comparison(value, value, value, p, value, error, 1e9, (-1.0, 1.0)).at(0.95)


def tones(*controls: Control, margin: float = 0.02) -> dict[Part, Tone]:
    return {verdict.part: verdict.tone for verdict in judged(controls, margin=margin)}


@pytest.mark.parametrize(
    ("value", "error", "tone"),
    [
        (0.10, 0.02, Tone.HELPED),
        (-0.10, 0.02, Tone.HARM),
        (0.03, 0.02, Tone.CANNOT_TELL),
        (0.0, 0.02, Tone.CANNOT_TELL),
        (0.0, 0.005, Tone.DID_NOT),
        (0.01, 0.002, Tone.HELPED),
    ],
)
def test_one_pair(value: float, error: float, tone: Tone) -> None:
    assert tones(Control("without", Part.ADAPTATION, gap(value, error))) == {Part.ADAPTATION: tone}


def test_what_one_pair_shows_may_not_hold_among_five() -> None:
    found = gap(0.05, 0.022)
    assert found.low > 0
    others = [Control(str(part), part, gap(0.0, 0.03)) for part in Part if part != Part.FREEZING]
    assert tones(Control("f", Part.FREEZING, found))[Part.FREEZING] == Tone.HELPED
    assert tones(Control("f", Part.FREEZING, found), *others)[Part.FREEZING] == Tone.CANNOT_TELL


def test_the_worst_news_of_several_controls_decides() -> None:
    clear = Control("scratch", Part.SOURCE_MODEL, gap(0.3, 0.02))
    open_ = Control("probe", Part.SOURCE_MODEL, gap(0.02, 0.03))
    found = judged([clear, open_], margin=0.02)
    verdict = min(found, key=lambda one: how_good(one.tone, one.comparison.value))
    assert (verdict.control, verdict.tone) == ("probe", Tone.CANNOT_TELL)
    assert verdict.comparison == open_.comparison


def test_a_pair_that_could_not_be_compared_says_nothing() -> None:
    nothing = Comparison(math.nan, -1.0, 1.0, 1.0, math.nan, math.nan, 0.0, (-1.0, 1.0))
    assert tones(Control("x", Part.SOURCE_DOMAIN, nothing)) == {Part.SOURCE_DOMAIN: Tone.CANNOT_TELL}
    assert judged([], margin=0.02) == []


@given(st.lists(st.tuples(st.sampled_from(Part), st.floats(-0.3, 0.3), st.floats(0.001, 0.2)), min_size=1, max_size=8))
@settings(max_examples=60)
def test_tones_are_what_the_adjusted_intervals_are(drawn: list[tuple[Part, float, float]]) -> None:
    controls = [Control(str(i), part, gap(value, error)) for i, (part, value, error) in enumerate(drawn)]
    found = judged(controls, margin=0.02)
    assert [verdict.part for verdict in found] == [part for part, _, _ in drawn]
    together = holm_comparisons([control.comparison for control in controls])
    for verdict, wide in zip(found, together, strict=True):
        assert (verdict.tone == Tone.HELPED) == (wide.low > 0)
        assert (verdict.tone == Tone.HARM) == (wide.high < 0)
        if verdict.tone == Tone.DID_NOT:
            assert max(abs(wide.low), abs(wide.high)) <= verdict.margin


def test_what_does_not_matter_shrinks_towards_perfection() -> None:
    accuracy, loss = metrics.get("accuracy"), metrics.get("log-loss")
    assert equivalence_margin(accuracy, 0.8) == pytest.approx(0.02)
    assert equivalence_margin(accuracy, 0.98) == pytest.approx(0.005)
    assert equivalence_margin(accuracy, 1.0) > 0
    assert equivalence_margin(loss, 0.6) == pytest.approx(0.03)
