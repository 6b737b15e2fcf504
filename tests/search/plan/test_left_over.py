"""What is said where a time budget is left unused: why, and which budget would have had room."""

from __future__ import annotations

import pytest

from raytl.search.plan.left_over import LeftOver
from raytl.search.plan.time_budget import TimeBudget
from raytl.search.records import TrialRecord, TrialStatus


def left_over(seconds: float | None, used: float, *records: TrialRecord) -> LeftOver:
    now = iter([0.0])
    return LeftOver(
        TimeBudget(seconds, lambda: next(now, used), next(now), lanes=1, tested=False, folds=3), seconds, records
    )


def record(kind: str, status: TrialStatus = TrialStatus.COMPLETED) -> TrialRecord:
    return TrialRecord(0, kind, {}, "key", status=status, seconds=1.0)


def test_the_shortest_training_and_a_budget_with_room_are_named() -> None:
    given = left_over(120.0, 20.0, record("probe"))
    given.refuse(400.0)
    given.refuse(240.0)
    assert given.sentence() == (
        "nothing was trained: the shortest training is expected to take 4 min, with its refit and controls more than "
        "the 2 min that are left; --time-budget 13m has room"
    )


@pytest.mark.parametrize("status", [TrialStatus.INTERRUPTED, TrialStatus.FAILED])
def test_a_training_that_came_to_nothing_is_none(status: TrialStatus) -> None:
    given = left_over(120.0, 30.0, record("probe"), record("baseline", status))
    given.refuse(240.0)
    assert "4 min" in given.sentence()


def test_nothing_is_said_where_something_was_trained_or_nothing_refused_or_no_time_is_left() -> None:
    refused = left_over(120.0, 30.0, record("baseline"))
    refused.refuse(240.0)
    assert not refused.sentence()
    assert not left_over(120.0, 30.0, record("probe")).sentence()
    late = left_over(120.0, 110.0, record("probe"))
    late.refuse(240.0)
    assert not late.sentence()


def test_without_a_budget_nothing_is_said() -> None:
    given = left_over(None, 30.0, record("probe"))
    given.refuse(240.0)
    assert not given.sentence()
