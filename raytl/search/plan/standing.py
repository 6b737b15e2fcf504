"""How the strategies stand by their trials: who leads, who is worth confirming, who wins."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from raytl.search.records import TrialRecord, TrialStatus


def ranking(records: Sequence[TrialRecord]) -> list[str]:
    """Strategy keys, best first: by the mean score over the folds that all confirmed strategies were tried on.

    One fold of a few dozen images flatters whoever was lucky there, so a strategy that was confirmed on further folds
    always stands before one that was not. Folds differ in difficulty, so only common ones are compared.
    """
    folds = _scores(records)
    confirmed = [set(scores) for scores in folds.values() if len(scores) > 1]
    common = set.intersection(*confirmed) if confirmed else set()

    def standing(key: str) -> tuple[bool, float]:
        scores = folds[key]
        compared = common if len(scores) > 1 and common else set(scores)
        return (len(scores) > 1, float(np.mean([scores[fold] for fold in compared])))

    return sorted(folds, key=standing, reverse=True)


def leaders(records: Sequence[TrialRecord], count: int) -> list[str]:
    """The ``count`` best strategies of the first fold, best first.

    Of the first fold alone, on which all were tried: a late one gets its chance, whoever was confirmed before it.
    """
    first = {key: scores[0] for key, scores in _scores(records).items() if 0 in scores}
    return sorted(first, key=first.__getitem__, reverse=True)[:count]


def completed(records: Sequence[TrialRecord], key: str) -> list[TrialRecord]:
    """The completed trials of a strategy, one per fold: a baseline may have been found by the search as well."""
    found = {
        record.fold: record
        for record in records
        if record.strategy_key == key and record.status == TrialStatus.COMPLETED
    }
    return [found[fold] for fold in sorted(found)]


def _scores(records: Sequence[TrialRecord]) -> dict[str, dict[int, float]]:
    """Scores of the completed trials by strategy and fold."""
    folds: dict[str, dict[int, float]] = defaultdict(dict)
    for record in records:
        if record.status == TrialStatus.COMPLETED and record.score is not None:
            folds[record.strategy_key][record.fold] = record.score
    return folds
