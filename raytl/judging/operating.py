"""The operating point of a two-class model: from which probability on the class that is looked for is named."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raytl.core.errors import UserError
from raytl.evaluation import metrics
from raytl.evaluation.intervals import Interval, metric_interval

GOALS = ("recall", "precision")


@dataclass(frozen=True)
class Goal:
    """What is asked for: so much ``recall`` or ``precision`` of the class that is looked for."""

    name: str
    share: float


@dataclass(frozen=True)
class OperatingPoint:
    """The class ``label`` is named where its probability is at least ``value``.

    recall, precision: on images that the model was not trained on, with 95 % intervals; precision None where the class
    is never named. reached: whether the goal was met there.
    """

    label: str
    value: float
    recall: Interval
    precision: Interval | None
    reached: bool


def parse_goal(text: str) -> Goal:
    """``recall=0.95`` as a goal. Raises UserError that says how to write it."""
    name, _, number = text.partition("=")
    try:
        share = float(number)
    except ValueError:
        share = 0.0
    if name not in GOALS or not 0 < share <= 1:
        raise UserError(f"--at {text}: write recall=0.95 or precision=0.9, a share above 0 and at most 1")
    return Goal(name, share)


def operating_point(
    probabilities: np.ndarray,
    labels: np.ndarray,
    classes: tuple[str, ...],
    goal: Goal,
    groups: np.ndarray | None = None,
) -> OperatingPoint:
    """The threshold that meets the goal and gives up least of the other; of the class with fewer images.

    probabilities: (n, 2), calibrated, of images that the model was not trained on; labels: (n,). groups: (n,) or None,
    as for ``metric_interval``. For a recall the highest threshold that reaches it; for a precision the lowest one.
    Where no threshold reaches the goal, the one that comes nearest. Raises UserError for other than two classes,
    ValueError where a class has no image.
    """
    if len(classes) != 2:
        raise UserError(f"--at needs a task of two classes, and this one has {len(classes)}")
    counts = np.bincount(labels, minlength=2)
    if not counts.all():
        raise ValueError("an operating point needs images of both classes")
    positive = int(np.argmin(counts))
    scores, wanted = probabilities[:, positive].astype(np.float64), labels == positive
    steps = np.unique(np.append(scores, 0.0))
    named = scores[None, :] >= steps[:, None]
    recall = (named & wanted).sum(1) / wanted.sum()
    precision = (named & wanted).sum(1) / np.maximum(named.sum(1), 1)
    figure = recall if goal.name == "recall" else precision
    enough = np.flatnonzero(figure >= goal.share)
    nearest = int(np.argmax(figure))
    chosen = nearest if not len(enough) else int(enough[-1] if goal.name == "recall" else enough[0])
    told = named[chosen]
    return OperatingPoint(
        classes[positive],
        float(steps[chosen]),
        _share(told[wanted], None if groups is None else groups[wanted]),
        _share(wanted[told], None if groups is None else groups[told]) if told.any() else None,
        bool(len(enough)),
    )


def _share(hits: np.ndarray, groups: np.ndarray | None) -> Interval:
    """Of hits, bool (n,)."""
    return metric_interval(
        metrics.get("accuracy"), np.stack([~hits, hits], axis=1).astype(np.float64), np.ones(len(hits), int), groups
    )
