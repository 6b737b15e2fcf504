"""Sets of labels and refusals keep their word whatever the model says, and say nothing where they cannot."""

from __future__ import annotations

import math

import numpy as np
import pytest

from raytl.evaluation.label_sets import label_sets, refusal_threshold, set_threshold


def said(n: int, seed: int, sure: float) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, 4) that are right about half the time, however sure they are; and the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    logits = rng.normal(0, 1, (n, 4)) + 1.0 * np.eye(4)[labels]
    p = np.exp(sure * logits)
    return p / p.sum(axis=1, keepdims=True), labels


@pytest.mark.parametrize("sure", [0.3, 1.0, 5.0])
@pytest.mark.parametrize("n", [25, 200])
def test_sets_hold_the_true_label_as_often_as_stated(n: int, sure: float) -> None:
    held = []
    for seed in range(60):
        p, labels = said(n, seed, sure)
        new, truth = said(300, 1000 + seed, sure)
        held.append(label_sets(new, set_threshold(p, labels))[np.arange(300), truth].mean())
    assert 0.885 <= np.mean(held) <= 1.0


def test_sets_are_not_larger_than_they_need_to_be() -> None:
    p, labels = said(500, 0, 1.0)
    new, truth = said(2000, 1, 1.0)
    sets = label_sets(new, set_threshold(p, labels))
    assert sets[np.arange(2000), truth].mean() < 0.97
    assert sets.any(axis=1).all()


def test_too_few_images_give_every_label_and_refuse_nothing() -> None:
    p, labels = said(8, 0, 1.0)
    assert set_threshold(p, labels) == math.inf
    assert label_sets(p, math.inf).all()
    assert refusal_threshold(np.arange(18.0)) == -math.inf


def test_equally_probable_labels_are_taken_together() -> None:
    assert label_sets(np.array([[0.5, 0.25, 0.25]]), 0.5).tolist() == [[True, True, True]]
    assert label_sets(np.array([[0.5, 0.25, 0.25]]), 0.4).tolist() == [[True, False, False]]


def test_known_images_are_refused_as_often_as_stated() -> None:
    rng = np.random.default_rng(0)
    refused = [(rng.normal(size=500) < refusal_threshold(rng.normal(size=60))).mean() for _ in range(200)]
    assert 0.03 < np.mean(refused) < 0.055
