"""What is tried on which folds once there is little left to propose."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import numpy as np
from virtual import BASELINES

from raytl.evaluation import metrics
from raytl.search.plan.closing import Closing
from raytl.search.plan.contest import Contest, Labels
from raytl.search.plan.probing import Probing
from raytl.search.plan.refits import Refits
from raytl.search.plan.settings import PlanSettings
from raytl.search.plan.simulation import FixedRecipes
from raytl.search.plan.time_budget import TimeBudget
from raytl.search.records import TrialRecord, TrialStatus
from raytl.training import Strategy

FOLDS, EACH = 5, 10
TRUTH = np.tile([0, 1], FOLDS * EACH // 2)
BY_FOLD = [np.arange(fold * EACH, (fold + 1) * EACH) for fold in range(FOLDS)]
A, B, C = (Strategy("scratch:cnn-small", head_lr=rate) for rate in (0.1, 0.2, 0.3))


def test_who_hardly_can_win_is_tried_on_further_folds_once_the_others_were(tmp_path: Path) -> None:
    """On the first fold B is as good as any; on the second three of ten worse, which may be chance, and is not likely.

    With the time that is left after A and C have been tried on all folds, B is as well.
    """
    right = {A.key: [8] * FOLDS, B.key: [8, 5, 8, 8, 8], C.key: [8, 7, 8, 8, 8]}
    records: list[TrialRecord] = []
    contest = Contest(records, Labels(TRUTH, None, 2, metrics.get("accuracy")))
    settings = PlanSettings(3, FOLDS, 1, 2, tmp_path)
    time = TimeBudget(None, lambda: 0.0, 0.0, lanes=1, tested=False, folds=FOLDS)
    probing = Probing(contest, [], FOLDS)
    closing = Closing(
        settings, contest, Refits(tmp_path), time, probing, FixedRecipes(BASELINES), count(), lambda strategy: 1.0
    )

    def tried(strategy: Strategy, fold: int) -> None:
        index = BY_FOLD[fold]
        said = np.where(np.arange(EACH) < right[strategy.key][fold], TRUTH[index], 1 - TRUTH[index])
        record = TrialRecord(len(records), "search", strategy.to_dict(), strategy.key, fold)
        record.status, record.score, record.seconds = TrialStatus.COMPLETED, right[strategy.key][fold] / EACH, 1.0
        record.metrics = {"labelled": record.score}
        record.validated, record.predicted = index.tolist(), (0.1 + 0.8 * np.eye(2)[said]).tolist()
        records.append(record)

    for strategy in (A, B, C):
        tried(strategy, 0)
    given = []
    while (job := closing.next_confirm()) is not None:
        strategy, fold = Strategy.from_dict(job.strategy), job.fold
        assert fold is not None
        given.append(("ABC"[[A, B, C].index(strategy)], fold))
        tried(strategy, fold)
    assert given[:3] == [("A", 1), ("B", 1), ("C", 1)]
    others = [(name, fold) for fold in (2, 3, 4) for name in "AC"]
    assert given[3:] == [*others, ("B", 2), ("B", 3), ("B", 4)]
