"""Whether predictions fall on fewer labels than they usually do.

Images that a model cannot tell apart any more mostly get the same few labels, and whoever else is asked is often taken
in by the same thing: that all agree then tells little. How evenly predictions spread tells how often they are right
under many shifts (Deng et al., 2023, arXiv 2302.01094). But other frequencies of the classes narrow them just as well,
and are no reason for errors; so it counts only as far as the images themselves have moved.
"""

from __future__ import annotations

import math

import numpy as np

_PAIRS = 20 * 19
"""As if so many pairs more had been as usual: two predictions that are the same are no sign of anything."""


def alike(chosen: np.ndarray) -> float:
    """Share of pairs of predictions that are the same, in (0, 1]. chosen: (n,) predicted labels, n >= 1.

    No less than of labels that are all as frequent: of a few images of each class it may happen that none are the same.
    """
    same, pairs = _pairs(chosen)
    return max((same + 1) / (pairs + 1), 1 / len(np.unique(chosen)))


def narrowing(chosen: np.ndarray, usual: float) -> float:
    """By what factor predictions (m,) are more often the same than usual, its logarithm; 0 where they are no more so.

    usual: of :func:`alike`. With two of ten labels left it is log 5.
    """
    same, pairs = _pairs(chosen)
    return max(0.0, math.log((same + _PAIRS * usual) / (pairs + _PAIRS) / usual))


def _pairs(chosen: np.ndarray) -> tuple[int, int]:
    """Pairs that are the same, and all pairs."""
    counts = np.bincount(chosen).astype(np.int64)
    n = int(counts.sum())
    return int((counts * (counts - 1)).sum()), n * (n - 1)
