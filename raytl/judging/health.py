"""Whether a model is still right on what comes in now, by what is known of it from labelled images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from raytl.evaluation.drift import Drift, drift_test
from raytl.evaluation.label_sets import COVERAGE, FALSE_REFUSALS, label_sets, refusal_threshold, set_threshold
from raytl.evaluation.second_opinions import SecondOpinions
from raytl.evaluation.unseen_accuracy import Correctness, Estimate

FEW = 50
"""Yardstick images below which what is said of a model is said to rest on few."""
LEAST_IMAGES = 20
"""Yardstick images below which nothing is said."""
MOST_ASKED = 1000
"""Labelled images that are kept to be asked for a second opinion."""


@dataclass(frozen=True)
class Yardstick:
    """What is known of a model from labelled images that it was not trained on when it spoke of them.

    probabilities: (n, k), calibrated; chosen, labels: (n,), predicted and true; opinions: (n, 6) of them; statistics:
    (n, s) of the images. thumbnails, thumbnail_statistics, thumbnail_labels: (m, t), (m, s), (m,) of the labelled
    images that are asked for a second opinion. correctness: how probably a prediction is right.
    """

    probabilities: np.ndarray
    chosen: np.ndarray
    labels: np.ndarray
    opinions: np.ndarray
    statistics: np.ndarray
    thumbnails: np.ndarray
    thumbnail_statistics: np.ndarray
    thumbnail_labels: np.ndarray
    correctness: Correctness

    @cached_property
    def set_threshold(self) -> float:
        """Of sets of labels that hold the true one in :data:`COVERAGE` of cases."""
        return set_threshold(self.probabilities, self.labels)

    @cached_property
    def refusal_threshold(self) -> float:
        """Probability of being right below which an image looks like none of the classes."""
        return refusal_threshold(self.correctness.probabilities(self.opinions))

    @cached_property
    def second_opinions(self) -> SecondOpinions:
        """Whom else to ask."""
        return SecondOpinions(
            self.thumbnails, self.thumbnail_statistics, self.thumbnail_labels, self.probabilities.shape[1]
        )

    def asked(
        self, probabilities: np.ndarray, chosen: np.ndarray, thumbnails: np.ndarray, statistics: np.ndarray
    ) -> np.ndarray:
        """What is told of new images, (m, 6): see :meth:`SecondOpinions.about`."""
        return self.second_opinions.about(probabilities, chosen, thumbnails, statistics)

    def unlike(self, told: np.ndarray) -> np.ndarray:
        """Which images look like none of the classes, bool (m,). told: (m, 6) of :meth:`asked`."""
        return self.correctness.probabilities(told) < self.refusal_threshold

    def sets(self, probabilities: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Which labels each image may have, bool (m, k); chosen: (m,), predicted, as in :meth:`asked`.

        The predicted one always is among them: where a threshold decides it need not be the most probable, and two
        answers to one question are not to contradict each other. Sets only grow by it, and hold the true label no less.
        """
        sets = label_sets(probabilities, self.set_threshold)
        sets[np.arange(len(sets)), chosen] = True
        return sets


@dataclass(frozen=True)
class Health:
    """What is said of a model on some images without labels.

    images: how many. accuracy: share of predictions that are right, estimated. unlike: share of images that look like
    none of the classes, of which ``FALSE_REFUSALS`` do among known ones; None where too few are known to say. drift:
    None where there are too few images. shares, usual_shares: (k,) of the predicted labels, here and there.
    reference_images: how many labelled images all this rests on; usual_accuracy: on them.
    """

    images: int
    accuracy: Estimate
    unlike: float | None
    drift: Drift | None
    shares: np.ndarray
    usual_shares: np.ndarray
    usual_accuracy: float
    reference_images: int

    @property
    def few(self) -> bool:
        """Whether it rests on few labelled images."""
        return self.reference_images < FEW

    def to_json(self, labels: tuple[str, ...]) -> dict[str, object]:
        """Plain values; labels: names of the classes."""
        known = bool(self.images)
        return {
            "images": self.images,
            "accuracy": {"value": self.accuracy.value, "low": self.accuracy.low, "high": self.accuracy.high}
            if known
            else None,
            "usual_accuracy": self.usual_accuracy,
            "reference_images": self.reference_images,
            "unlike": self.unlike if known else None,
            "unlike_usually": FALSE_REFUSALS,
            "set_coverage": COVERAGE,
            "drift": None if self.drift is None else {"alarm": self.drift.alarm, "p": self.drift.p},
            "shares": dict(zip(labels, self.shares.tolist(), strict=True)) if known else None,
            "usual_shares": dict(zip(labels, self.usual_shares.tolist(), strict=True)),
        }


def judge_health(
    yardstick: Yardstick,
    told: np.ndarray,
    chosen: np.ndarray,
    statistics: np.ndarray,
    seed: int = 0,
) -> Health:
    """What can be said of a model on images without labels.

    told: (m, 6) of :meth:`Yardstick.asked`; chosen: (m,); statistics: (m, s). Drift is of images within a
    predicted class, so that other frequencies of the classes are none.
    """
    classes = yardstick.probabilities.shape[1]
    sayable = np.isfinite(yardstick.refusal_threshold) and len(chosen)
    unlike = float(yardstick.unlike(told).mean()) if sayable else None
    drift = drift_test(yardstick.statistics, statistics, (yardstick.chosen, chosen), seed=seed)
    counts = np.bincount(chosen, minlength=classes)
    return Health(
        len(chosen),
        yardstick.correctness.estimate(told, chosen),
        unlike,
        drift,
        counts / max(1, len(chosen)),
        np.bincount(yardstick.chosen, minlength=classes) / len(yardstick.chosen),
        yardstick.correctness.usual,
        yardstick.correctness.images,
    )
