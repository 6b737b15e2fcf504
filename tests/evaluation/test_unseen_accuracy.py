"""The estimate follows the truth where confidence does not, and its interval is wide where little is known."""

from __future__ import annotations

import numpy as np
import pytest

from raytl.evaluation.changes import CHANGES, changed
from raytl.evaluation.unseen_accuracy import Correctness, fit_correctness, opinions


def told(n: int, right: float, seed: int, kind: str = "") -> tuple[np.ndarray, ...]:
    """Opinions of n images, as sure of wrong predictions as of right ones; their neighbours mostly know better."""
    rng = np.random.default_rng(seed)
    is_right = rng.random(n) < right
    agreeing = np.clip(np.where(is_right, 0.85, 0.25) + rng.normal(0, 0.2, n), 0, 1)
    seen = np.stack([rng.normal(4, 1, n), rng.normal(-2 + (1 - right), 0.2, n), agreeing], axis=1)
    return seen, is_right, np.arange(n), np.full(n, kind), np.full(n, seed)


def learned(n: int, usual: float = 0.9) -> Correctness:
    parts = [told(n, usual, 0)]
    parts += [told(n, 0.9 * 0.8**level, 1 + 4 * kind + level, "abc"[kind]) for kind in range(3) for level in range(4)]
    return fit_correctness(*(np.concatenate(column) for column in zip(*parts, strict=True)))


@pytest.mark.parametrize("right", [0.9, 0.7, 0.5])
def test_follows_the_truth_although_confidence_does_not(right: float) -> None:
    seen, is_right, *_ = told(2000, right, 99)
    found = learned(150).estimate(seen)
    assert abs(found.value - is_right.mean()) < 0.05
    assert found.low <= is_right.mean() <= found.high


def test_few_reference_images_and_few_new_ones_make_it_wide() -> None:
    seen = told(500, 0.9, 98)[0]
    many, few = learned(300).estimate(seen), learned(20).estimate(seen)
    assert few.high - few.low > 1.5 * (many.high - many.low)
    ten = learned(300).estimate(seen[:10])
    assert ten.high - ten.low > 1.5 * (many.high - many.low)


def test_all_right_on_twenty_images_is_not_taken_for_certainty() -> None:
    found = learned(20, usual=1.0)
    estimate = found.estimate(told(1000, 1.0, 97)[0])
    assert estimate.low < 0.95


def test_no_image_tells_nothing() -> None:
    nothing = learned(30).estimate(np.empty((0, 3)))
    assert np.isnan(nothing.value) and (nothing.low, nothing.high) == (0.0, 1.0)


def test_neighbours_agree_whatever_the_light() -> None:
    rng = np.random.default_rng(0)
    known = np.repeat(rng.random((2, 64)), 6, axis=0) + rng.normal(0, 0.01, (12, 64))
    labels = np.repeat([0, 1], 6)
    p = np.full((2, 2), 0.5)
    found = opinions(p, np.array([0, 0]), np.stack([known[0] + 0.4, known[7] + 0.4]), known, labels)
    assert found[:, 2].tolist() == [1.0, 0.0]
    assert (found[:, 1] > opinions(p, np.array([0, 0]), known[[0, 7]], known, labels)[:, 1] + 1).all()
    assert np.isfinite(opinions(p, np.array([0, 0]), known[[0, 7]], known[:2], labels[:2])).all()


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("channels", [1, 3])
def test_changes_keep_shape_and_grow_with_their_strength(name: str, channels: int) -> None:
    y, x = np.mgrid[:20, :20]
    images = np.repeat((128 + 80 * np.sin(x / 3) * np.cos(y / 4)).astype(np.uint8)[None, None], channels, axis=1)
    images = np.repeat(images, 8, axis=0)

    def difference(strength: float) -> float:
        made = changed(images, name, strength, np.random.default_rng(3))
        assert made.shape == images.shape and made.dtype == np.uint8
        return float(np.abs(made.astype(float) - images).mean())

    assert name == "flip" or difference(0.25) < difference(1.0)
    assert difference(1.0) > 4
