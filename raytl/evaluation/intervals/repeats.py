"""Repeats of cross-validation: several predictions for an item are one item, not several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def average_repeats(indices: Sequence[np.ndarray], probabilities: Sequence[np.ndarray], n: int) -> np.ndarray:
    """Each item's mean probabilities over all the folds that validated it: (n, k), NaN rows for items in none.

    indices: for each fold the items validated in it, in [0, n). probabilities: for each fold (its items, k), of the
    same k. Raises ValueError where there is no fold, or the two do not belong together.
    """
    if not len(indices) or len(indices) != len(probabilities):
        raise ValueError(
            f"{len(indices)} folds of items and {len(probabilities)} of probabilities do not belong together"
        )
    where = np.concatenate([np.asarray(fold, dtype=np.int64) for fold in indices])
    rows = np.concatenate([np.asarray(fold, dtype=np.float64) for fold in probabilities])
    if rows.ndim != 2 or len(where) != len(rows) or ((where < 0) | (where >= n)).any():
        raise ValueError(f"{len(where)} items of {n} and probabilities {rows.shape} do not belong together")
    total, count = np.zeros((n, rows.shape[1])), np.bincount(where, minlength=n)
    np.add.at(total, where, rows)
    return np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], np.nan)
