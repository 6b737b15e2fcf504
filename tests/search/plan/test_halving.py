"""Asynchronous successive halving as a rule on its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raytl.search.plan.halving import SuccessiveHalving, kind_of
from raytl.training import Strategy

scores = st.lists(st.floats(0, 1, allow_subnormal=False), min_size=1, max_size=40, unique=True)


@pytest.mark.parametrize(
    ("grace", "factor", "epochs", "rungs"),
    [(2, 3, 8, [2, 6]), (1, 2, 8, [1, 2, 4]), (3, 3, 27, [3, 9]), (5, 3, 5, []), (9, 3, 5, []), (2, 3, 6, [2])],
)
def test_rungs_stand_below_the_full_budget(grace: int, factor: int, epochs: int, rungs: list[int]) -> None:
    assert list(SuccessiveHalving(grace, factor, epochs).rungs) == rungs


@given(scores, st.integers(2, 4))
def test_the_best_so_far_always_goes_on(values: list[float], factor: int) -> None:
    halving = SuccessiveHalving(1, factor, 10)
    for i, value in enumerate(values):
        goes_on = halving.goes_on(1, value)
        assert goes_on or value < max(values[:i])


@given(scores, st.integers(2, 4), st.data())
def test_a_better_score_never_fares_worse(values: list[float], factor: int, data: st.DataObject) -> None:
    better = data.draw(st.floats(values[-1], 2))
    answers = []
    for last in (values[-1], better):
        halving = SuccessiveHalving(1, factor, 10)
        answers.append([halving.goes_on(1, value) for value in [*values[:-1], last]][-1])
    assert answers[0] <= answers[1]


@given(scores, st.integers(2, 4))
def test_only_the_first_few_go_on_unexamined(values: list[float], factor: int) -> None:
    """In falling order nobody is ever better than what came before: after the first few all are stopped."""
    halving = SuccessiveHalving(1, factor, 10)
    answers = [halving.goes_on(1, value) for value in sorted(values, reverse=True)]
    assert answers[: factor - 1] == [True] * min(len(values), factor - 1)
    assert sum(answers) <= factor - 1 + len(values) // factor


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_about_one_in_factor_goes_on(factor: int) -> None:
    halving = SuccessiveHalving(1, factor, 10)
    share = np.mean([halving.goes_on(1, score) for score in np.random.default_rng(0).random(3000)])
    assert share == pytest.approx(1 / factor, abs=0.03)


def test_between_rungs_nothing_is_decided_or_counted() -> None:
    halving = SuccessiveHalving(2, 3, 10)
    assert all(halving.goes_on(epoch, score) for epoch in (1, 3, 5, 7) for score in (0.9, 0.5, 0.1))
    assert halving.rungs == {2: {}, 6: {}}


def test_strategies_are_held_against_their_own_kind() -> None:
    """What comes to its best late is not stopped by what is ahead early."""
    halving = SuccessiveHalving(2, 3, 10)
    assert [halving.goes_on(2, 0.9, "early") for _ in range(3)] == [True] * 3
    assert halving.goes_on(2, 0.2, "late") and halving.goes_on(2, 0.3, "late") and halving.goes_on(2, 0.4, "late")
    assert not halving.goes_on(2, 0.1, "late") and not halving.goes_on(2, 0.4, "early")


def test_kinds_are_what_makes_curves_cross() -> None:
    plain = Strategy("scratch:cnn-small")
    same = [plain, replace(plain, head_lr=0.5), replace(plain, source_domain="a")]
    others = [replace(plain, adaptation="mcc"), replace(plain, start="probe")]
    kinds = [kind_of(strategy.to_dict()) for strategy in (*same, *others)]
    assert len(set(kinds[:3])) == 1 and len(set(kinds)) == 3
    assert kind_of({}) == kinds[0]  # a record that does not say


def test_recorded_scores_of_others_raise_the_bar() -> None:
    halving = SuccessiveHalving(2, 3, 10)
    for _ in range(3):
        halving.record(2, 0.9)
        halving.record(3, 0.9)
    assert not halving.goes_on(2, 0.5)
