"""Drift is said of images of another kind, and of unchanged ones no oftener than stated."""

from __future__ import annotations

import numpy as np
import pytest

from raytl.evaluation.drift import ALARM, MOST_ALARMS, drift_test
from raytl.evaluation.image_statistics import WIDTH, image_statistics, thumbnails


def described(n: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).standard_t(4, (n, 12)) + shift


def alarms(n: int, seed: int, windows: int = 20, m: int = 100) -> float:
    """Share of alarms in overlapping windows of unchanged traffic, against the same n reference images."""
    reference, traffic = described(n, 2 * seed), described(400, 2 * seed + 1)
    rng = np.random.default_rng(seed)
    found = [drift_test(reference, traffic[rng.permutation(400)[:m]], seed=i) for i in range(windows)]
    return float(np.mean([one is not None and one.alarm for one in found]))


@pytest.mark.parametrize("n", [30, 150])
def test_an_endpoint_says_drift_of_at_most_one_unchanged_window_in_thirty(n: int) -> None:
    """Whatever its few reference images happened to be, and not only on average over endpoints."""
    shares = [alarms(n, seed) for seed in range(8)]
    assert sum(share > MOST_ALARMS for share in shares) <= 1
    assert np.mean(shares) <= MOST_ALARMS


def test_a_shift_is_seen() -> None:
    found = drift_test(described(100, 0), described(100, 1, 0.6))
    assert found is not None and found.alarm and found.p <= ALARM and found.images == 100


def test_other_frequencies_of_the_classes_are_no_drift() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.integers(0, 2, 120), (rng.random(120) < 0.9).astype(int)
    a, b = described(120, 1) + 3 * before[:, None], described(120, 2) + 3 * after[:, None]
    plain, within = drift_test(a, b), drift_test(a, b, (before, after))
    assert plain is not None and plain.alarm
    assert within is not None and not within.alarm


def test_nothing_is_said_of_too_few_or_of_what_cannot_be_compared() -> None:
    assert drift_test(described(50, 0), described(1, 1)) is None
    assert drift_test(described(5, 0), described(5, 1), (np.zeros(5, int), np.ones(5, int))) is None


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [8, 24, 150])
def test_statistics_tell_light_noise_and_blur(channels: int, side: int) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(60, 190, (3, channels, side, side), dtype=np.uint8)
    plain = image_statistics(images)
    assert plain.shape == (3, WIDTH) and np.isfinite(plain).all()
    assert (image_statistics(images + 50)[:, :3] > plain[:, :3] + 0.1).all()
    flat = np.full_like(images, 128)
    assert (image_statistics(flat)[:, 6] < plain[:, 6] - 0.5).all()
    assert thumbnails(flat).shape == (3, 64) and np.allclose(thumbnails(flat), 128 / 255)
    assert image_statistics(images[:0]).shape == (0, WIDTH) and thumbnails(images[:0]).shape == (0, 64)
