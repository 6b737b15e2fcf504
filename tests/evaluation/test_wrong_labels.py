"""Labels that are likely wrong are found, and right ones are left alone."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from raytl.evaluation.wrong_labels import suspects


def digits(n: int, wrong: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels, labels, and which labels were changed."""
    rng = np.random.default_rng(seed)
    pixels, labels = load_digits(return_X_y=True)
    chosen = rng.permutation(len(labels))[:n]
    changed = rng.random(n) < wrong
    given = np.where(changed, (labels[chosen] + rng.integers(1, 10, n)) % 10, labels[chosen])
    return pixels[chosen], given, changed


class TestSuspects:
    @pytest.mark.parametrize("seed", [0, 1])
    def test_finds_most_changed_labels_and_hardly_others(self, seed: int) -> None:
        pixels, given, changed = digits(600, 0.05, seed)
        found = [suspect.index for suspect in suspects(pixels, given, 10)]
        right = sum(changed[index] for index in found)
        assert right >= 0.4 * changed.sum()
        assert len(found) - right <= 1

    def test_says_what_fits_better(self) -> None:
        pixels, given, changed = digits(600, 0.05)
        true = digits(600, 0.0)[1]
        found = [suspect for suspect in suspects(pixels, given, 10) if changed[suspect.index]]
        assert [suspect.label for suspect in found] == [true[suspect.index] for suspect in found]
        assert all(suspect.probability >= 100 * suspect.given for suspect in found)

    def test_leaves_right_labels_alone(self) -> None:
        pixels, given, _ = digits(600, 0.0)
        assert suspects(pixels, given, 10) == []

    @pytest.mark.parametrize("apart", [0.5, 1.0, 2.0])
    def test_leaves_hard_data_alone(self, apart: float) -> None:
        rng = np.random.default_rng(3)
        labels = rng.integers(0, 3, 300)
        features = apart * rng.normal(size=(3, 10))[labels] + rng.normal(size=(300, 10))
        assert len(suspects(features, labels, 3)) <= 1

    def test_has_nothing_to_say_of_noise_or_of_few_images(self) -> None:
        rng = np.random.default_rng(0)
        assert suspects(rng.normal(size=(200, 20)), rng.integers(0, 4, 200), 4) == []
        pixels, given, _ = digits(40, 0.2)
        assert suspects(pixels, given, 10) == []

    @pytest.mark.filterwarnings("error")
    def test_a_class_of_one_image_is_no_cause_for_a_warning(self) -> None:
        """Nothing learned without its image knows the class."""
        pixels, labels = load_digits(return_X_y=True)
        chosen = np.concatenate([np.flatnonzero(labels < 2)[:60], np.flatnonzero(labels == 2)[:1]])
        assert suspects(pixels[chosen], labels[chosen], 3) == []

    def test_copies_do_not_vouch_for_each_other(self) -> None:
        pixels, given, changed = digits(600, 0.05)
        wrong = [suspect.index for suspect in suspects(pixels, given, 10) if changed[suspect.index]][:3]
        copied = np.concatenate([pixels, np.repeat(pixels[wrong], 6, axis=0)])
        labels = np.concatenate([given, np.repeat(given[wrong], 6)])
        groups = np.concatenate([np.arange(600), np.repeat(wrong, 6)])
        assert not set(wrong) & {suspect.index for suspect in suspects(copied, labels, 10)}
        assert set(wrong) <= {suspect.index for suspect in suspects(copied, labels, 10, groups)}
