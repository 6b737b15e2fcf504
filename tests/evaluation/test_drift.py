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


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_one_picture_again_and_again_is_no_drift(share: float) -> None:
    """Somebody's script that sends the same file is no change of what the others send."""
    for seed in range(5):
        window = described(400, 10 + seed)
        found = drift_test(described(100, seed), window)
        assert found is not None and not found.alarm
        copies = np.concatenate([window, np.repeat(window[:1], int(share * 400), axis=0)])
        again = drift_test(described(100, seed), copies)
        assert again is not None and again.p == found.p and again.images == found.images


def test_copies_among_the_labelled_images_count_once_too() -> None:
    both = [
        np.concatenate([described(n, seed), np.repeat(described(1, 3), n, axis=0)]) for n, seed in ((40, 1), (200, 2))
    ]
    found = drift_test(*both)
    assert found is not None and not found.alarm and found.images == 201


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
