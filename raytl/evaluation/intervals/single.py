"""The interval of one model's metric."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import stdtrit

from raytl.evaluation.intervals.dependence import dependence
from raytl.evaluation.intervals.means import Interval
from raytl.evaluation.intervals.smoothing import Figure, smoothed
from raytl.evaluation.metrics import Metric


def metric_interval(
    metric: Metric, probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None
) -> Interval:
    """A metric with its 95 % interval, within what the metric can be.

    probabilities: (n, k), finite; labels: (n,); n >= 1. groups: (n,), equal where items belong together (images of one
    patient, duplicates), or None.

    Metrics with two limits get Wilson's interval at the number of independent right-or-wrong answers that would vary
    as the metric does (Korn & Graubard, 1998): its variance from the items' influences, smoothed so that a class
    without a mistake is not taken for certain, times what groups add. For accuracy without groups that is Wilson's
    interval itself. Losses get a t interval on a logarithmic scale; one guess at random among as many items is added to
    the variance, because a sample without any great loss does not show that there are none. Where the metric is
    undefined: NaN, between the limits.
    """
    value = metric(probabilities, labels)
    if not math.isfinite(value):
        return Interval(value, *metric.limits)
    if not math.isfinite(metric.limits[1] - metric.limits[0]):
        return _loss(metric, value, probabilities, labels, groups)
    variance, answers, df = _effective(metric, probabilities, labels, groups)
    return wilson(metric, value, answers, df) if variance else Interval(value, value, value)


def wilson(metric: Metric, value: float, answers: float, df: float) -> Interval:
    """Wilson's interval between the limits of ``metric``, for as many independent ``answers`` (a fraction, too)."""
    low, high = metric.limits
    share, z = (value - low) / (high - low), quantile(0.95, df)
    centre = (share + z**2 / (2 * answers)) / (1 + z**2 / answers)
    half = z / (1 + z**2 / answers) * math.sqrt(max(0.0, share * (1 - share)) / answers + (z / (2 * answers)) ** 2)
    ends = (max(0.0, centre - half), min(1.0, centre + half))
    return Interval(value, min(value, low + (high - low) * ends[0]), max(value, low + (high - low) * ends[1]))


def quantile(level: float, df: float) -> float:
    """Half-width of a central interval of Student's t, in standard errors."""
    return float(-stdtrit(min(df, 1e9), (1 - level) / 2))


def _effective(
    metric: Metric, probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray | None
) -> tuple[float, float, float]:
    """Variance, as many independent answers, degrees of freedom."""
    low, high = metric.limits
    found = smoothed(Figure(metric, [(1, probabilities)], labels), 2.0)
    # What the imagined items add to the number of items is taken off again: they widen, they do not inform.
    scale = np.divide(found.reach, found.reach_with, out=np.ones(len(labels)), where=found.reach_with > 0)
    expected = found.squares * scale**2
    among = dependence(metric.influence(probabilities, labels), expected, labels, groups)
    variance = float(expected.sum()) * among.inflation
    spread = (found.value - low) * (high - found.value)
    return variance, max(1.0, spread / variance) if variance > 0 else math.inf, among.df


def _loss(
    metric: Metric, value: float, probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray | None
) -> Interval:
    n, k = probabilities.shape
    guess = math.log(max(2, k))
    influence = metric.influence(probabilities, labels)
    expected = np.full(n, float((influence**2).mean()) * n / max(n - 1, 1) + (guess / n) ** 2 / n)
    among = dependence(influence, expected, labels, groups)
    error = math.sqrt(float(expected.sum()) * among.inflation)
    df = 1 / (1 / max(n - 1, 1) + 1 / among.df)
    # Losses lean to the right, the more the smaller they are: symmetric on the scale of log(loss + a guess's loss).
    factor = math.exp(quantile(0.95, df) * error / (value + guess))
    low, high = ((value + guess) * turn - guess for turn in (1 / factor, factor))
    return Interval(value, max(metric.limits[0], low), min(metric.limits[1], high))
