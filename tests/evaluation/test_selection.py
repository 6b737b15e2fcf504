"""The score that trials are compared by: what it rewards, and that a collapsed model never wins."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raytl.evaluation import selection, validators

K = 10


def answers(labels: np.ndarray, accuracy: float, confidence: float, seed: int = 0, classes: int = K) -> np.ndarray:
    """(n, k) probabilities of a model that is right in ``accuracy`` of the cases and always equally sure of itself."""
    rng = np.random.default_rng(seed)
    wrong = (labels + rng.integers(1, classes, len(labels))) % classes
    said = np.where(rng.random(len(labels)) < accuracy, labels, wrong)
    probabilities = np.full((len(labels), classes), (1 - confidence) / (classes - 1))
    probabilities[np.arange(len(labels)), said] = confidence
    return probabilities


def moved(probabilities: np.ndarray, share: float, seed: int = 1) -> np.ndarray:
    """The same answers, except that of ``share`` of the images the answers are dealt out anew."""
    rng = np.random.default_rng(seed)
    index = np.arange(len(probabilities))
    drawn = rng.random(len(index)) < share
    index[drawn] = rng.permutation(index[drawn])
    return probabilities[index]


def constant(n: int, confidence: float, classes: int = K) -> np.ndarray:
    """A model that says the same class of everything."""
    return answers(np.zeros(n, dtype=np.int64), 1.0, confidence, classes=classes)


def score(
    predict: Any, *, target: int = 0, unlabelled: bool = False, source: np.ndarray | None = None, unsteady: float = 0.0
) -> float:
    """The score of a model: predict(labels, seed) -> probabilities. target: labelled images per class."""
    labels = np.repeat(np.arange(K), max(target, 1))
    many = np.repeat(np.arange(K), 30)
    seen: dict[str, Any] = {}
    if target:
        seen |= {"target_probabilities": predict(labels, 1), "target_labels": labels}
    if unlabelled:
        seen |= {"unlabelled_probabilities": predict(many, 2), "unlabelled_features": predict(many, 2)}
        seen["unlabelled_moved_probabilities"] = moved(predict(many, 2), unsteady)
    if source is not None:
        seen |= {"source_probabilities": source, "source_labels": many}
    metrics = validators.score_all(validators.Outputs(**seen), last=False)
    return selection.score(metrics, K, target * K)


SETTINGS: dict[str, dict[str, Any]] = {
    "one label a class": {"target": 1},
    "labels": {"target": 5},
    "one label a class and unlabelled": {"target": 1, "unlabelled": True},
    "labels and unlabelled": {"target": 20, "unlabelled": True},
    "no labels": {"unlabelled": True},
    "source domain": {"unlabelled": True, "source": answers(np.repeat(np.arange(K), 30), 0.95, 0.9)},
}


@pytest.mark.parametrize("setting", SETTINGS)
class TestEverySetting:
    @pytest.mark.parametrize("confidence", [0.5, 0.9, 0.999999])
    def test_one_class_for_everything_loses_to_an_honest_weak_model(self, setting: str, confidence: float) -> None:
        honest = score(lambda labels, seed: answers(labels, 0.4, 0.45, seed), **SETTINGS[setting], unsteady=0.4)
        collapsed = score(lambda labels, seed: constant(len(labels), confidence), **SETTINGS[setting])
        assert collapsed < honest

    def test_two_classes_for_everything_lose_to_a_fair_model(self, setting: str) -> None:
        fair = score(lambda labels, seed: answers(labels, 0.7, 0.7, seed), **SETTINGS[setting], unsteady=0.2)
        halves = score(lambda labels, seed: answers(labels % 2, 1.0, 0.999), **SETTINGS[setting])
        assert halves < fair

    def test_a_better_model_scores_higher(self, setting: str) -> None:
        def steady(accuracy: float) -> float:
            """Better models are also surer and steadier."""
            return score(
                lambda labels, seed: answers(labels, accuracy, accuracy, seed),
                **SETTINGS[setting],
                unsteady=(1 - accuracy) / 2,
            )

        assert steady(0.5) < steady(0.7) < steady(0.9) <= 1.0


def test_confident_mistakes_cost_more_than_doubtful_ones() -> None:
    sure, doubtful = (score(lambda labels, seed, c=c: answers(labels, 0.6, c), target=5) for c in (0.9999, 0.6))
    assert sure < doubtful


@given(st.integers(1, 2000), st.floats(0, 1), st.floats(-3, 0))
def test_labels_have_the_greater_say_the_more_there_are(images: int, accuracy: float, log_loss: float) -> None:
    metrics = {"target-accuracy": accuracy, "target-log-loss": log_loss}
    unlabelled = {"consistency": 0.0, "information-maximisation": 0.0, "entropy": 0.0}
    full = selection.score(metrics, K, images)
    share = images / (images + selection.PSEUDO_COUNT)
    assert selection.score(metrics | unlabelled, K, images) == pytest.approx(share * full, abs=1e-9)


def test_with_nothing_to_score_by_all_are_equal() -> None:
    assert selection.score({}, K, 0) == 0.0


def test_a_perfect_model_scores_about_one() -> None:
    for setting in ({"target": 5}, {"target": 5, "unlabelled": True}, {"unlabelled": True}):
        assert score(lambda labels, seed: answers(labels, 1.0, 1 - 1e-9), **setting) == pytest.approx(1.0, abs=1e-3)
    metrics = {"information-maximisation": math.log(2), "entropy": 0.0, "consistency": 1.0}
    assert selection.score(metrics, 2, 0) == pytest.approx(1.0)
