"""The score that trials are compared by: what it rewards, and that a collapsed model never wins."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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


def alike(prediction: Sequence[float]) -> np.ndarray:
    """The same of each of many images, so that nothing in the mean is chance."""
    return np.tile(prediction, (100, 1))


def sure(shares: Sequence[float]) -> np.ndarray:
    """One class of each of 300 images, as often as its share."""
    return np.eye(len(shares))[np.repeat(np.arange(len(shares)), np.round(300 * np.array(shares)).astype(int))]


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
    said = seen["unlabelled_probabilities"] if unlabelled else None
    return selection.scores(metrics, metrics.get("target-accuracy"), target * K, said)["score"]


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
def test_evidence_without_labels_has_the_less_say_the_more_of_them_there_are(
    images: int, accuracy: float, log_loss: float
) -> None:
    labelled = {"target-log-loss": log_loss}
    unlabelled = {"consistency": 0.0, "entropy": -math.log(K)}  # knows nothing at all
    full = selection.scores(labelled, accuracy, images, None)
    mixed = selection.scores(labelled | unlabelled, accuracy, images, alike([1 / K] * K))
    share = selection.labelled_share(images)
    assert full["score"] == full["labelled"] == mixed["labelled"]
    assert mixed["unlabelled"] == pytest.approx(0.0, abs=1e-9)
    assert mixed["score"] == pytest.approx(share * full["score"], abs=1e-9)


def test_with_nothing_to_score_by_all_are_equal() -> None:
    assert selection.scores({}, None, 0, None) == {"score": 0.0}


def test_a_perfect_model_scores_about_one() -> None:
    for setting in ({"target": 5}, {"target": 5, "unlabelled": True}, {"unlabelled": True}):
        assert score(lambda labels, seed: answers(labels, 1.0, 1 - 1e-9), **setting) == pytest.approx(1.0, abs=1e-3)


class TestClassFrequencies:
    """What is known of them takes the place of evenness."""

    def of(self, mean: list[float], frequencies: tuple[float, ...] = ()) -> float:
        steady = {"consistency": 1.0, "entropy": 0.0}
        return selection.scores(steady, None, 0, sure(mean), frequencies)["unlabelled"]

    def test_predictions_that_match_them_are_best(self) -> None:
        skewed = (0.8, 0.1, 0.1)
        assert self.of([0.8, 0.1, 0.1], skewed) > self.of([1 / 3] * 3, skewed) > self.of([0.1, 0.1, 0.8], skewed)
        assert self.of([1 / 3] * 3) > self.of([0.8, 0.1, 0.1])

    def test_a_small_gap_costs_nothing_for_both_are_estimates(self) -> None:
        assert self.of([0.75, 0.15, 0.1], (0.8, 0.1, 0.1)) == pytest.approx(1.0)

    @pytest.mark.parametrize(("classes", "few"), [(39, 2), (39, 4), (10, 1)])
    def test_an_even_mean_of_answers_that_are_few_classes_is_no_match(self, classes: int, few: int) -> None:
        """A model that is hardly surer of one class than of another has an even mean, and may read the background."""
        rng = np.random.default_rng(0)
        truth = rng.integers(0, classes, 300)
        hardly = np.full((300, classes), 1.0)
        hardly[np.arange(300), truth % few] += 0.5
        noisy = answers(truth, 0.15, 0.3, classes=classes)

        def scored(predictions: np.ndarray, consistency: float) -> float:
            predictions = predictions / predictions.sum(1, keepdims=True)
            entropy = float((predictions * np.log(predictions)).sum(1).mean())
            return selection.scores({"consistency": consistency, "entropy": entropy}, None, 0, predictions)["score"]

        assert scored(hardly, 0.95) < scored(noisy, 0.4)

    def test_what_says_nothing_but_the_frequencies_scores_nothing(self) -> None:
        """However skewed they are: it is as unsure as they are."""
        for frequencies in ((0.9, 0.05, 0.05), (0.4, 0.3, 0.3)):
            entropy = -sum(share * math.log(share) for share in frequencies)
            guess = {"consistency": 0.0, "entropy": -entropy}
            found = selection.scores(guess, None, 0, alike(frequencies), frequencies)
            assert found["unlabelled"] == pytest.approx(0.0, abs=1e-9)


class TestChance:
    """A sample never has the classes as often as they are; that is not held against who was looked at on few images."""

    def mean(self, images: int, frequencies: np.ndarray, said: Callable[[np.ndarray], np.ndarray]) -> float:
        """The score on average over samples of the images."""
        rng, found = np.random.default_rng(0), []
        for _ in range(20):
            labels = rng.choice(len(frequencies), images, p=frequencies)
            found.append(
                selection.scores({"consistency": 1.0, "entropy": 0.0}, None, 0, said(labels), tuple(frequencies))[
                    "unlabelled"
                ]
            )
        return float(np.mean(found))

    @pytest.mark.parametrize("classes", [2, 3, 10, 65, 345])
    @pytest.mark.parametrize("skewed", [False, True])
    def test_who_is_right_and_sure_scores_as_well_on_a_few_images_of_many_classes(
        self, classes: int, skewed: bool
    ) -> None:
        frequencies = np.arange(1, classes + 1) ** (-1.0 if skewed else 0.0)
        frequencies /= frequencies.sum()
        found = [self.mean(images, frequencies, lambda labels: np.eye(classes)[labels]) for images in (128, 512)]
        assert min(found) > 0.97 and abs(found[0] - found[1]) < 0.02

    @pytest.mark.parametrize("classes", [2, 10, 65])
    def test_so_does_who_is_unsure(self, classes: int) -> None:
        rng = np.random.default_rng(1)

        def unsure(labels: np.ndarray) -> np.ndarray:
            return 0.4 * np.eye(classes)[labels] + 0.6 * rng.dirichlet(np.full(classes, 0.5), len(labels))

        found = [self.mean(images, np.full(classes, 1 / classes), unsure) for images in (128, 512)]
        assert min(found) > 0.97

    @pytest.mark.parametrize("classes", [2, 10, 65])
    def test_half_of_the_classes_for_all_is_no_chance(self, classes: int) -> None:
        """Nor is what occurs hardly ever and is said of a third of the images: there is no chance of that."""
        even = np.full(classes, 1 / classes)
        halves = self.mean(128, even, lambda labels: np.eye(classes)[labels // 2])
        assert halves < 0.65
        rare = np.r_[np.full(classes - 1, 1.0), 1e-7]
        third = self.mean(
            128, rare / rare.sum(), lambda labels: np.eye(classes)[np.where(np.arange(128) % 3, labels, classes - 1)]
        )
        assert third < 0.1


def test_without_target_labels_held_out_source_images_have_a_say() -> None:
    metrics = {"consistency": 0.8, "entropy": -0.1}
    low, high = (selection.scores(metrics | {"source-accuracy": a}, None, 0, alike([1 / K] * K)) for a in (0.2, 0.9))
    assert low["unlabelled"] == high["unlabelled"]
    assert high["score"] - low["score"] == pytest.approx(0.7 / 4)


def test_a_metric_that_is_no_accuracy_counts_in_its_place() -> None:
    """Balanced accuracy, say, may be far below accuracy: what is told to be good is what counts."""
    metrics = {"target-accuracy": 0.9, "target-log-loss": -0.5}
    one_error = math.sqrt(0.5 / 30)
    assert selection.scores(metrics, 0.4, 30, None)["score"] == pytest.approx(0.4 - one_error * 0.5 / 3)
    by_class = selection.scores(metrics, 0.4, 30, None, log_loss=1.5)  # as the metric counts its images
    assert by_class["score"] == pytest.approx(0.4 - one_error * 1.5 / 3)


@given(st.integers(1, 2000), st.floats(0, 1), st.floats(0, 1))
def test_neither_evidence_without_labels_nor_log_loss_outvotes_what_labels_can_tell(
    images: int, better: float, worse: float
) -> None:
    """However sure and steady the worse model is, and however much its log loss is less."""
    certain, unsure = {"consistency": 1.0, "entropy": 0.0}, {"consistency": 0.0, "entropy": -math.log(K)}

    def scored(metric: float, log_loss: float, seen: dict[str, float]) -> dict[str, float]:
        return selection.scores(seen | {"target-log-loss": -log_loss}, metric, images, sure([1 / K] * K))

    worse, better = sorted((worse, better))
    one_error = math.sqrt(0.5 / images)
    ahead, behind = scored(better, 0.0, unsure), scored(worse, 0.0, certain)
    assert ahead["unlabelled"] == pytest.approx(0.0, abs=1e-9) and behind["unlabelled"] == pytest.approx(1.0)
    assert (ahead["score"] > behind["score"]) == (better - worse > one_error) or better - worse == pytest.approx(
        one_error, abs=1e-6
    )
    ahead, behind = scored(better, 9.0, certain), scored(worse, 0.0, certain)
    assert (ahead["labelled"] > behind["labelled"]) == (better - worse > one_error) or better - worse == pytest.approx(
        one_error, abs=1e-6
    )
