"""Two models on the same items: the difference of a metric, its interval and its p value; and several at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtr

from raytl.evaluation.intervals.dependence import dependence
from raytl.evaluation.intervals.single import quantile
from raytl.evaluation.intervals.smoothing import Figure, class_means, freedom, placed, smoothed, squares_by_class
from raytl.evaluation.metrics import Metric

LEVEL = 0.95


@dataclass(frozen=True)
class Comparison:
    """A difference, positive where the first model is better, with its interval at ``level`` and two-sided p value.

    centre, standard_error, df: the t interval that it is, before it is cut to ``limits`` and made to hold the value.
    """

    value: float
    low: float
    high: float
    p: float
    centre: float
    standard_error: float
    df: float
    limits: tuple[float, float]
    level: float = LEVEL

    @property
    def tells(self) -> bool:
        """Whether there is a figure, and an end to how far from it the truth may lie."""
        return all(map(math.isfinite, (self.value, self.low, self.high)))

    def at(self, level: float) -> Comparison:
        """The same with its interval at another level."""
        if not math.isfinite(self.centre):
            return replace(self, low=self.limits[0], high=self.limits[1], level=level)
        half = quantile(level, self.df) * self.standard_error
        low = max(self.limits[0], min(self.value, self.centre - half))
        high = min(self.limits[1], max(self.value, self.centre + half))
        return replace(self, low=low, high=high, level=level)

    def less(self, difference: float) -> Comparison:
        """The same with the first model worth so much less, in the metric's unit; as sure as it was."""
        if not difference or not math.isfinite(self.value):
            return self
        if not math.isfinite(self.centre):
            return replace(self, value=max(self.limits[0], self.value - difference))
        value, centre = max(self.limits[0], self.value - difference), self.centre - difference
        moved = replace(self, value=value, centre=centre, p=_p(centre, self.standard_error, self.df))
        return moved.at(self.level)

    def to_json(self) -> dict[str, float]:
        """Plain values: the difference, its interval, level and p value."""
        return {"value": self.value, "low": self.low, "high": self.high, "p": self.p, "level": self.level}


def paired_metric_interval(
    metric: Metric,
    a: np.ndarray,
    b: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    level: float = LEVEL,
) -> Comparison:
    """How much better ``a`` is than ``b`` on the same items, with its interval.

    a, b: (n, k), finite probabilities of two models; labels: (n,); groups: (n,) or None, as for
    :func:`metric_interval`.

    A t interval on the items' differences in influence, with one imagined item more that only ``a`` gets right and one
    that only ``b`` does (Bonett & Price, 2012; not for losses, whose differences have no least and greatest): two
    models that never differ on a handful of images are not the same beyond doubt. With right-or-wrong answers its p
    value follows the exact McNemar test's, and groups count as in :func:`metric_interval`. The mean over the classes of
    losses varies with the items of each class (:func:`squares_by_class`). A loss that all items share might be nothing
    in one more. On a single item, or the items of a single group, nothing is certain: between the limits, with p = 1;
    so too, with NaN, where the metric is undefined.
    """
    n = len(labels)
    sign = 1 if metric.higher_is_better else -1
    width = metric.limits[1] - metric.limits[0]
    figure = Figure(metric, [(sign, a), (-sign, b)], labels)
    ones = np.ones(n)
    value = figure.value(ones)
    if not math.isfinite(value):
        return Comparison(value, -width, width, 1.0, math.nan, math.nan, 0.0, (-width, width), level)
    influence = figure.influence(ones)
    if metric.reach is not None:
        worth = metric.reach(labels, a.shape[1]) ** 2
        # As much as two answers that differ add, one for each model.
        centre, expected = value, class_means(influence**2, labels) + worth * 2 / (1 / max(worth.sum(), 1 / n) + 2)
        df = float(worth.sum() ** 2 / (worth**2).sum() - 1)
    elif metric.places is not None:
        extra = (placed(metric, a, labels)[0] + placed(metric, b, labels)[0]) / 2
        centre, expected = value, class_means(influence**2, labels) + extra
        df = freedom(metric.places(labels, a.shape[1]))
    elif math.isfinite(width):
        found = smoothed(figure, 1.0)
        centre, expected = found.value, found.squares * (1 + found.added)
        worth = found.reach**2
        # As many items as count alike: where a rare class counts for half, its few decide how well the error is known.
        df = float(worth.sum() ** 2 / (worth**2).sum() - 1) if worth.any() else n - 1.0
    elif metric.by_class:
        centre, expected = value, squares_by_class(figure, influence)
        df = freedom(1 / np.bincount(labels)[labels])
    else:
        centre, expected = value, np.full(n, float((influence**2).mean()) * n / max(n - 1, 1))
        df = n - 1.0
    among = dependence(influence, expected, labels, groups)
    error = math.sqrt(float(expected.sum()) * among.inflation)
    df = 1 / (1 / max(df, 1.0) + 1 / among.df)
    independent = n if groups is None else len(np.unique(groups))
    if not math.isfinite(width):
        error = max(error, abs(value) / (independent + 1)) if independent > 1 else math.inf
    if independent < 2:
        return Comparison(value, -width, width, 1.0, math.nan, error, 0.0, (-width, width), level)
    return Comparison(value, value, value, _p(centre, error, df), centre, error, df, (-width, width)).at(level)


def _p(centre: float, error: float, df: float) -> float:
    """Two-sided, of a t statistic."""
    return 2 * float(stdtr(df, -abs(centre) / error)) if error > 0 else float(centre == 0)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p values, in the order given: rejecting those of at most alpha errs in alpha of the runs.

    The least times their number, the next times one less, and so on; none below one before it, none above 1.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)) if len(p) else p
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, stepped)
    return [float(value) for value in adjusted]


def holm_comparisons(comparisons: Sequence[Comparison], *, level: float = LEVEL) -> list[Comparison]:
    """The same comparisons with Holm's adjusted p values and simultaneous intervals that agree with them.

    An interval leaves zero out exactly where its adjusted p value is below 1 - ``level``; all of them hold their
    differences together in ``level`` of the runs (the direction of a difference read as usual from its sign). That has
    its price (Strassburger & Bretz, 2008; Guilbaud, 2008): while some comparisons are not settled they get intervals
    at the level that Holm leaves them, and those that are settled say no more than the sign, up to the same level's
    far end: their near end is zero, left out (the least float above it). Once all are settled, each gets Bonferroni's
    interval, cut at zero.
    """
    adjusted = holm([comparison.p for comparison in comparisons])
    settled = [p < 1 - level for p in adjusted]
    among = len(comparisons) - sum(settled) or len(comparisons)
    least = float(np.nextafter(0.0, 1.0))
    found = []
    for comparison, p, sure in zip(comparisons, adjusted, settled, strict=True):
        wide = replace(comparison.at(1 - (1 - level) / among), p=p, level=level)
        if sure:
            near = least if not all(settled) else max(least, wide.low if comparison.centre > 0 else -wide.high)
            if comparison.centre > 0:
                wide = replace(wide, low=min(near, max(comparison.value, least)))
            else:
                wide = replace(wide, high=-min(near, max(-comparison.value, least)))
        found.append(wide)
    return found
