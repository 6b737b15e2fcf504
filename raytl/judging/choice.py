"""TEMP"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raytl.evaluation.intervals import paired_metric_interval


@dataclass(frozen=True)
class Contestant:
    key: str
    probabilities: np.ndarray
    unlabelled: float | None
    cost: float
    frozen: float


@dataclass(frozen=True)
class Choice:
    key: str
    tied: tuple[str, ...]
    standard_error: float
    grounds: str


def choose(contestants, labels, metric, groups=None):
    known = np.all([~np.isnan(c.probabilities[:, 0]) for c in contestants], axis=0)
    y = labels[known]
    g = None if groups is None else groups[known]
    vals = [metric.oriented(metric(c.probabilities[known], y)) for c in contestants]
    b = int(np.argmax(vals))
    tied = []
    for c in contestants:
        cmp = paired_metric_interval(metric, contestants[b].probabilities[known], c.probabilities[known], y, g)
        if cmp.value <= (cmp.standard_error or 0):
            tied.append(c)
    tied = sorted(tied, key=lambda c: (-(c.unlabelled or 0), -c.frozen, c.cost))
    return Choice(tied[0].key, tuple(c.key for c in tied), 0.0, "best within one standard error")


def separates(a, b, labels, metric, groups=None):
    known = ~np.isnan(a[:, 0]) & ~np.isnan(b[:, 0])
    cmp = paired_metric_interval(metric, b[known], a[known], labels[known], None if groups is None else groups[known])
    return cmp.low > 0
