"""A model held against an answer without looking."""

from __future__ import annotations

import numpy as np
import pytest
from matthews import MATTHEWS

from raytl.evaluation import metrics
from raytl.judging.blind import against_blind
from raytl.judging.one_answer import few_for_all


def guesses(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """What somebody says who knows how frequent the classes are, and nothing else; (n, k)."""
    k, n = int(labels.max()) + 1, len(labels)
    named = rng.choice(k, n, p=np.bincount(labels) / n)
    return np.asarray(0.3 * np.eye(k)[named] + 0.7 * rng.dirichlet(np.ones(k), n))


@pytest.mark.parametrize("name", metrics.names())
@pytest.mark.parametrize("counts", [(12,) * 6, (60, 30, 30), (60, 4)], ids=str)
def test_guesses_are_seldom_better(name: str, counts: tuple[int, ...]) -> None:
    """By macro F1 they were better than one answer for all in nearly every case: that is the worst there is."""
    rng, labels, metric = np.random.default_rng(0), np.repeat(np.arange(len(counts)), counts), metrics.get(name)
    found = [against_blind(metric, guesses(rng, labels), labels) for _ in range(40)]
    assert np.mean([one is not None and one.comparison.low > 0 for one in found]) <= 0.05


@pytest.mark.parametrize("name", ["macro-f1", "average-precision"])
def test_copies_of_images_say_what_one_of_each_says(name: str) -> None:
    """All copies of an image have its answer: what is dealt out to them at random is that of copies too."""
    rng, labels, metric = np.random.default_rng(1), np.repeat(np.arange(3), (2, 8, 20)), metrics.get(name)
    said, groups = guesses(rng, labels), np.repeat(np.arange(len(labels)), 10)
    once = against_blind(metric, said, labels)
    copies = against_blind(metric, np.repeat(said, 10, axis=0), np.repeat(labels, 10), groups)
    assert once is not None and copies is not None
    assert copies.comparison.value == pytest.approx(once.comparison.value, abs=0.02)


@pytest.mark.parametrize("name", metrics.names())
def test_who_knows_something_is_better(name: str) -> None:
    rng, labels = np.random.default_rng(2), np.repeat(np.arange(3), (60, 30, 30))
    said = 0.5 * guesses(rng, labels) + 0.5 * np.eye(3)[labels]
    found = against_blind(metrics.get(name), said, labels)
    assert found is not None and found.comparison.low > 0
    assert (found.answer is None) == (name in ("macro-f1", "average-precision"))


def test_where_one_answer_is_best_it_is_the_commonest() -> None:
    labels = np.repeat(np.arange(3), (10, 30, 20))
    found = against_blind(metrics.get("accuracy"), np.eye(3)[labels], labels)
    assert found is not None and (found.answer, found.comparison.value) == (1, pytest.approx(0.5))


def test_of_one_class_alone_a_ranking_tells_nothing() -> None:
    labels = np.zeros(8, dtype=int)
    assert against_blind(metrics.get("auroc"), guesses(np.random.default_rng(3), np.repeat([0, 1], 4)), labels) is None


def test_all_classes_are_no_few_however_few_images_they_were_seen_on() -> None:
    """Of twenty images of 102 flowers, each rightly another one, it was said that a model does not tell them apart."""
    rng = np.random.default_rng(0)
    for classes, images in ((102, 20), (200, 40), (30, 20)):
        right = rng.integers(classes, size=images)
        assert few_for_all(np.bincount(right, minlength=classes) / images) == ()
    two = np.bincount([3] * 12 + [5] * 8, minlength=102) / 20
    assert few_for_all(two) == (3, 5)


def test_where_one_answer_has_no_figure_it_is_held_against_its_own_at_random() -> None:
    rng, labels = np.random.default_rng(3), np.repeat([0, 1], [60, 20])
    knows = against_blind(MATTHEWS, 0.5 * guesses(rng, labels) + 0.5 * np.eye(2)[labels], labels)
    assert knows is not None and knows.answer is None
    assert knows.comparison.low > 0.3
    found = [against_blind(MATTHEWS, guesses(rng, labels), labels) for _ in range(40)]
    assert np.mean([one is not None and one.comparison.low > 0 for one in found]) <= 0.05
    assert against_blind(MATTHEWS, np.tile([0.9, 0.1], (80, 1)), labels) is None
