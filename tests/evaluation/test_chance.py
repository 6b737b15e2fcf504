"""Whether answers are right more often than chance has it."""

from __future__ import annotations

import numpy as np
import pytest

from raytl.evaluation.chance import DOUBT, beyond_chance


@pytest.mark.parametrize("frequencies", [[0.5, 0.5], [0.9, 0.1], [0.1] * 10])
@pytest.mark.parametrize("count", [5, 30, 200])
def test_answers_that_go_by_nothing_are_rarely_taken_for_knowledge(frequencies: list[float], count: int) -> None:
    rng, classes = np.random.default_rng(0), len(frequencies)
    drawn = [rng.choice(classes, (2, count), p=frequencies) for _ in range(500)]
    assert np.mean([beyond_chance(said, labels, classes) for said, labels in drawn]) <= 2 * DOUBT


def test_always_saying_the_most_frequent_class_is_no_knowledge() -> None:
    labels = np.repeat([0, 1], [190, 10])
    assert not beyond_chance(np.zeros_like(labels), labels, 2)
    assert beyond_chance(labels, labels, 2)


def test_being_right_of_five_of_five_is_and_wrong_of_all_is_not() -> None:
    labels = np.arange(5)
    assert beyond_chance(labels, labels, 5)
    assert not beyond_chance((labels + 1) % 5, labels, 5)
