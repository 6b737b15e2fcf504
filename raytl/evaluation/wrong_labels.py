"""Which labels are likely wrong: where two judges that did not see an image's label both say another, and firmly.

The judges are logistic regression out of fold and the nearest neighbours, both on features of a frozen network. One
alone is often wrong on hard images; a label that neither would give, and that its own class hardly knows, is worth a
look. Measured on load_digits: of 300, 600 and 1,797 images with right labels none is named, and of labels changed at
random half. Of 5,400 from overlapping normal distributions 2 are.

It fails where most labels of a class are wrong in the same way, and finds little where the features are poor: then the
probe is unsure, and nothing is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raytl.evaluation.probes import fit_logistic

MIN_PER_CLASS = 8
"""Images of a class from which on it can be doubted, and from which on it can be suspected instead."""

_NEIGHBOURS = 5
_AGREEING = 4  # of the neighbours with one other label
_ODDS = 100.0  # of the other label to the given one, out of fold
_SKILL = 2.0  # how many times as many mistakes naming the most frequent class has to make


@dataclass(frozen=True)
class Suspect:
    """A label that is likely wrong.

    index: of the item. label: the class that fits better. probability: of it, out of fold; given: of the label it has.
    """

    index: int
    label: int
    probability: float
    given: float


def suspects(features: np.ndarray, labels: np.ndarray, classes: int, groups: np.ndarray | None = None) -> list[Suspect]:
    """The labels that are likely wrong, the surest first.

    features: (n, d) of a frozen network; labels: (n,) in [0, classes); groups: (n,), items of one group (copies, one
    patient) do not vouch for each other. Empty where the features do not tell the classes apart.
    """
    counts = np.bincount(labels, minlength=classes)
    if (counts >= MIN_PER_CLASS).sum() < 2:
        return []
    probe = fit_logistic(features, labels, classes, groups=groups, class_balanced=True)
    told = probe.out_of_fold
    known = ~np.isnan(told[:, 0])
    if not known.any() or not _skilled(told[known], labels[known], counts):
        return []
    other = told.copy()
    other[np.arange(len(labels)), labels] = -1.0
    best = np.where(known, np.nan_to_num(other, nan=-1.0).argmax(axis=1), labels)
    rows = np.arange(len(labels))
    sure, given = told[rows, best], told[rows, labels]
    # A label is as credible as its class's images usually are: the threshold of confident learning
    # (Northcutt, Jiang, Chuang, JAIR 2021).
    of_class = [told[known & (labels == c), c] for c in range(classes)]
    usual = np.array([own.mean() if len(own) else np.inf for own in of_class])
    doubted = known & (counts[labels] >= MIN_PER_CLASS) & (counts[best] >= MIN_PER_CLASS)
    doubted &= (sure >= usual[best]) & (sure >= _ODDS * given)
    doubted[doubted] &= _neighbours_say(features, labels, groups, np.flatnonzero(doubted), best)
    order = sorted(np.flatnonzero(doubted), key=lambda i: (given[i] / sure[i], i))
    return [Suspect(int(i), int(best[i]), float(sure[i]), float(given[i])) for i in order]


def doubted_by_all(judges: Sequence[np.ndarray], labels: np.ndarray, classes: int) -> list[int]:
    """The labels that several judges firmly doubt in the same way, by their predictions alone.

    judges: each (n, classes), out of fold, rows of NaN where an item was not asked; those that do not tell the classes
    apart are no judges. Empty for fewer than two.
    """
    counts = np.bincount(labels, minlength=classes)
    rows, agreed, heard = np.arange(len(labels)), np.full(len(labels), -1), 0
    for told in judges:
        known = ~np.isnan(told[:, 0])
        if not known.any() or not _skilled(told[known], labels[known], counts):
            continue
        best = np.nan_to_num(told, nan=-1.0).argmax(axis=1)
        of_class = [told[known & (labels == c), c] for c in range(classes)]
        usual = np.array([own.mean() if len(own) else np.inf for own in of_class])
        sure, given = told[rows, best], told[rows, labels]
        firm = known & (best != labels) & (counts[labels] >= MIN_PER_CLASS) & (counts[best] >= MIN_PER_CLASS)
        firm &= (sure >= usual[best]) & (sure >= _ODDS * given)
        agreed = np.where(firm & ((agreed == best) | (heard == 0)), best, -1)
        heard += 1
    return [] if heard < 2 else np.flatnonzero(agreed >= 0).tolist()


def _skilled(told: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> bool:
    """Whether the probe leaves at most half of the mistakes that naming the most frequent class makes."""
    wrong = float((told.argmax(axis=1) != labels).mean())
    return _SKILL * wrong <= 1.0 - float(counts.max() / counts.sum())


def _neighbours_say(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray | None, rows: np.ndarray, best: np.ndarray
) -> np.ndarray:
    """Whether the nearest items of other groups have the other label, bool (rows,)."""
    if not len(rows):
        return np.zeros(0, dtype=bool)
    spread = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    scaled = scaled / np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-12)
    alike = scaled[rows] @ scaled.T
    alike[np.arange(len(rows)), rows] = -np.inf
    if groups is not None:
        alike[groups[rows][:, None] == groups[None, :]] = -np.inf
    nearest = np.argsort(-alike, axis=1, kind="stable")[:, :_NEIGHBOURS]
    around = labels[nearest]
    say_other = (around == best[rows][:, None]).sum(axis=1) >= _AGREEING
    return np.asarray(say_other & (around != labels[rows][:, None]).all(axis=1))
