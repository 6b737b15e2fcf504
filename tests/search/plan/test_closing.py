"""What is tried on which folds once there is little left to propose."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import FixedRecipes
from virtual import BASELINES

from raytl.evaluation import metrics
from raytl.search.jobs import LaneJob, Survey
from raytl.search.plan.closing import Closing
from raytl.search.plan.contest import Contest
from raytl.search.plan.probing import Probing
from raytl.search.plan.refits import Refits
from raytl.search.plan.said import Labels
from raytl.search.plan.settings import PlanSettings
from raytl.search.plan.time_budget import TimeBudget
from raytl.search.records import TrialRecord, TrialStatus
from raytl.training import Strategy

FOLDS, EACH = 5, 10
TRUTH = np.tile([0, 1], FOLDS * EACH // 2)
BY_FOLD = [np.arange(fold * EACH, (fold + 1) * EACH) for fold in range(FOLDS)]
A, B, C = (Strategy("scratch:cnn-small", head_lr=rate) for rate in (0.1, 0.2, 0.3))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(0, 0.5), min_size=2, max_size=4),
    st.lists(st.floats(0, 0.5), min_size=3, max_size=3),
    st.data(),
)
def test_a_fold_that_is_easier_flatters_nobody(own: list[float], folds: list[float], drawn: st.DataObject) -> None:
    """Whoever was tried on which folds, the first of them all: scores that are sums of two parts give the one back."""
    records: list[TrialRecord] = []
    for number, mine in enumerate(own):
        tried = [0, *drawn.draw(st.lists(st.sampled_from([1, 2]), unique=True))]
        for fold in tried:
            record = TrialRecord(len(records), "probe", A.to_dict(), f"{number}", fold)
            record.status, record.score = TrialStatus.COMPLETED, mine + folds[fold]
            records.append(record)
    evened = Contest(records, None).evened_scores()
    for number, mine in enumerate(own):
        assert evened[f"{number}"] - evened["0"] == pytest.approx(mine - own[0], abs=1e-6)


@pytest.mark.parametrize(("refits", "compared"), [(1, True), (2, False)])
def test_what_is_shipped_is_kept_its_time_before_anything_is_compared(
    tmp_path: Path, refits: int, compared: bool
) -> None:
    """With 50 s left the control's 30 s fit, unless the model is to be trained on all labels after that, in 30 s."""
    record = TrialRecord(0, "search", A.to_dict(), A.key)
    record.status, record.score, record.seconds = TrialStatus.COMPLETED, 0.9, 30.0
    contest = Contest([record], None)
    time = TimeBudget(100.0, lambda: 50.0, 0.0, [record], lanes=1, tested=True, folds=0, refits=refits)
    done = Refits(tmp_path)
    closing = Closing(
        PlanSettings(3, 0, 1, 2, tmp_path, 100.0, tested=True), contest, done, time, Probing(contest, [], 0, count()),
        FixedRecipes(BASELINES), count(), lambda strategy: 30.0,
    )  # fmt: skip
    closing.baselines = {"scratch": B}
    first = closing.next_refit((), Survey())
    assert isinstance(first, LaneJob) and Strategy.from_dict(first.strategy).key == A.key
    done.end(first, None)
    second = closing.next_refit((), Survey())
    assert isinstance(second, LaneJob) is compared


def test_who_hardly_can_win_is_tried_on_further_folds_once_the_others_were(tmp_path: Path) -> None:
    """On the first fold B is as good as any; on the second three of ten worse, which may be chance, and is not likely.

    With the time that is left after A and C have been tried on all folds, B is as well.
    """
    right = {A.key: [8] * FOLDS, B.key: [8, 5, 8, 8, 8], C.key: [8, 7, 8, 8, 8]}
    records: list[TrialRecord] = []
    contest = Contest(records, Labels(TRUTH, None, 2, metrics.get("accuracy")))
    plan = PlanSettings(3, FOLDS, 1, 2, tmp_path)
    time = TimeBudget(None, lambda: 0.0, 0.0, records, lanes=1, tested=False, folds=FOLDS)
    probing = Probing(contest, [], FOLDS, count())
    closing = Closing(
        plan, contest, Refits(tmp_path), time, probing, FixedRecipes(BASELINES), count(), lambda strategy: 1.0
    )

    def tried(strategy: Strategy, fold: int) -> None:
        index = BY_FOLD[fold]
        said = np.where(np.arange(EACH) < right[strategy.key][fold], TRUTH[index], 1 - TRUTH[index])
        record = TrialRecord(len(records), "search", strategy.to_dict(), strategy.key, fold)
        record.status, record.score, record.seconds = TrialStatus.COMPLETED, right[strategy.key][fold] / EACH, 1.0
        record.metrics = {"labelled": record.score}
        record.validated, record.predicted = index.tolist(), 0.1 + 0.8 * np.eye(2)[said]
        records.append(record)

    for strategy in (A, B, C):
        tried(strategy, 0)
    order = []
    while (job := closing.next_confirm()) is not None:
        strategy, fold = Strategy.from_dict(job.strategy), job.fold
        assert fold is not None
        order.append(("ABC"[[A, B, C].index(strategy)], fold))
        tried(strategy, fold)
    assert order[:3] == [("A", 1), ("B", 1), ("C", 1)]
    others = [(name, fold) for fold in (2, 3, 4) for name in "AC"]
    assert order[3:] == [*others, ("B", 2), ("B", 3), ("B", 4)]
