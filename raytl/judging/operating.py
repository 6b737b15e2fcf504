"""The operating point of a two-class model: from which probability on the class that is looked for is named."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raytl.core.errors import UserError, nearest
from raytl.evaluation import metrics
from raytl.evaluation.intervals import Interval, metric_interval
from raytl.evaluation.metrics import Metric, rarer

GOALS = ("recall", "precision")


@dataclass(frozen=True)
class Goal:
    """What is asked for: so much ``recall`` or ``precision`` of the class that is looked for.

    label: which one that is; empty for the rarer of the two.
    """

    name: str
    share: float
    label: str = ""

    def place(self, classes: tuple[str, ...], labels: np.ndarray) -> int:
        """The index of the class that is looked for.

        labels: (n,), of all labelled images of the target: of those alone that were validated, one image more or less
        could be of the other class. Raises UserError for other than two classes, and where the goal's is none of them.
        """
        self.check(classes)
        return classes.index(self.label) if self.label else rarer(labels)

    def check(self, classes: tuple[str, ...]) -> None:
        """Raise UserError for other than two classes, and where the goal's is none of them."""
        if len(classes) != 2:
            raise UserError(f"--at needs a task of two classes, and this one has {len(classes)}")
        if self.label and self.label not in classes:
            raise UserError(f"--at {self}: there is no class '{self.label}'{nearest(self.label, classes)}")

    def __str__(self) -> str:
        return f"{self.label}:{self.name}={self.share:g}" if self.label else f"{self.name}={self.share:g}"


@dataclass(frozen=True)
class Decided:
    """How good what a threshold decides is on some images, with 95 % intervals.

    recall, precision: of the class that is looked for; None where no image has it, and where it is never named.
    metric: what the run goes by, of the labels that are named; None for a metric that does not go by these.
    """

    recall: Interval | None
    precision: Interval | None
    metric: Interval | None


@dataclass(frozen=True)
class OperatingPoint:
    """The class ``label`` is named where its probability is at least ``value``.

    recall, precision, metric: as in :class:`Decided`, on images that the model was not trained on, by which the
    threshold was set; the class has some of them. reached: whether the goal was met there. test: on the test images, by
    which nothing was set; None where there are none.
    """

    label: str
    value: float
    recall: Interval
    precision: Interval | None
    reached: bool
    metric: Interval | None = None
    test: Decided | None = None

    def decide(self, probabilities: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
        """The labels named by rows of calibrated probabilities (n, 2): indices into the classes, int64 (n,)."""
        label = classes.index(self.label)
        return np.where(probabilities[:, label] >= self.value, label, 1 - label)


def parse_goal(text: str) -> Goal:
    """``recall=0.95``, or ``CLASS:recall=0.95``, as a goal. Raises UserError that says how to write it.

    What is asked for has no colon, and follows the last one: a class may have colons and equals signs in its name.
    """
    label, colon, asked = text.rpartition(":")
    name, _, number = asked.partition("=")
    try:
        share = float(number)
    except ValueError:
        share = 0.0
    if name not in GOALS or not 0 < share <= 1 or (colon and not label):
        raise UserError(
            f"--at {text}: write recall=0.95 or precision=0.9, a share above 0 and at most 1; with a class and a colon "
            "before it (scratched:recall=0.95) where it is to be of another one than the rarer"
        )
    return Goal(name, share, label)


def operating_point(
    probabilities: np.ndarray,
    labels: np.ndarray,
    classes: tuple[str, ...],
    goal: Goal,
    positive: int,
    groups: np.ndarray | None = None,
    metric: Metric | None = None,
) -> OperatingPoint:
    """The threshold that meets the goal and gives up least of the other.

    probabilities: (n, 2), calibrated, of images that the model was not trained on; labels: (n,). positive: index of the
    class that is looked for, as from :meth:`Goal.place`. groups: (n,) or None, as for ``metric_interval``. metric: what
    the run goes by. For a recall the highest threshold that reaches it; for a precision the lowest one. Where no
    threshold reaches the goal, the one that comes nearest. Raises ValueError where a class has no image.
    """
    if not np.bincount(labels, minlength=2).all():
        raise ValueError("an operating point needs images of both classes")
    scores, wanted = probabilities[:, positive].astype(np.float64), labels == positive
    steps = np.unique(np.append(scores, 0.0))
    below = np.searchsorted(np.sort(scores), steps)  # so many are not named
    hits = wanted.sum() - np.searchsorted(np.sort(scores[wanted]), steps)
    recall = hits / wanted.sum()
    precision = hits / np.maximum(len(scores) - below, 1)
    figure = recall if goal.name == "recall" else precision
    enough = np.flatnonzero(figure >= goal.share)
    nearest = int(np.argmax(figure))
    chosen = nearest if not len(enough) else int(enough[-1] if goal.name == "recall" else enough[0])
    found = decided(scores >= steps[chosen], positive, labels, groups, metric)
    assert found.recall is not None  # both classes have images
    return OperatingPoint(
        classes[positive], float(steps[chosen]), found.recall, found.precision, bool(len(enough)), found.metric
    )


def decided(
    named: np.ndarray, positive: int, labels: np.ndarray, groups: np.ndarray | None = None, metric: Metric | None = None
) -> Decided:
    """How good it is to name the class ``positive``, one of two, where ``named`` (n,) says so.

    labels: (n,). groups: (n,) or None, as for ``metric_interval``.
    """
    wanted = labels == positive
    chosen = np.where(named, positive, 1 - positive)
    return Decided(
        _share(named[wanted], None if groups is None else groups[wanted]) if wanted.any() else None,
        _share(wanted[named], None if groups is None else groups[named]) if named.any() else None,
        metric_interval(metric, np.eye(2)[chosen], labels, groups) if metric is not None and metric.by_label else None,
    )


def _share(hits: np.ndarray, groups: np.ndarray | None) -> Interval:
    """Of hits, bool (n,)."""
    return metric_interval(
        metrics.get("accuracy"), np.stack([~hits, hits], axis=1).astype(np.float64), np.ones(len(hits), int), groups
    )
