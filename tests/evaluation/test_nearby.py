"""What was missed under a change is told where opinions lie alike, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from raytl.evaluation.nearby import MISSED, Nearby, fit_nearby

Change = tuple[np.ndarray, np.ndarray, np.ndarray]


def opinions(n: int, where: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(where, 1, (n, 4))


def change(n: int, where: float, right: float, seed: int) -> Change:
    """Of whose images half are said to be right."""
    return opinions(n, where, seed), np.zeros(n), np.random.default_rng(seed).random(n) < right


def share(found: Nearby, where: float) -> float:
    """Of right ones there, where half are said to be."""
    return float(1 / (1 + np.exp(-found.correction(opinions(2000, where, 99)))))


def test_what_was_missed_is_told_of_images_like_those_and_not_of_others() -> None:
    found = fit_nearby(opinions(500, 0, 0), [change(400, 2, 0.3, 1), change(400, -2, 0.6, 2)])
    assert share(found, 2) == pytest.approx(0.35, abs=0.05)  # a little less than was missed
    assert share(found, -2) == pytest.approx(0.6, abs=0.04)
    assert share(found, 9) == pytest.approx(0.5, abs=0.01)


def test_of_unchanged_images_nothing_was_missed() -> None:
    unchanged = opinions(300, 0, 0)
    found = fit_nearby(unchanged, [change(400, 0.1, 0.2, 1), change(400, 1, 0.2, 2)])
    assert found.correction(unchanged) == pytest.approx(0, abs=1e-9)
    assert abs(found.correction(opinions(300, 1, 3))) > 0.5


def test_a_few_images_of_a_change_tell_little() -> None:
    few, many = (fit_nearby(opinions(500, 0, 0), [change(n, 2, 0.0, 1)]) for n in (8, 400))
    assert 0.2 < share(few, 2) < 0.45
    assert share(many, 2) < 0.15


@pytest.mark.parametrize("said", [-30.0, 30.0])
def test_a_change_that_was_wholly_misjudged_leaves_finite_numbers(said: float) -> None:
    images, _, _ = change(200, 2, 0.5, 1)
    found = fit_nearby(opinions(100, 0, 0), [(images, np.full(200, said), np.full(200, said < 0))] * 3)
    assert np.isfinite(found.pulls).all()
    assert 0 < -np.sign(said) * found.correction(images) < 100 * MISSED


def test_without_changes_nothing_is_added() -> None:
    assert fit_nearby(opinions(50, 0, 0), []).correction(opinions(10, 3, 1)) == 0
    assert Nearby.nothing(4).correction(opinions(1, 3, 1)) == 0
