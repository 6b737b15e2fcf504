"""Items that come in groups (images of one patient, duplicates) say less than as many separate ones: how much less."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_ROUNDS = 3
_UNSEEN = 0.3
"""Correlation within groups supposed for variance that the sample does not show: where nothing is wrong, nothing can
be seen to go wrong together."""
_LEAST_DF = 4.0
"""The variance lies between those of no and of full correlation, so its error has not the tails that fewer degrees of
freedom would give it; with two groups of 50 this covers 91 to 99 times in 100, and two degrees always."""
_SUPPOSED = 0.2
"""Correlation within groups that one group more is supposed to have shown. Two or three groups that happen to do alike
show none at all: of two groups of 40 whose accuracies differ as those of people, cameras or sites may, the interval
covered 71 to 99 times in 100, and with this 90 to 100. Many groups outvote it."""
_TINY = 1e-300


@dataclass(frozen=True)
class Dependence:
    """How the items of a group go together.

    inflation: the variance over that of as many independent items (the design effect), >= 1.
    df: degrees of freedom with which it is known; infinite where every item is its own group.
    """

    inflation: float = 1.0
    df: float = math.inf


def dependence(
    influence: np.ndarray, expected: np.ndarray, labels: np.ndarray, groups: np.ndarray | None
) -> Dependence:
    """The design effect from the items' influences on a figure.

    influence: (n,). expected: (n,), the expected square of each. labels: (n,), the classes whose own means the
    influences are taken from. groups: (n,), equal for the items of one group; None: each item is its own.

    One correlation within groups, by moments: a group's summed influence has the expected square A + rho (B - A), with
    A the sum of the expected squares and B the squared sum of their roots. Groups count by how well each tells rho, so
    that a huge one does not decide alone; the degrees of freedom are Satterthwaite's for the variance that results. One
    group of a usual correlation is supposed besides, as a few show too little of how they differ.
    The plain sum of squared group sums (Liang & Zeger, 1986) is too small, and its degrees of freedom too many, where
    groups are few or unequal (Bell & McCaffrey, 2002), and it cannot say anything of a class that one group has alone.
    """
    if groups is None:
        return Dependence()
    codes = np.unique(groups, return_inverse=True)[1].reshape(-1)
    count = int(codes.max()) + 1
    if count == len(codes) or not expected.any():
        return Dependence()

    def per_group(values: np.ndarray) -> np.ndarray:
        return np.bincount(codes, values, count)

    alone = per_group(expected)
    shared = np.maximum(0.0, per_group(np.sqrt(expected)) ** 2 - alone)
    # Of a group in which one item varies, as of two classes but one counts, the last bits would make it a telling one.
    shared[per_group(expected > 0) <= 1] = 0.0
    if count == 1 or not shared.any():
        return Dependence(1 + float(shared.sum() / alone.sum()), _LEAST_DF)
    unseen = max(0.0, 1 - float((influence**2).sum() / alone.sum()))
    excess = per_group(influence) ** 2 / (1 - _leverage(expected, labels, codes, count)) - per_group(influence**2)
    excess = excess + _UNSEEN * unseen * shared
    rho, trust, telling = 0.1, shared, int((shared > 0).sum())
    for _ in range(_ROUNDS):
        trust = np.divide(shared, (alone + rho * shared) ** 2, out=np.zeros(count), where=shared > 0)
        found = float(trust @ excess / (trust @ shared))
        rho = min(1.0, max(0.0, (telling * found + _SUPPOSED) / (telling + 1)))
    spread = alone + rho * shared
    noise = 2 * float(trust**2 @ (spread**2 - per_group(expected**2))) / float(trust @ shared) ** 2
    df = 2 * float(spread.sum()) ** 2 / (float(shared.sum()) ** 2 * noise) - 1 if noise > 0 else math.inf
    return Dependence(float(spread.sum() / alone.sum()), max(_LEAST_DF, df))


def _leverage(expected: np.ndarray, labels: np.ndarray, codes: np.ndarray, count: int) -> np.ndarray:
    """Share of each group in the class means that its own influences are taken from, at most 0.9; (groups,)."""
    k = int(labels.max()) + 1
    table = np.bincount(codes * k + labels, minlength=count * k).reshape(count, k).astype(np.float64)
    size = np.maximum(table.sum(axis=0), 1)
    weight = table * (np.bincount(labels, expected, k) / size)
    share = (weight * (table / size)).sum(axis=1) / np.maximum(weight.sum(axis=1), _TINY)
    return np.asarray(np.minimum(share, 0.9))
