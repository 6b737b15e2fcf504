"""One class against the rest by its probability: the counts that auroc and average precision are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from raytl.evaluation.metrics.base import ratio


@dataclass(frozen=True)
class Ranking:
    """Items from the most to the least probable, equal probabilities taken together as one place.

    place: (n,), the place of each item, from 0 on. positive: (n,), whether the item is of the class.
    """

    place: np.ndarray
    positive: np.ndarray
    order: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, score: np.ndarray, positive: np.ndarray) -> Ranking:
        """score, positive: (n,)."""
        order = np.argsort(-score, kind="stable")
        ranked = score[order]
        new = np.concatenate([[True], ranked[1:] != ranked[:-1]])
        place = np.empty(len(score), dtype=np.int64)
        place[order] = np.cumsum(new) - 1
        return cls(place, positive, order, np.flatnonzero(new))

    def counts(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weight of the class and of the rest at each place: weights (b, n) -> two of (b, places)."""
        weights = weights[:, self.order]
        mine = weights * self.positive[self.order]
        return np.add.reduceat(mine, self.starts, axis=1), np.add.reduceat(weights - mine, self.starts, axis=1)

    def areas(self, items: np.ndarray) -> np.ndarray:
        """How often an item of the class comes before another, ties by half; under each of b weightings: (b,).

        items: the weights, (n, b): in memory an item's are together, for they are added up. NaN where the class or the
        rest has no weight.
        """
        before, upto = self._reached(items)
        mine, total = items[self._mine], items.sum(axis=0)
        own = mine.sum(axis=0)
        # Of all that comes behind, and half of the ties; pairs of the class's own are half of its squared weight.
        beaten = (mine * (total - (upto + before) / 2)).sum(axis=0) - own**2 / 2
        return ratio(beaten, own * (total - own))

    def precisions(self, items: np.ndarray) -> np.ndarray:
        """The mean precision at the places of the class's items, (b,); NaN where these have no weight."""
        _, upto = self._reached(items)
        mine = items[self._mine]
        places = self.place[self._mine]
        found = np.cumsum(mine, axis=0)[np.searchsorted(places, places, side="right") - 1]
        return ratio((mine * np.nan_to_num(ratio(found, upto))).sum(axis=0), mine.sum(axis=0))

    def own_part(self, groups: np.ndarray | None = None) -> float:
        """What of the mean precision is owed to each item of the class being found at its own place.

        Where the precision is reckoned from the other ones alone, as for an item that is not among them, it is lower by
        so much: 0 for a class that is all before the rest. groups: (n,), an item's is left out with it. One item of the
        class at least.
        """
        n, mine = len(self.order), self._mine
        places, total = self.place[mine], len(mine)
        found = np.searchsorted(places, places, side="right")
        taken = np.append(self.starts[1:], n)[places]
        kin = np.arange(total) if groups is None else np.unique(groups[mine], return_inverse=True)[1].reshape(-1)
        keys = kin * (n + 1) + places
        upto = np.searchsorted(np.sort(keys), keys, side="right") - np.searchsorted(np.sort(kin), kin)
        others = (found - upto) * total / np.maximum(total - np.bincount(kin)[kin], 1)
        reached = others + taken - found
        without = np.divide(others, reached, out=np.ones(total), where=reached > 0)
        return float((found / taken - without).mean())

    @property
    def _mine(self) -> np.ndarray:
        """The class's items from the most to the least probable."""
        return np.asarray(self.order[self.positive[self.order]])

    def _reached(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weight of all that comes before the place of each of the class's items, and of that place too: (own, b) each.

        What lies between two of these places is added up at once: a class has few items, and what is behind its last
        one is not looked at.
        """
        places, which = np.unique(self.place[self._mine], return_inverse=True)
        ends = np.append(self.starts[1:], len(self.order))
        bounds = np.concatenate([[0], np.stack([self.starts[places], ends[places]], axis=1).reshape(-1)])
        rows = csr_array(
            (np.ones(bounds[-1]), self.order[: bounds[-1]], bounds), shape=(len(bounds) - 1, len(self.order))
        )
        upto = np.cumsum(rows @ items, axis=0)
        return upto[0::2][which], upto[1::2][which]


def compared_classes(labels: np.ndarray, k: int) -> list[int]:
    """The classes to hold against the rest: those that occur; in a task of two classes the second stands for both."""
    return [1] if k == 2 else [int(label) for label in np.unique(labels)]
