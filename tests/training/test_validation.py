"""What a trial is scored by while a search runs, whatever the user's metric is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from raytl.evaluation import metrics, validators
from raytl.evaluation.metrics import Metric
from raytl.training.roles import Roles
from raytl.training.validation import Validation

TRUTH = np.arange(40) % 2


def _errors(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.asarray(weights @ (probabilities.argmax(1) != labels) / weights.sum(axis=1))


METRICS = [
    Metric("error-rate", "error rate", _errors, higher_is_better=False),
    Metric("kappa", "kappa", lambda p, y, w: 1 - 2 * _errors(p, y, w), share=False, limits=(-1.0, 1.0)),
    Metric("right", "right", lambda p, y, w: 1 - _errors(p, y, w)),
    Metric("odds", "odds", lambda p, y, w: 9 * _errors(p, y, w), higher_is_better=False, share=False,
           limits=(0.0, math.inf)),
]  # fmt: skip


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_who_is_right_more_often_scores_higher(metric: Metric) -> None:
    validation = Validation(None, Roles(), 2, metric=metric, frequencies=(), recalibrates=False)  # type: ignore[arg-type]
    found = []
    for wrong in (20, 10, 5, 0):
        said = np.where(np.arange(40) < wrong, 1 - TRUTH, TRUTH)
        # Hardly sure of anything, so that log losses are alike and the metric tells them apart.
        outputs = validators.Outputs(target_probabilities=np.eye(2)[said] * 0.02 + 0.49, target_labels=TRUTH)
        found.append(validation._scored(outputs, last=True).metrics["labelled"])
    assert found == sorted(found) and found[0] + 0.2 < found[-1]


def test_ties_in_a_mean_over_the_classes_are_told_apart_by_one() -> None:
    """Two models are right alike; one is unsure of the few images of the rare class, the other of some of the many."""
    truth = np.repeat([0, 1], [36, 4])
    unsure_of = {"rare": truth == 1, "common": np.arange(40) < 8}
    found = {}
    for name in ("accuracy", "balanced-accuracy"):
        validation = Validation(
            None, Roles(), 2, metric=metrics.get(name), frequencies=(), recalibrates=False,  # type: ignore[arg-type]
        )  # fmt: skip
        for which, unsure in unsure_of.items():
            sure = np.where(unsure, 0.55, 0.95)[:, None]
            said = np.where(np.eye(2)[truth] > 0, sure, 1 - sure)
            outputs = validators.Outputs(target_probabilities=said, target_labels=truth)
            found[name, which] = validation._scored(outputs, last=True).metrics["labelled"]
    assert found["accuracy", "rare"] > found["accuracy", "common"]
    assert found["balanced-accuracy", "rare"] < found["balanced-accuracy", "common"]


def test_who_has_no_figure_where_others_have_one_scores_least() -> None:
    def precision(p: np.ndarray, y: np.ndarray, w: np.ndarray) -> np.ndarray:
        named = w * (p.argmax(1) == 1)
        return np.asarray(metrics.base.ratio(named @ (y == 1), named.sum(axis=1)))

    found = {}
    for truth in (TRUTH, np.zeros(40, int)):
        for name, said in {"poor": np.arange(40) // 20, "none": np.zeros(40, int)}.items():
            validation = Validation(
                None, Roles(), 2, metric=Metric("precision", "precision", precision), frequencies=(),  # type: ignore[arg-type]
                recalibrates=False,
            )  # fmt: skip
            outputs = validators.Outputs(target_probabilities=np.eye(2)[said] * 0.02 + 0.49, target_labels=truth)
            found[name, truth.any()] = validation._scored(outputs, last=True).metrics["labelled"]
    assert found["none", True] < found["poor", True]
    assert found["none", False] == pytest.approx(0.5, abs=0.1)  # nobody who is right has a figure
