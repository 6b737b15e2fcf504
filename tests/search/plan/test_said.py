"""What strategies said of the images, where several models of one strategy were asked of each."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from raytl.evaluation import metrics
from raytl.evaluation.calibration import fit_temperature
from raytl.search.plan.contest import Contest
from raytl.search.plan.said import Labels, Said
from raytl.search.records import TrialRecord, TrialStatus
from raytl.tasks.splits import folds
from raytl.training import Strategy

CLASSES, IMAGES = 5, 60
TRUTH = np.tile(np.arange(CLASSES), IMAGES // CLASSES)
STRATEGY = Strategy("scratch:cnn-small")


def said_of(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Probabilities (n, k) of a model that is too sure, and errs on other images than the next one does."""
    return softmax(2.5 * (1.5 * np.eye(CLASSES)[labels] + rng.normal(size=(len(labels), CLASSES))), axis=1)


def tried(repeats: int, seed: int, metric: str = "accuracy", copies: bool = False) -> Said:
    """A strategy on all folds. copies: each repeat says what the first one did."""
    rng, records = np.random.default_rng(seed), []
    first = said_of(TRUTH, rng)
    for number, (_, validated) in enumerate(folds(TRUTH, None, 5, repeats, seed)):
        record = TrialRecord(number, "search", STRATEGY.to_dict(), STRATEGY.key, fold=number)
        record.status, record.score, record.validated = TrialStatus.COMPLETED, 0.5, validated.tolist()
        record.predicted = (first[validated] if copies else said_of(TRUTH[validated], rng)).tolist()
        records.append(record)
    return Contest(records, Labels(TRUTH, None, CLASSES, metrics.get(metric))).said


class TestTemperature:
    def test_is_that_of_one_model_however_many_were_asked(self) -> None:
        many = np.repeat(np.arange(CLASSES), 4000)
        logits = np.log(said_of(many, np.random.default_rng(1)))
        of_one = fit_temperature(logits, many)
        found = [tried(5, seed).temperature(STRATEGY.key) for seed in range(6)]
        assert np.mean([one for one in found if one is not None]) == pytest.approx(of_one, rel=0.15)

    def test_of_repeats_that_say_the_same_is_that_of_once(self) -> None:
        """The prior weighs against images, not against how often they were asked."""
        assert tried(5, 0, copies=True).temperature(STRATEGY.key) == pytest.approx(
            tried(1, 0, copies=True).temperature(STRATEGY.key)
        )

    def test_of_many_images_some_are_looked_at(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One number takes sixty passes over a table that of hundreds of classes has millions of cells."""
        classes, images, looked_at = 40, 8000, []
        truth = np.tile(np.arange(classes), images // classes)
        record = TrialRecord(0, "search", STRATEGY.to_dict(), STRATEGY.key, fold=0)
        record.status, record.validated = TrialStatus.COMPLETED, list(range(images))
        rng = np.random.default_rng(0)
        record.predicted = softmax(4 * np.eye(classes)[truth] + rng.normal(size=(images, classes)), axis=1)

        def noted(logits: np.ndarray, labels: np.ndarray, pull: float = 1.0) -> float:
            looked_at.append(len(logits))
            return fit_temperature(logits, labels, pull=pull)

        monkeypatch.setattr(sys.modules[Said.__module__], "fit_temperature", noted)
        said = Contest([record], Labels(truth, None, classes, metrics.get("accuracy"))).said
        of_all = fit_temperature(np.log(record.predicted), truth)
        assert said.temperature(STRATEGY.key) == pytest.approx(of_all, rel=0.05)
        assert looked_at == [5000]

    def test_is_not_fitted_on_few_images_asked_often(self) -> None:
        labels = Labels(TRUTH[:15], None, CLASSES, metrics.get("log-loss"))
        records = []
        for number in range(4):
            record = TrialRecord(number, "search", STRATEGY.to_dict(), STRATEGY.key, fold=number)
            record.status, record.validated = TrialStatus.COMPLETED, list(range(15))
            record.predicted = said_of(TRUTH[:15], np.random.default_rng(number)).tolist()
            records.append(record)
        said = Contest(records, labels).said
        assert said.temperature(STRATEGY.key) is None
        np.testing.assert_allclose(said.judged(STRATEGY.key), said.out_of_fold(STRATEGY.key))

    def test_of_what_is_judged_by_certainty_is_each_models_own(self) -> None:
        """The mean of what models say is calibrated by itself; each of them is too sure."""
        said = tried(5, 2, "log-loss")
        judged, each = said.judged(STRATEGY.key), said.each(STRATEGY.key)
        assert judged is not None and each is not None
        index, rows = each
        temperature = fit_temperature(np.log(rows), TRUTH[index])
        tempered = np.exp(log_softmax(np.log(rows) / temperature, axis=1))
        expected = np.stack([tempered[index == image].mean(axis=0) for image in range(IMAGES)])
        np.testing.assert_allclose(judged, expected, atol=0.05)
