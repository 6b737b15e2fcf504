"""The operating point of a two-class model: what is asked for is met, and as little as may be given up for it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raytl.core.errors import UserError
from raytl.evaluation import metrics
from raytl.judging.operating import Goal, operating_point, parse_goal

CLASSES = ("fine", "broken")


def said(scores: list[float]) -> np.ndarray:
    """Probabilities (n, 2) with these for the second class."""
    second = np.array(scores)
    return np.stack([1 - second, second], axis=1)


def test_recall_takes_the_highest_threshold_that_finds_enough() -> None:
    scores = [0.9, 0.8, 0.3, 0.2, 0.6, 0.1, 0.05, 0.02, 0.01, 0.0]
    labels = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    half = operating_point(said(scores), labels, CLASSES, Goal("recall", 0.5), 1)
    assert (half.label, half.value, half.recall.value, half.reached) == ("broken", 0.8, 0.5, True)
    most = operating_point(said(scores), labels, CLASSES, Goal("recall", 1.0), 1)
    assert most.value == 0.2 and most.precision is not None and most.precision.value == pytest.approx(4 / 5)


def test_precision_takes_the_lowest_threshold_that_is_sure_enough() -> None:
    scores, labels = [0.9, 0.8, 0.7, 0.6, 0.5], np.array([1, 0, 1, 0, 0])
    point = operating_point(said(scores), labels, CLASSES, Goal("precision", 0.6), 1)
    assert point.value == 0.7 and point.reached
    assert not operating_point(said([0.1, 0.9, 0.9]), np.array([1, 0, 0]), CLASSES, Goal("precision", 0.9), 1).reached


@pytest.mark.parametrize(("counts", "wanted"), [((30, 30), 1), ((29, 30), 0), ((30, 29), 1)])
def test_it_is_of_the_class_that_average_precision_is_of(counts: tuple[int, int], wanted: int) -> None:
    """Of as many images of both classes that is the second, and so it is here: no metric has another one."""
    labels = np.repeat([0, 1], counts)
    assert Goal("recall", 0.9).place(CLASSES, labels) == metrics.rarer(labels) == wanted


@pytest.mark.parametrize("name", CLASSES)
def test_the_class_that_is_named_is_the_one(name: str) -> None:
    labels = np.array([1, 0, 1, 0, 0])
    goal = Goal("recall", 1.0, name)
    positive = goal.place(CLASSES, labels)
    assert operating_point(said([0.9, 0.2, 0.7, 0.1, 0.3]), labels, CLASSES, goal, positive).label == name


def test_a_class_that_there_is_not_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(
        UserError, match=r"^--at brokn:recall=0\.9: there is no class 'brokn'; did you mean 'broken'\?$"
    ):
        parse_goal("brokn:recall=0.9").check(CLASSES)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=2, max_size=40), st.floats(0.01, 1.0))
def test_a_recall_can_always_be_had(items: list[tuple[float, bool]], share: float) -> None:
    labels = np.array([int(positive) for _, positive in items])
    if labels.min() == labels.max():
        return
    point = operating_point(said([score for score, _ in items]), labels, CLASSES, Goal("recall", share), 1)
    assert point.reached and point.recall.value >= share - 1e-12
    assert 0 <= point.value <= 1


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.3, 0.6, 1.0]), st.booleans()), min_size=2, max_size=40))
def test_figures_are_those_of_naming_what_lies_at_or_above_the_threshold(items: list[tuple[float, bool]]) -> None:
    labels = np.array([int(positive) for _, positive in items])
    if labels.min() == labels.max():
        return
    positive = int(np.argmin(np.bincount(labels, minlength=2)))
    rows = said([score for score, _ in items])
    for goal in (Goal("recall", 0.7), Goal("precision", 0.7)):
        point = operating_point(rows, labels, CLASSES, goal, positive)
        scores = rows[:, positive]
        every = {step: scores >= step for step in {0.0, *scores.tolist()}}
        recalls = {step: named[labels == positive].mean() for step, named in every.items()}
        precisions = {step: (labels == positive)[named].mean() if named.any() else 0.0 for step, named in every.items()}
        figures = recalls if goal.name == "recall" else precisions
        enough = [step for step, figure in figures.items() if figure >= goal.share]
        assert point.recall.value == pytest.approx(recalls[point.value])
        assert point.reached == bool(enough)
        assert not enough or point.value == (max(enough) if goal.name == "recall" else min(enough))


def test_images_of_one_group_count_once() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 10)
    labels = groups % 2
    rows = said(np.clip(0.5 * labels + 0.5 * rng.random(20)[groups], 0, 1).tolist())
    alone = operating_point(rows, labels, CLASSES, Goal("recall", 0.8), 1)
    together = operating_point(rows, labels, CLASSES, Goal("recall", 0.8), 1, groups)
    assert (alone.value, alone.recall.value) == (together.value, together.recall.value)
    assert together.recall.high - together.recall.low > 1.8 * (alone.recall.high - alone.recall.low)


def test_other_than_two_classes_are_refused() -> None:
    with pytest.raises(UserError, match="two classes, and this one has 3"):
        Goal("recall", 0.9).check(("a", "b", "c"))


@pytest.mark.parametrize(
    "text",
    [
        "recall",
        "recall=",
        "recall=2",
        "recall=0",
        "f1=0.9",
        "=0.9",
        "recall=nan",
        ":recall=0.9",
        "broken",
        "broken:",
        "recall=0.9:broken",
    ],
)
def test_what_is_no_goal_is_refused_with_the_way_to_write_it(text: str) -> None:
    with pytest.raises(UserError, match=r"--at .*: write recall=0\.95"):
        parse_goal(text)


def test_a_goal_is_read() -> None:
    assert parse_goal("precision=0.9") == Goal("precision", 0.9)


@pytest.mark.parametrize("label", ["broken", "a:b", "x=1", "recall=0.5", ":"])
def test_a_class_may_have_any_name(label: str) -> None:
    goal = parse_goal(f"{label}:recall=0.95")
    assert goal == Goal("recall", 0.95, label) and str(goal) == f"{label}:recall=0.95"
