"""Splits: stratified by class, deterministic, and never with one group on two sides.

A group is what :mod:`raytl.tasks.duplicates` and the user's group column keep together. In all functions ``labels`` is
int (n,), ``groups`` int (n,) or None where every image is its own group, and index arrays are sorted int64.
"""

from __future__ import annotations

import math

import numpy as np

Split = tuple[np.ndarray, np.ndarray]

# Beyond this many images one split measures well enough, and more would only cost time.
_SINGLE_SPLIT = 2000
_RARE = 0.1
"""Of the classes, the share of those with the fewest groups that do not say into how many folds all are divided."""


def holdout(labels: np.ndarray, groups: np.ndarray | None, fraction: float, seed: int, *, keep: int = 1) -> Split:
    """(training, held-out) indices with about ``fraction`` of every class held out.

    keep: how many groups of every class stay in training at least (all, where a class has no more than that).

    Where every image is its own group, the held-out count of a class is within 1 of ``fraction`` of its images, and at
    least 1 for a class of more than ``keep``.
    """
    table = _table(labels, groups)
    wanted = np.floor(table.counts.sum(axis=0) * fraction + 0.5)
    wanted = np.where(table.groups_per_class > keep, np.clip(wanted, 1, None), 0)
    held = np.zeros(table.counts.shape[1])
    left = table.groups_per_class.copy()  # groups of each class still in training
    chosen = np.zeros(len(table.counts), dtype=bool)
    for group in table.order(seed):
        row = table.counts[group]
        present = row > 0
        if (left[present] <= keep).any():
            continue
        if ((held + row - wanted)[present] ** 2).sum() < ((held - wanted)[present] ** 2).sum():
            chosen[group] = True
            held += row
            left[present] -= 1
    return _split(chosen[table.group_of])


def folds(labels: np.ndarray, groups: np.ndarray | None, n_folds: int, repeats: int, seed: int) -> list[Split]:
    """Repeated stratified group k-fold: at most ``n_folds * repeats`` pairs of (training, validation) indices.

    Within a repeat every image is validated exactly once, except the groups that a class needs to have a training
    image in every fold (the only group of a class, above all): those are in every training part.
    Where every image is its own group, the folds' counts of a class differ by at most 1. Where fewer groups can be left
    out of a training than there are folds, there are fewer of these: none is without validation images.
    """
    table = _table(labels, groups)
    result = []
    for repeat in range(repeats):
        fold = _assign(table, n_folds, _repeat_seed(seed, repeat))
        result += [_split(fold[table.group_of] == k) for k in range(n_folds) if (fold == k).any()]
    return result


def plan_folds(labels: np.ndarray, groups: np.ndarray | None = None) -> tuple[int, int]:
    """(folds, repeats) that suit the data: many small ones for little data, (5, 1) where the first fold alone will do.

    No more folds than nine classes in ten have groups, of fewer than eleven classes all.
    A class with a single group is in every training part, and nothing is known of how well it is told from others.
    (0, 0) where fewer than two classes have more, or every group has the only images of some class.
    """
    table = _table(labels, groups)
    can_be_held = ~(table.counts[:, table.groups_per_class < 2] > 0).any(axis=1)
    held = (table.counts[can_be_held] > 0).sum(axis=0)  # by class, the groups that may be left out of a training
    several = table.groups_per_class[(table.groups_per_class > 1) & (held > 0)]
    if len(several) < 2:
        return 0, 0
    # One rare class among many is validated in some folds only: to have it in all would halve every training set.
    fewest = int(np.quantile(several, _RARE, method="lower"))
    if len(labels) > _SINGLE_SPLIT:
        return 5, 1
    n_folds = min(fewest, 5)
    if can_be_held.sum() <= n_folds:
        return n_folds, 1  # each group is left out in turn, and would be again
    validations = 10 if len(labels) < 100 else 6 if len(labels) < 500 else n_folds
    return n_folds, math.ceil(validations / n_folds)


class _Table:
    """Groups against classes. counts: float (groups, classes); group_of: int (n,)."""

    def __init__(self, counts: np.ndarray, group_of: np.ndarray) -> None:
        self.counts = counts
        self.group_of = group_of
        self.groups_per_class = (counts > 0).sum(axis=0)

    def order(self, seed: int) -> np.ndarray:
        """All groups, large before small (small ones even out what large ones leave), else shuffled."""
        shuffled = np.random.default_rng(seed).permutation(len(self.counts))
        return shuffled[np.argsort(-self.counts.sum(axis=1)[shuffled], kind="stable")]


def _table(labels: np.ndarray, groups: np.ndarray | None) -> _Table:
    labels = np.asarray(labels, dtype=np.int64)
    own = np.arange(len(labels)) if groups is None else np.asarray(groups)
    # Groups are numbered by their first image, so that a split depends on the grouping and not on the group numbers.
    _, first, inverse = np.unique(own, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    group_of = rank[inverse]
    known, columns = np.unique(labels, return_inverse=True)
    counts = np.zeros((len(first), len(known)))
    np.add.at(counts, (group_of, columns), 1)
    return _Table(counts, group_of)


def _assign(table: _Table, n_folds: int, seed: int) -> np.ndarray:
    """A fold for every group, -1 for those that stay in training."""
    fold = np.full(len(table.counts), -1, dtype=np.int64)
    filled = np.zeros((n_folds, table.counts.shape[1]))
    alone = table.groups_per_class < 2
    for group in table.order(seed):
        row = table.counts[group]
        present = row > 0
        if (alone & present).any():
            continue
        crowding = filled[:, present].sum(axis=1)
        best = np.lexsort((filled.sum(axis=1), crowding))[0]
        fold[group] = best
        filled[best] += row
    # Groups of several classes can crowd all of a class into one fold; one of them then has to stay in training.
    for column in range(table.counts.shape[1]):
        members = np.flatnonzero(table.counts[:, column])
        if len(np.unique(fold[members])) == 1 and fold[members[0]] >= 0:
            fold[members[0]] = -1
    return fold


def _repeat_seed(seed: int, repeat: int) -> int:
    return int(np.random.SeedSequence([seed, repeat]).generate_state(1)[0])


def _split(second: np.ndarray) -> Split:
    return np.flatnonzero(~second), np.flatnonzero(second)


def spread(indices: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the indices, always the same; at random, as the first may all be of one class."""
    if len(indices) <= most:
        return indices
    return np.sort(np.random.default_rng(0).choice(indices, most, replace=False))


def spread_by_class(labels: np.ndarray, most: int, *, least: int = 1, seed: int = 0) -> np.ndarray:
    """At most so many of the items (n,), always the same: every class keeps its share, and ``least`` where it has them.

    Where that is more than there is room for, the first classes have it.
    """
    if len(labels) <= most:
        return np.arange(len(labels))
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    rank = np.empty(len(labels))
    for label in np.unique(labels):
        own = shuffled[labels[shuffled] == label]
        rank[own] = np.arange(len(own)) / len(own)
        rank[own[:least]] = -1.0
    return np.sort(np.argsort(rank, kind="stable")[:most])
