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


@pytest.mark.parametrize(("shift", "low", "high"), [(0.0, 0.0, 0.8), (5.0, 0.9, 1.0)])
@pytest.mark.parametrize("pool", [(5,) * 24, (60, 30, 30) + (0,) * 21])
@pytest.mark.parametrize("seed", range(3))
def test_of_one_image_a_class_all_pairs_are_asked(
    pool: tuple[int, ...], shift: float, low: float, high: float, seed: int
) -> None:
    """But that a few classes alone are there is no other kind."""
    rng = np.random.default_rng(seed)
    centres = 2 * rng.normal(size=(24, 12))
    theirs = np.repeat(np.arange(24), pool)
    one = centres + rng.normal(size=centres.shape)
    other = centres[theirs] + rng.normal(size=(len(theirs), 12))
    other[:, -1] += 3 * shift
    assert low <= told_apart(one, other, (np.arange(24), theirs)) <= high


def of_patients(patients: int, images: int, seed: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(features, classes, patients) of so many images of each patient, who look as different as two images of one."""
    rng = np.random.default_rng(seed)
    own, kinds = np.repeat(np.arange(patients), images), rng.integers(0, 2, patients * images)
    features = 3 * np.eye(2, 60)[kinds] + rng.normal(size=(patients, 60))[own] + rng.normal(size=(len(own), 60))
    features[:, -1] += shift
    return features, kinds, own


@pytest.mark.parametrize("known", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize(
    ("labelled", "others", "shift", "low", "high"),
    [
        ((10, 20), (30, 10), 0.0, 0.0, 0.8),
        ((30, 7), (4, 50), 0.0, 0.0, 0.8),
        ((10, 20), (30, 10), 8.0, 0.88, 1.0),
    ],
)
def test_other_patients_of_the_same_kind_are_not_told_apart(
    labelled: tuple[int, int],
    others: tuple[int, int],
    shift: float,
    low: float,
    high: float,
    known: tuple[bool, bool],
) -> None:
    """By heart the probe knows which patients are of which set, and was right on nearly all of their images."""
    (one, kinds, own), (other, theirs, others_own) = of_patients(*labelled, 0), of_patients(*others, 1, shift)
    groups = (own if known[0] else None, 100 + others_own if known[1] else None)
    assert low <= told_apart(one, other, (kinds, theirs), groups) <= high
    assert told_apart(one, other, (kinds, theirs)) > 0.85


def test_a_patient_of_both_sets_is_held_out_of_both_and_asked_nothing() -> None:
    (one, kinds, own), (other, theirs, others_own) = of_patients(6, 20, 0), of_patients(6, 20, 0, 9.0)
    assert told_apart(one, other, (kinds, theirs), (own, others_own)) > 0.9
    assert told_apart(one, other, (kinds, theirs), (0 * own, 0 * others_own)) == 0.5


def test_a_few_copies_change_nothing_of_the_other_set() -> None:
    (one, kinds), (other, theirs) = drawn((30, 30, 30), 0), drawn((40, 40, 40), 100, 1.0)
    copies = np.arange(90)
    copies[1] = 0
    alone = told_apart(one, other, (kinds, theirs))
    assert abs(told_apart(one, other, (kinds, theirs), (copies, None)) - alone) < 0.05
