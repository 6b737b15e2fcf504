"""The interval of one model's metric."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtrit

from raytl.evaluation.intervals.binomial import share_interval
from raytl.evaluation.intervals.dependence import dependence
from raytl.evaluation.intervals.means import Interval
from raytl.evaluation.intervals.smoothing import Figure, class_means, freedom, placed, smoothed, squares_by_class
from raytl.evaluation.metrics import Metric


def metric_interval(
    metric: Metric, probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None
) -> Interval:
    """A metric with its 95 % interval, within what the metric can be.

    probabilities: (n, k), finite; labels: (n,); n >= 1. groups: (n,), equal where items belong together (images of one
    patient, duplicates), or None.

    Metrics with two limits get the interval of a share (:func:`share_interval`) at the number of independent
    right-or-wrong answers that would vary as the metric does (Korn & Graubard, 1998): its variance from the items'
    influences, smoothed so that a class without a mistake is not taken for certain, times what groups add. For accuracy
    without groups that is the interval of the share of right answers itself. A metric that is better on few items than
    on many (average precision) has the worse end further off by what it may be too good (:attr:`Metric.flattery`),
    which copies of an item do not make less. Losses get a t interval on a logarithmic
    scale; one guess at random among as many items is added to the variance, because a sample without any great loss
    does not show that there are none. Where the metric is undefined: NaN, between the limits.

    Out-of-fold probabilities may be given (repeats averaged); how models vary with their training set then counts only
    as far as the items show it. For models that vary much with it (five nearest neighbours on 60 to 200 items) the
    interval covered 87 to 94 times in 100, for logistic regression 93 to 95.
    """
    spread = spread_of(metric, probabilities, labels, groups)
    return interval_at(metric, metric(probabilities, labels), spread, labels, groups)


@dataclass(frozen=True)
class Spread:
    """How a metric varies with the items it is taken on.

    influence: (n,), of each item. expected: (n,), the expected square of each. smoothed: the metric with imagined items
    among the real ones. guess: the loss of a guess at random, for losses. df: degrees of freedom that the expected
    squares were told by, where these are few. flattery: how much too good the metric may be.
    """

    influence: np.ndarray
    expected: np.ndarray
    smoothed: float
    guess: float
    df: float = math.inf
    flattery: float = 0.0


def spread_of(
    metric: Metric, probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None
) -> Spread:
    """Of one model, arguments as in :func:`metric_interval`; NaN where the metric is undefined."""
    found = _spread_of(metric, probabilities, labels)
    if metric.flattery is None:
        return found
    return replace(found, flattery=metric.flattery(probabilities, labels, groups))


def _spread_of(metric: Metric, probabilities: np.ndarray, labels: np.ndarray) -> Spread:
    n, guess = len(labels), math.log(max(2, probabilities.shape[1]))
    influence = metric.influence(probabilities, labels)
    if not _bounded(metric):
        if metric.by_class:
            squares = squares_by_class(Figure(metric, [(1, probabilities)], labels), influence)
        else:
            squares = np.full(n, float((influence**2).mean()) * n / max(n - 1, 1))
        return Spread(influence, squares + (guess / n) ** 2 / n, math.nan, guess)
    if metric.reach is not None:
        squares = metric.reach(labels, probabilities.shape[1]) ** 2
        low, high = metric.limits
        answers = 1 / max(float(squares.sum()), 1 / n)
        mean = (metric(probabilities, labels) * answers + low + high + low + high) / (answers + 4)
        return Spread(influence, squares * (mean - low) * (high - mean), mean, guess)
    if metric.places is not None:
        squares, mean = placed(metric, probabilities, labels)
        return Spread(
            influence,
            class_means(influence**2, labels) + squares,
            mean,
            guess,
            freedom(metric.places(labels, probabilities.shape[1])),
        )
    found = smoothed(Figure(metric, [(1, probabilities)], labels), 2.0)
    # What the imagined items add to the number of items is taken off again: they widen, they do not inform.
    scale = np.divide(found.reach, found.reach_with, out=np.ones(n), where=found.reach_with > 0)
    return Spread(influence, found.squares * scale**2, found.value, guess)


def interval_at(
    metric: Metric, value: float, spread: Spread, labels: np.ndarray, groups: np.ndarray | None
) -> Interval:
    """The interval of :func:`metric_interval` around any value that varies as ``spread`` says."""
    low, high = metric.limits
    if not math.isfinite(value):
        return Interval(value, low, high)
    among = dependence(spread.influence, spread.expected, labels, groups)
    variance = float(spread.expected.sum()) * among.inflation
    if not variance:
        return Interval(value, value, value)
    if _bounded(metric):
        answers = max(1.0, (spread.smoothed - low) * (high - spread.smoothed) / variance)
        known = max(1.0, among.inflation) / spread.df + 1 / among.df  # ten copies of an item are one
        df = 1 / known if known else math.inf
        ends = share_interval((value - low) / (high - low), answers, quantile(0.95, df))
        ends = (low + (high - low) * ends[0], low + (high - low) * ends[1])
    else:
        df = 1 / (1 / max(len(labels) - 1, 1) + 1 / among.df)
        # Losses lean to the right, the more the smaller they are: symmetric on the scale of log(loss + a guess's loss).
        factor = math.exp(quantile(0.95, df) * math.sqrt(variance) / (value + spread.guess))
        ends = ((value + spread.guess) / factor - spread.guess, (value + spread.guess) * factor - spread.guess)
    below, above = (spread.flattery, 0.0) if metric.higher_is_better else (0.0, spread.flattery)
    return Interval(value, max(low, min(value, ends[0] - below)), min(high, max(value, ends[1] + above)))


def _bounded(metric: Metric) -> bool:
    return math.isfinite(metric.limits[1] - metric.limits[0])


def quantile(level: float, df: float) -> float:
    """Half-width of a central interval of Student's t, in standard errors."""
    return float(-stdtrit(min(df, 1e9), (1 - level) / 2))
