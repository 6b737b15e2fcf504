"""What is said where a time budget is left unused: why, and which budget would have had room."""

from __future__ import annotations

from raytl.search.plan.left_over import LeftOver, PassedOver, not_learned_from
from raytl.search.plan.time_budget import TimeBudget


def left_over(seconds: float | None, used: float) -> LeftOver:
    now = iter([0.0])
    return LeftOver(
        TimeBudget(seconds, lambda: next(now, used), next(now), [], lanes=1, tested=False, folds=3), seconds
    )


def test_the_shortest_training_and_a_budget_with_room_are_named() -> None:
    given = left_over(120.0, 20.0)
    given.refuse(400.0)
    given.refuse(240.0)
    assert given.sentence() == (
        "2 min of the time budget are left: the shortest training without room in it is expected to take 4 min, "
        "besides its refit and controls; --time-budget 13m has room"
    )
    assert not given.sentence()  # once is enough


def test_time_that_was_kept_for_what_takes_longer_is_no_want_of_a_larger_budget() -> None:
    """A larger one than was given was said to have room, and it was smaller."""
    given = left_over(480.0, 320.0)
    given.refuse(0.4)
    assert given.sentence() == (
        "3 min of the time budget are left: they were kept for a refit and controls of what took longest, which what "
        "leads does not take"
    )


def test_a_budget_with_room_has_it_for_reading_the_data_too() -> None:
    now = iter([0.0])
    plan_s, apart_s = 120.0, 100.0
    time = TimeBudget(plan_s, lambda: next(now, 20.0), next(now), [], lanes=1, tested=False, folds=3)
    given = LeftOver(time, plan_s, apart_s)
    given.refuse(240.0)
    assert "--time-budget 14m has room" in given.sentence()  # (100 + 20 + 3 x 240) s


def test_nothing_is_said_where_nothing_was_refused_or_no_time_is_left() -> None:
    assert not left_over(120.0, 30.0).sentence()
    late = left_over(120.0, 110.0)
    late.refuse(240.0)
    assert not late.sentence()


def test_without_a_budget_nothing_is_said() -> None:
    given = left_over(None, 30.0)
    given.refuse(240.0)
    assert not given.sentence()


def test_source_domains_that_nothing_was_trained_on_are_named() -> None:
    assert not_learned_from(["sans"]) == (
        "sans: no source model was trained on it, for want of time; a longer --time-budget does"
    )
    assert not_learned_from(["sans", "serifs", "textures"]).startswith("sans, serifs and textures: no source models")


def test_a_size_that_there_was_no_time_for_is_named_once_with_a_budget_that_has_room() -> None:
    given, size = left_over(50.0, 40.0), PassedOver(224, 30.0, 40.0)
    assert list(given.sentences([], size)) == [
        "images were not seen at 224 pixels, which may tell more apart, for want of time: that is expected to take "
        "30 s; --time-budget 2m has room"
    ]
    assert not list(given.sentences([], size))
    assert not list(left_over(None, 40.0).sentences([], size))
