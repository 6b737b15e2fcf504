"""Labels that several probes doubt, by their predictions alone."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from raytl.evaluation.wrong_labels import doubted_by_all


def judges(labels: np.ndarray) -> list[np.ndarray]:
    """Two that see the pictures in two ways, out of fold."""
    pixels = load_digits().data[: len(labels)] / 16
    halves = pixels, pixels.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(len(labels), -1)
    model = LogisticRegression(C=10.0, max_iter=500)
    return [cross_val_predict(model, view, labels, method="predict_proba") for view in halves]


def test_changed_labels_are_named_and_right_ones_are_not() -> None:
    labels = load_digits().target[:400]
    assert doubted_by_all(judges(labels), labels, 10) == []
    changed = np.arange(0, 400, 40)
    wrong = labels.copy()
    wrong[changed] = (wrong[changed] + 1) % 10
    found = doubted_by_all(judges(wrong), wrong, 10)
    assert set(found) <= set(changed.tolist())
    assert len(found) >= 5


def test_one_judge_is_not_enough_nor_are_two_that_know_nothing() -> None:
    labels = load_digits().target[:400].copy()
    labels[::40] = (labels[::40] + 1) % 10
    both = judges(labels)
    assert doubted_by_all(both[:1], labels, 10) == []
    assert doubted_by_all([np.full((400, 10), 0.1)] * 2, labels, 10) == []
    assert doubted_by_all([both[0], np.full((400, 10), np.nan)], labels, 10) == []
    partly = [told.copy() for told in both]
    partly[0][200:] = np.nan
    assert all(index < 200 for index in doubted_by_all(partly, labels, 10))
