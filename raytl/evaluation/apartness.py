"""How well a probe tells two sets of images apart, whatever classes they are of."""

from __future__ import annotations

import numpy as np

from raytl.evaluation.probes import fit_logistic

APART, LEAST_TOLD_APART = 0.85, 20
"""How often a probe tells an unlabelled image from a labelled one, from which on they are of two kinds; of so many
images of either. By plain features it was 0.87 to 1.0 on five of fourteen tasks: there heads of a network that learned
from the unlabelled images too were 0.4 to 10 points worse. On the others it was at most 0.8, and they were up to 5
points better, or as much worse as folds showed, but for one of rare faults (0.76, and 14 points worse)."""
_STRENGTHS = (1e-2, 1e-1)
_COMPANIONS = 1.0
"""Further images of its group that an image has on average, beyond which those of another set are taken to have some
too: of fewer, what a probe learns by heart of a group does not tell."""
_COMPARED = 10.0
"""Images of either set: where pairs of one class are of fewer, their classes are left aside."""
_CLUSTERS = 5
"""Into so many are images of unknown groups divided: one for each fold. Of more, those of one patient come to lie in
several (of four patients with 50 images each, ten clusters gave an AUC of 0.95, five 0.54)."""


def are_apart(
    labelled: np.ndarray,
    unlabelled: np.ndarray,
    kinds: tuple[np.ndarray, np.ndarray],
    groups: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
) -> bool:
    """Whether two sets of images are of two kinds (:func:`told_apart`); of few nothing is told.

    labelled, unlabelled: features (n, d) and (m, d); kinds, groups: as of :func:`told_apart`.
    """
    enough = min(len(labelled), len(unlabelled)) >= LEAST_TOLD_APART
    return enough and told_apart(labelled, unlabelled, kinds, groups) >= APART


def told_apart(
    one: np.ndarray,
    other: np.ndarray,
    kinds: tuple[np.ndarray, np.ndarray],
    groups: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
) -> float:
    """How often logistic regression that saw neither tells which of two images is of the other set (AUC), in [0, 1].

    one, other: features (n, d) and (m, d). kinds: (n,) and (m,), the classes that a head names them: only pairs of one
    are asked, so that other frequencies of the classes alone set nothing apart. Where these are of a few images, as of
    one labelled image a class, all pairs are asked instead, and what their classes alone would tell is taken off.
    0.5 where there are no pairs, or the classes tell all.
    groups: (n,) and (m,), equal for images of one patient, in both sets; None where none are known. A group is held out
    whole, else the probe would learn by heart which patients are of which set; pairs within one do not count. Where
    those of one set alone are known, the other's images that look alike are held out together in their place.
    """
    rows, other_set = np.concatenate([one, other]), np.repeat([0, 1], [len(one), len(other)])
    group = _numbered((one, other), kinds, groups)
    probe = fit_logistic(rows, other_set, 2, strengths=_STRENGTHS, class_balanced=True, groups=group)
    said = probe.out_of_fold[:, 1]
    mine, theirs = (np.flatnonzero((other_set == which) & np.isfinite(said)) for which in (0, 1))
    kind = np.concatenate(kinds)
    strangers = group[theirs][:, None] != group[mine][None]
    alike = strangers & (kind[theirs][:, None] == kind[mine][None])
    gap = said[theirs][:, None] - said[mine][None]
    if min(_independent(alike.sum(axis=axis)) for axis in (0, 1)) >= _COMPARED:
        return _ordered(gap, alike)
    left = 1 - _ordered(_by_class(kind[theirs], kind[mine]), strangers)
    return 1 - 0.5 * min(1.0, (1 - _ordered(gap, strangers)) / left) if left > 0 else 0.5


def _ordered(gap: np.ndarray, asked: np.ndarray) -> float:
    """In which share of the pairs asked, (m, n), the gap is above zero, half of those that have none; 0.5 of none."""
    some = gap[asked]
    return float((some > 0).mean() + 0.5 * (some == 0).mean()) if some.size else 0.5


def _by_class(theirs: np.ndarray, mine: np.ndarray) -> np.ndarray:
    """What the classes (m,) and (n,) and nothing else say of each pair, (m, n): which is the more frequent there."""
    named, number = np.unique(np.concatenate([theirs, mine]), return_inverse=True)
    sides = number[: len(theirs)], number[len(theirs) :]
    there, here = (np.bincount(side, minlength=len(named)) / max(1, len(side)) for side in sides)
    share = there / (there + here)
    return np.asarray(share[sides[0]][:, None] - share[sides[1]][None])


def _independent(weights: np.ndarray) -> float:
    """How many images of equal weight would say as much (Kish, 1965)."""
    squares = float((weights.astype(np.float64) ** 2).sum())
    return float(weights.sum()) ** 2 / squares if squares else 0.0


def _numbered(
    features: tuple[np.ndarray, np.ndarray],
    kinds: tuple[np.ndarray, np.ndarray],
    groups: tuple[np.ndarray | None, np.ndarray | None],
) -> np.ndarray:
    """Groups (n + m,) of both sets, numbered together."""
    names = np.unique(np.concatenate([own for own in groups if own is not None] or [np.empty(0)]))
    numbered, first = [], len(names)  # numbers from here on are nobody's
    for which, own in enumerate(groups):
        beside = groups[1 - which]
        if own is not None:
            numbered.append(np.searchsorted(names, own))
        elif beside is not None and _companions(beside) > _COMPANIONS:
            numbered.append(first + _clusters(features[which], kinds[which]))
        else:
            numbered.append(first + np.arange(len(features[which])))
        first = max(first, int(numbered[-1].max(initial=-1)) + 1)
    return np.concatenate(numbered)


def _companions(groups: np.ndarray) -> float:
    """How many further images of its group an image has, on average."""
    counts = np.unique(groups, return_counts=True)[1]
    return float((counts * (counts - 1.0)).sum() / counts.sum())


def _clusters(features: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """Numbers (n,) of images that look alike, whatever they show: a class is in no cluster of its own."""
    from scipy.cluster.hierarchy import fcluster, linkage  # a second of import, which few searches come to need

    if len(features) <= _CLUSTERS:
        return np.arange(len(features))
    apart = np.array(features, dtype=np.float64)
    for value in np.unique(kind):
        apart[kind == value] -= apart[kind == value].mean(axis=0)
    spread = apart.std(axis=0)
    apart = apart[:, spread > 0] / spread[spread > 0]
    if not apart.shape[1]:  # all alike
        return np.zeros(len(features), dtype=np.int64)
    return np.asarray(fcluster(linkage(apart, "ward"), _CLUSTERS, "maxclust"), dtype=np.int64)
