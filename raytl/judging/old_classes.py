"""What a model's classes lose when it learns something more: the same images before and after."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raytl.evaluation import metrics
from raytl.evaluation.intervals import Comparison, Interval, holm_comparisons, metric_interval, paired_metric_interval


@dataclass(frozen=True)
class OldClasses:
    """Accuracy on the images of the old classes, each judged by a head that was not fitted on it.

    before, after: with 95 % intervals. change: after less before. suffered: numbers of the classes that lost beyond
    doubt; together: whether all of them did, taken as one; the doubt is that of all these questions (Holm, 5 %).
    images: how many.
    """

    before: Interval
    after: Interval
    change: Comparison
    suffered: tuple[int, ...]
    together: bool
    images: int

    @property
    def worse(self) -> bool:
        """Whether anything was lost beyond doubt."""
        return self.together or bool(self.suffered)

    def to_json(self, labels: tuple[str, ...]) -> dict[str, object]:
        """Plain values; labels: names of the classes."""
        return {
            "images": self.images,
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "change": self.change.to_json(),
            "worse": self.worse,
            "suffered": [labels[number] for number in self.suffered],
        }


def compare_old_classes(
    before: np.ndarray, after: np.ndarray, labels: np.ndarray, classes: int, groups: np.ndarray
) -> OldClasses:
    """before, after: (n,) predicted classes of the images; labels: (n,); n >= 1. classes: how many there are after."""
    accuracy = metrics.get("accuracy")
    was, now = named(before, classes), named(after, classes)
    present = [int(label) for label in np.unique(labels)]
    parts = [np.ones(len(labels), dtype=bool), *(labels == label for label in present)]
    pairs = [paired_metric_interval(accuracy, now[p], was[p], labels[p], groups[p]) for p in parts]
    together = holm_comparisons(pairs)
    return OldClasses(
        metric_interval(accuracy, was, labels, groups),
        metric_interval(accuracy, now, labels, groups),
        pairs[0],
        tuple(label for label, pair in zip(present, together[1:], strict=True) if pair.high < 0),
        together[0].high < 0,
        len(labels),
    )


def named(chosen: np.ndarray, classes: int) -> np.ndarray:
    """Predicted classes (n,) as probabilities (n, classes) of 0 and 1, for figures of the decision alone."""
    return np.asarray(np.eye(classes)[chosen])
