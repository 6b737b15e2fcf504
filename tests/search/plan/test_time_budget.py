"""How a time budget is shared: what must follow still fits, and nothing is left unused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raytl.search.plan.time_budget import (
    CONFIRM_SHARE,
    CONTROL_SHARE,
    CONTROLS,
    LEAST_ROOM_S,
    TEST_SHARE,
    TimeBudget,
    trial_seconds,
    yardstick_seconds,
)
from raytl.search.records import LEAST_AGAIN, TrialRecord, TrialStatus


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def budget(seconds: float | None, *records: TrialRecord, used: float = 0.0, **settings: Any) -> TimeBudget:
    clock = Clock()
    made = TimeBudget(seconds, clock, clock.now, records, **({"lanes": 1, "tested": True, "folds": 1} | settings))
    clock.now += used
    return made


def took(*seconds: float) -> list[TrialRecord]:
    return [
        TrialRecord(n, "search", {}, str(n), status=TrialStatus.COMPLETED, seconds=s) for n, s in enumerate(seconds)
    ]


def test_without_a_limit_everything_fits() -> None:
    free = budget(None, *took(100.0), used=1e9)
    assert not free.limited and free.left() == math.inf
    assert free.allows(1e9) and not free.search_is_over()


def test_a_trial_takes_what_the_longest_completed_one_took() -> None:
    records = took(5.0, 20.0, 10.0)
    records.append(TrialRecord(9, "search", {}, "x", status=TrialStatus.PRUNED, seconds=99.0))
    assert trial_seconds(records) == 20.0
    assert trial_seconds([]) == 0.0


def test_the_refit_of_a_head_finds_its_features() -> None:
    """A probe that put 600 images through a network for the first time was taken to do so again."""
    head = TrialRecord(0, "probe", {"head": "stages"}, "a", status=TrialStatus.COMPLETED, seconds=20.0, made_s=16.0)
    assert trial_seconds([head]) == pytest.approx(4.0)
    head.made_s = 20.0
    assert trial_seconds([head]) == pytest.approx(LEAST_AGAIN * 20.0)
    trained = TrialRecord(0, "search", {"head": "linear"}, "b", status=TrialStatus.COMPLETED, seconds=20.0, made_s=16.0)
    assert trial_seconds([trained]) == 20.0


def test_the_winners_refit_and_its_controls_are_kept_room_for() -> None:
    given, room = budget(1000.0, *took(10.0), used=400.0), 600.0 - 10.0 - 10.0 * CONTROLS
    assert given.allows(room - 1) and not given.allows(room + 1)
    assert given.allows(589.0, keep_controls=False)
    assert not given.allows(591.0, keep_controls=False)


def test_controls_of_a_leader_that_takes_longer_than_usual_take_as_long_as_it() -> None:
    """In the demo adaptation takes three times a fine-tune: its controls were the first to be left out."""
    records, kept = took(2.0, 2.0, 2.0, 12.0), 1000.0 - 12.0
    usual, slow = budget(1000.0, *records), budget(1000.0, *records, leader=lambda: "3")
    assert usual.allows(kept - 2.0 * CONTROLS - 1) and not slow.allows(kept - 2.0 * CONTROLS - 1)
    assert slow.allows(kept - 12.0 * CONTROLS - 1)


def test_controls_take_no_more_than_their_share() -> None:
    given = budget(100.0, *took(30.0))  # three controls would take 90 s
    room = 100.0 - 30.0 - CONTROL_SHARE * 100.0
    assert given.allows(room - 1) and not given.allows(room + 1)


def test_on_folds_controls_take_as_many_rounds_as_there_are_folds() -> None:
    short = took(1.0)
    once, on_folds = budget(100.0, *short), budget(100.0, *short, tested=False, folds=4)
    assert once.allows(99.0 - CONTROLS - 0.1) and not once.allows(99.0 - CONTROLS + 0.1)
    assert on_folds.allows(99.0 - 4 * CONTROLS - 0.1) and not on_folds.allows(99.0 - 4 * CONTROLS + 0.1)


def test_what_may_win_is_to_be_refitted_in_time() -> None:
    after_one, before = budget(100.0, *took(1.0)), budget(100.0)
    assert after_one.allows(60.0) and not after_one.allows(60.0, may_win=True)
    assert before.allows(48.0, may_win=True) and not before.allows(52.0, may_win=True)
    assert not budget(100.0, refits=2).allows(40.0, may_win=True)  # it is trained on the test's labels as well
    assert budget(100.0, *took(10.0), refits=2).refit_seconds() == 20.0


def test_what_is_behind_for_good_is_not_refitted() -> None:
    given = budget(100.0, *took(40.0, 2.0), refits=2, may_win=lambda: ["1"])
    assert given.refit_seconds() == 4.0 and given.shipping_seconds() == 2.0


def test_leaders_that_were_tried_on_all_folds_leave_the_search_more_time() -> None:
    settings = {"tested": False, "folds": 5, "used": 80.0}
    assert budget(100.0, *took(1.0), **settings).search_is_over()
    assert not budget(100.0, *took(1.0), confirm_seconds=lambda: 0.0, **settings).search_is_over()


def test_opening_the_test_split_is_kept_room_for() -> None:
    given = budget(100.0, test_seconds=lambda: 20.0)
    assert given.left() == 80.0
    assert given.allows(79.0) and not given.allows(81.0)


@given(st.floats(0.0, 1000.0), st.booleans())
def test_less_is_not_kept_for_the_yardstick_than_it_is_begun_in(budget_s: float, judged: bool) -> None:
    kept = yardstick_seconds(budget_s, judged=judged)
    assert kept == 0.0 or kept >= LEAST_ROOM_S


@pytest.mark.parametrize(
    ("budget_s", "judged", "kept"), [(14.0, 0.0, 0.0), (16.0, 3.2, 0.0), (60.0, 10.0, 0.0), (200.0, 20.0, 20.0)]
)
def test_a_yardstick_is_kept_a_share_of_a_budget(budget_s: float, judged: float, kept: float) -> None:
    """judged: where it tells how often answers on unlabelled images are right."""
    assert yardstick_seconds(budget_s, judged=True) == pytest.approx(judged)
    assert yardstick_seconds(budget_s) == pytest.approx(kept)


def test_what_was_not_used_is_without_the_test_split_and_the_model_to_be_shipped() -> None:
    settings = {"test_seconds": lambda: 20.0, "yardstick_s": 10.0}
    assert budget(100.0, *took(5.0), used=40.0, **settings).spare() == 40.0
    assert budget(100.0, *took(5.0), used=40.0, refits=2, **settings).spare() == 35.0
    assert budget(None, *took(5.0), used=40.0, refits=2, **settings).spare() == math.inf


def test_nothing_is_kept_for_a_yardstick_that_the_leader_takes_too_long_for() -> None:
    """Logos of 60 classes: 15 s of a minute were left over, 10 of which a yardstick of 22 s was to have."""
    settings = {"yardstick_s": 10.0, "leader": lambda: "0"}
    head = TrialRecord(0, "probe", {"head": "stages"}, "0", status=TrialStatus.COMPLETED, seconds=9.9, made_s=7.5)
    assert budget(60.0, head, used=20.0, **settings).left() == 30.0
    head.made_s = 7.3
    assert budget(60.0, head, used=20.0, **settings).left() == 40.0
    assert budget(60.0, head, used=20.0, **settings).spare() == 40.0
    assert budget(60.0, *took(9.9), used=20.0, **settings).left() == 30.0  # what was trained is trained once more
    assert budget(60.0, *took(10.1), used=20.0, **settings).left() == 40.0
    assert budget(60.0, used=20.0, **settings).left() == 30.0  # nobody leads


def test_a_test_split_that_takes_longer_than_the_budget_leaves_the_search_most_of_it() -> None:
    assert budget(100.0, test_seconds=lambda: 1e6).left() == pytest.approx((1 - TEST_SHARE) * 100.0)
    assert budget(None, test_seconds=lambda: 1e6).left() == math.inf


def test_confirming_takes_no_more_than_its_share() -> None:
    """With trials too long to confirm, the search goes on until its share begins."""
    records = took(40.0)
    keep = CONTROL_SHARE * 200.0 + 40.0 + CONFIRM_SHARE * 200.0
    assert not budget(200.0, *records, used=200.0 - keep - 1, folds=5).search_is_over()
    assert budget(200.0, *records, used=200.0 - keep + 1, folds=5).search_is_over()


def test_short_trials_leave_the_search_the_rest() -> None:
    assert not budget(200.0, *took(1.0), used=170.0, folds=5).search_is_over()
    assert budget(200.0, *took(1.0), used=185.0, folds=5).search_is_over()


@given(
    st.floats(1, 1e4), st.floats(0, 1), st.floats(0, 1e3), st.integers(1, 8), st.integers(0, 10), st.booleans()
)  # fmt: skip
def test_more_lanes_never_leave_the_search_less(
    seconds: float, share: float, trial_s: float, lanes: int, folds: int, tested: bool
) -> None:
    settings: dict[str, Any] = {"tested": tested, "folds": folds}
    records = took(trial_s) if trial_s else []
    one = budget(seconds, *records, used=share * seconds, lanes=lanes, **settings)
    more = budget(seconds, *records, used=share * seconds, lanes=lanes + 1, **settings)
    assert one.search_is_over() or not more.search_is_over()


@pytest.mark.parametrize("tested", [True, False])
def test_before_anything_was_tried_confirming_is_kept_its_share_and_nothing_else(tested: bool) -> None:
    given = budget(100.0, used=100.0 * (1 - CONFIRM_SHARE) - 1, tested=tested, folds=5)
    assert not given.search_is_over() and given.allows(CONFIRM_SHARE * 100.0)
