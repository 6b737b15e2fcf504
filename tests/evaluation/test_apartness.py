"""Whether two sets of images are told apart, whatever classes they are of."""

from __future__ import annotations

import numpy as np
import pytest

from raytl.evaluation.apartness import told_apart


def drawn(counts: tuple[int, ...], seed: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """(features, classes) of so many images of each class; shift: by which all of them are moved."""
    rng = np.random.default_rng(seed)
    kinds = np.repeat(np.arange(len(counts)), counts)
    centres = 6 * np.eye(len(counts), 8)
    features = centres[kinds] + rng.normal(size=(len(kinds), 8))
    features[:, -1] += shift
    return features, kinds


@pytest.mark.parametrize(
    ("shift", "counts", "low", "high"),
    [
        (0.0, (40, 40, 40), 0.3, 0.7),
        (0.0, (110, 5, 5), 0.3, 0.75),  # other frequencies of the classes alone
        (5.0, (40, 40, 40), 0.95, 1.0),
        (5.0, (110, 5, 5), 0.95, 1.0),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_tells_another_kind_from_other_frequencies(
    shift: float, counts: tuple[int, ...], low: float, high: float, seed: int
) -> None:
    (one, kinds), (other, theirs) = drawn((30, 30, 30), seed), drawn(counts, 100 + seed, shift)
    assert low <= told_apart(one, other, (kinds, theirs)) <= high


def test_of_no_class_in_common_nothing_is_said() -> None:
    one, other = drawn((20,), 0)[0], drawn((20,), 1, 9.0)[0]
    assert told_apart(one, other, (np.zeros(20), np.ones(20))) == 0.5
