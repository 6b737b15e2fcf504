"""Intervals: how sure a figure on few examples can be."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, stdtrit

from raytl.evaluation.intervals.binomial import share_interval

_FEW = 64
"""With at most this many distinct values, resamples are drawn as counts of the values: the same law, far cheaper."""


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """Plain values."""
        return {"value": self.value, "low": self.low, "high": self.high}


def bootstrap_interval(values: np.ndarray, *, seed: int = 0, resamples: int = 2000) -> Interval:
    """The mean of per-example values in [0, 1] with its 95 % interval, itself within [0, 1].

    values: (n,), n >= 1. Where all are 0 or 1 (right or wrong) it is that of a share (:func:`share_interval`), because
    a bootstrap of ten right answers out of ten says [1, 1], which nobody can know. Otherwise the bootstrap percentile
    interval, widened for small n (Hesterberg, 2015, section 5.3). One value alone says nothing: [0, 1].
    Raises ValueError for values outside [0, 1] or none.
    """
    values = _checked(values)
    if np.isin(values, (0.0, 1.0)).all():
        return Interval(float(values.mean()), *share_interval(float(values.mean()), len(values)))
    return _bootstrap(values, float(values.mean()), (0.0, 1.0), seed, resamples)


def paired_interval(a: np.ndarray, b: np.ndarray, *, seed: int = 0, resamples: int = 2000) -> Interval:
    """Mean of a - b over the same examples with its 95 % paired bootstrap interval, within [-1, 1].

    a, b: (n,), values in [0, 1] of two models on the same examples in the same order (right or wrong, as 1 or 0).
    Right-or-wrong differences get two more pairs, one each way (Bonett & Price, 2012): without them, two models that
    never differ on a handful of images would be equal beyond doubt.
    Raises ValueError where the lengths differ, or for values outside [0, 1] or none.
    """
    a, b = _checked(a), _checked(b)
    if len(a) != len(b):
        raise ValueError(f"paired values must be as many: {len(a)} and {len(b)}")
    gaps = a - b
    mean = float(gaps.mean())
    if np.isin(gaps, (-1.0, 0.0, 1.0)).all():
        gaps = np.concatenate([gaps, [-1.0, 1.0]])
    return _bootstrap(gaps, mean, (-1.0, 1.0), seed, resamples)


def _checked(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not ((values >= 0) & (values <= 1)).all():
        raise ValueError("an interval needs one or more values, each in [0, 1]")
    return values


def _bootstrap(values: np.ndarray, mean: float, limits: tuple[float, float], seed: int, resamples: int) -> Interval:
    n = len(values)
    if n < 2:
        return Interval(mean, *limits)
    # The bootstrap's spread is too small by sqrt((n-1)/n) and by normal against t quantiles: ask for further tails.
    tail = float(ndtr(math.sqrt(n / (n - 1)) * stdtrit(n - 1, 0.025)))
    low, high = np.quantile(_resampled_means(values, seed, resamples), (tail, 1 - tail))
    return Interval(mean, max(limits[0], min(float(low), mean)), min(limits[1], max(float(high), mean)))


def _resampled_means(values: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    n = len(values)
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) <= _FEW:
        drawn = rng.multinomial(n, counts / n, size=resamples)
        return np.asarray(drawn @ distinct / n)
    return np.array([values[rng.integers(0, n, n)].mean() for _ in range(resamples)])
