"""One class against the rest by its probability: the counts that auroc and average precision are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


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


def compared_classes(labels: np.ndarray, k: int) -> list[int]:
    """The classes to hold against the rest: those that occur; in a task of two classes the second stands for both."""
    return [1] if k == 2 else [int(label) for label in np.unique(labels)]
