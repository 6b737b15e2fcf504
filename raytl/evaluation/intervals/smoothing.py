"""The variance of a figure on few items, with imagined ones added: ten right of ten do not vary and prove little."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raytl.evaluation.metrics import Metric
from raytl.evaluation.metrics.tables import correctness


@dataclass(frozen=True)
class Figure:
    """A metric of one model, or of one minus another: (sign, probabilities (n, k)) for each, on the same items."""

    metric: Metric
    terms: Sequence[tuple[int, np.ndarray]]
    labels: np.ndarray

    def value(self, weights: np.ndarray) -> float:
        """Under the weights (n,)."""
        return sum(sign * self.metric(rows, self.labels, weights) for sign, rows in self.terms)

    def of(self, items: np.ndarray) -> float:
        """Of some items alone."""
        return sum(sign * self.metric(rows[items], self.labels[items]) for sign, rows in self.terms)

    def influence(self, weights: np.ndarray) -> np.ndarray:
        """Derivative by the weights (n,), at the weights."""
        return np.asarray(sum(sign * self.metric.influence(rows, self.labels, weights) for sign, rows in self.terms))


@dataclass(frozen=True)
class Smoothed:
    """A figure with imagined items among the real ones.

    value: with them. squares: (n,), the mean square of the influences in the item's class, with them. reach: (n,), how
    far an item of the class can move the figure, without them; reach_with: with them. added: (n,), imagined items of
    the class over its real ones.
    """

    value: float
    squares: np.ndarray
    reach: np.ndarray
    reach_with: np.ndarray
    added: np.ndarray


def smoothed(figure: Figure, each: float) -> Smoothed:
    """Add ``each`` items of the greatest value that an item can have, and as many of the least.

    Two of each make Agresti and Coull's interval of a share (1998); one of each, of a difference on the same items,
    Bonett and Price's (2012). Where classes count unequally the additions go to each in proportion to its part in the
    variance (as Price and Bonett's, 2004, do for a mean of shares): a class of three items needs them, one of 300 not.

    Items' influences are taken from their own class's mean, so that few of a class show too little of what they vary
    by, and one shows nothing. Where all classes count alike each gets one more item, as far off as items are within
    the classes: of a hundred classes with two items each the few additions above make up for next to nothing.
    """
    n, k = figure.terms[0][1].shape
    classes, codes, counts = np.unique(figure.labels, return_inverse=True, return_counts=True)
    codes, m = codes.reshape(-1), len(classes)
    eye = np.eye(k)
    other = np.roll(classes, -1) if m > 1 else (classes + 1) % k
    right, wrong = eye[classes], eye[other]
    whole = Figure(
        figure.metric,
        [(s, np.concatenate([rows, *((right, wrong) if s > 0 else (wrong, right))])) for s, rows in figure.terms],
        np.concatenate([figure.labels, classes, classes]),
    )
    reach = _reach(whole.influence(np.repeat([1.0, 0.0], [n, 2 * m])), n)
    worth = counts * reach**2
    worth = each * (worth / worth.sum() if worth.sum() > 0 else counts / n)
    weights = np.concatenate([np.ones(n), worth, worth])
    influence = whole.influence(weights)
    which = np.concatenate([codes, np.arange(m), np.arange(m)])
    total = np.bincount(which, weights * influence**2, m).astype(np.float64)
    if figure.metric.by_class:
        total += _within(figure, codes, counts) * reach**2
    squares = total / (counts + 2 * worth)
    by_class = (squares, reach, _reach(influence, n), 2 * worth / counts)
    return Smoothed(whole.value(weights), *(values[codes] for values in by_class))


def _within(figure: Figure, codes: np.ndarray, counts: np.ndarray) -> float:
    """What an answer, right or wrong, varies by within a class (as a difference of two models), the mean over classes.

    codes: (n,), which of the classes each item is of; counts: (m,), their items. A class of one item, which shows
    nothing, counts with what answers vary by over all classes, each as much as any other.
    """
    answers = np.asarray(sum(sign * correctness(rows, figure.labels) for sign, rows in figure.terms))
    means = np.bincount(codes, answers) / counts
    overall = (np.bincount(codes, (answers - means.mean()) ** 2) / counts).mean()
    squares = np.bincount(codes, (answers - means[codes]) ** 2)
    return float(np.where(counts > 1, squares / np.maximum(counts - 1, 1), overall).mean())


def _reach(influence: np.ndarray, n: int) -> np.ndarray:
    best, worst = np.split(influence[n:], 2)
    return np.asarray(np.abs(best - worst))


def placed(metric: Metric, probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, float]:
    """Of a metric of places: what few items lack of its variance, (n,), and the metric drawn a little to the middle.

    Places that are all the best vary no more than ten right answers of ten do. Of each class there is added as much as
    the mean of one more item than it has would still be uncertain by, were it right as often as the metric says.
    """
    assert metric.places is not None
    reach = metric.places(labels, probabilities.shape[1])
    answers = 1 / max(float((reach**2).sum()), 1e-12)
    low, high = metric.limits
    mean = (metric(probabilities, labels) * answers + 2 * (low + high)) / (answers + 4)
    counts = np.bincount(labels)[labels]
    return (mean - low) * (high - mean) * reach**2 / (counts + 2), mean


def squares_by_class(figure: Figure, influence: np.ndarray) -> np.ndarray:
    """The expected square of each item's influence on a mean over the classes of losses, (n,).

    influence: (n,), as of the figure. Each class has the variance of its own items and of an imagined one, which is as
    far from their mean as items are within the classes, or as the class is from the others if that is more: nobody has
    seen what varies within a class of one image, and one that is far from all others decides nothing by itself.
    """
    labels = figure.labels
    classes, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    codes, m = codes.reshape(-1), len(classes)
    within = np.bincount(codes, (influence * counts[codes]) ** 2, m)  # over m squared, as all that follows
    of_class = np.split(np.argsort(codes, kind="stable"), np.cumsum(counts)[:-1])
    means = np.nan_to_num([figure.of(items) for items in of_class])
    others = (means.sum() - means) / max(m - 1, 1) if m > 1 else means
    usual = within.sum() / max(int((counts - 1).sum()), 1)
    variance = (within + np.maximum(usual, ((means - others) / m) ** 2)) / counts
    return np.asarray((variance / counts**2)[codes])


def freedom(reach: np.ndarray) -> float:
    """Degrees of freedom of a variance to which items add by their reach, (n,): a rare class's few count for most."""
    worth = reach**2
    return max(1.0, float(worth.sum() ** 2 / (worth**2).sum() - 1) if worth.any() else len(reach) - 1.0)


def class_means(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Each item's class's sum of values over one item less than it has, as for a variance; (n,)."""
    counts = np.bincount(labels)
    return np.asarray((np.bincount(labels, values) / np.maximum(counts - 1, 1))[labels])
