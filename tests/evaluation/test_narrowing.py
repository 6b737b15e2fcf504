"""Whether predictions fall on fewer labels than usual is told from many of them, and not from a few."""

from __future__ import annotations

import numpy as np
import pytest

from raytl.evaluation.narrowing import alike, narrowing


def drawn(n: int, labels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, labels, n)


def test_alike_does_not_depend_on_how_many_there_are() -> None:
    shares = [np.mean([alike(drawn(n, 10, seed)) for seed in range(300)]) for n in (60, 600)]
    assert shares[0] == pytest.approx(0.1, abs=0.01) and shares[1] == pytest.approx(0.1, abs=0.003)


def test_one_image_of_each_label_is_not_taken_for_labels_without_end() -> None:
    assert narrowing(drawn(500, 26), alike(np.arange(26))) < 0.1


def test_as_usual_or_wider_is_no_narrowing() -> None:
    usual = alike(drawn(500, 5))
    assert narrowing(drawn(500, 5, 1), usual) < 0.02
    assert narrowing(drawn(500, 20), usual) == 0
    assert narrowing(np.zeros(500, dtype=int), 1.0) == 0  # what has ever said one thing cannot narrow


def test_the_fewer_labels_are_left_the_narrower() -> None:
    found = [narrowing(drawn(5000, labels), 0.1) for labels in (10, 4, 2, 1)]
    assert found == pytest.approx(np.log([1, 2.5, 5, 10]), abs=0.02)


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_a_few_that_are_the_same_are_no_sign(n: int) -> None:
    assert narrowing(np.zeros(n, dtype=int), 0.1) < 0.15
