"""Whether a model is better than an answer without looking: one for every image, or its own, dealt out at random."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from raytl.evaluation.intervals import Comparison, paired_metric_interval
from raytl.evaluation.metrics import Metric

_DEALS, _LEAST_DEALS = 60, 4
_CELLS = 10**7
"""Probabilities that are dealt out in all: larger tables fewer times, which the more images they have say as much."""
_NOISE = 3.0
"""Standard errors by which the mean of the deals has to be better than one answer to be taken for better."""


@dataclass(frozen=True)
class Blind:
    """A model held against the best answer without looking.

    comparison: the model less that. answer: the class that it says of every image; None where it is the model's own
    answers, dealt out to the images at random.
    """

    comparison: Comparison
    answer: int | None


def against_blind(
    metric: Metric, said: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None
) -> Blind | None:
    """The model against the commonest class for every image, or where these do better its own answers at random.

    said: (n, k), finite; labels: (n,); groups: (n,) or None, as for ``metric_interval``. That class, and how frequent
    each is, are those of the images at hand: that is more than can be known before, of which a model that learned
    something has no need. By accuracy, balanced accuracy, area under the ROC curve and log loss nothing blind does
    better than that. By macro F1 it is about the worst there is, for all classes but one have none; and of few images
    average precision is higher for whatever puts them in some order than for what has them all alike.

    Where one answer for all has no figure (Matthews' correlation), they are held against the model's own at random.

    None where the comparison tells nothing.
    """
    counts = np.bincount(labels, minlength=said.shape[1])
    alike = np.tile(counts / counts.sum(), (len(labels), 1))
    worth = metric(alike, labels)
    if not math.isfinite(worth):
        return _against_deals(metric, said, labels, groups)
    compared = paired_metric_interval(metric, said, alike, labels, groups)
    if not compared.tells:  # of one class alone a metric of ranking says nothing
        return None
    deals = np.array([metric.oriented(metric(dealt, labels)) for dealt in _dealt(said, labels, groups)])
    better = float(deals.mean()) - metric.oriented(worth)
    if better > _NOISE * float(deals.std(ddof=1)) / math.sqrt(len(deals)) + 1e-9:
        return Blind(compared.less(better), None)
    # Where one answer is worth the same however frequent the classes are, the winner cannot be further from it than its
    # own figure can: by balanced accuracy of two classes, half.
    if np.isclose(worth, metric(alike, labels, 1.0 + (labels == labels.max()))):
        ends = sorted(metric.oriented(end) - metric.oriented(worth) for end in metric.limits)
        compared = replace(compared, limits=(ends[0], ends[1])).at(compared.level)
    return Blind(compared, int(counts.argmax()))


def _against_deals(metric: Metric, said: np.ndarray, labels: np.ndarray, groups: np.ndarray | None) -> Blind | None:
    """The model against the mean of its answers dealt out at random, as sure as against the deal next to that mean."""
    deals = list(_dealt(said, labels, groups))
    worth = np.array([metric.oriented(metric(dealt, labels)) for dealt in deals])
    if not np.isfinite(worth).all():
        return None
    usual = int(np.abs(worth - worth.mean()).argmin())
    compared = paired_metric_interval(metric, said, deals[usual], labels, groups)
    return Blind(compared.less(float(worth.mean() - worth[usual])), None) if compared.tells else None


def _dealt(said: np.ndarray, labels: np.ndarray, groups: np.ndarray | None) -> Iterator[np.ndarray]:
    """The answers dealt out at random, (n, k), several times.

    Images of one group are dealt answers of one group, as far as the groups are as large: ten copies of an image, which
    all get the same answer, are no ten images.
    """
    rng = np.random.default_rng(0)
    codes = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1].reshape(-1)
    together = np.argsort(codes, kind="stable")
    for _ in range(int(np.clip(_CELLS // said.size, _LEAST_DEALS, _DEALS))):
        dealt = np.empty_like(said)
        dealt[together] = said[np.argsort(rng.permutation(int(codes.max()) + 1)[codes], kind="stable")]
        yield dealt
