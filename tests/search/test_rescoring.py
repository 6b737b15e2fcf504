"""Trials of an earlier version, whose scores are on another scale."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import MODEL, STAGES, data, workspace

from raytl.evaluation.selection import LOG_LOSS_CAP
from raytl.search.jobs import JobKind, LaneJob
from raytl.search.lanes.work import do_job
from raytl.search.plan.ledger import rounded
from raytl.search.records import TrialRecord, TrialStatus
from raytl.search.rescoring import rescore
from raytl.training import Strategy
from raytl.training.workspace import Workspace

HEAD, TRAINED = Strategy(MODEL, cut=STAGES, head="logistic"), Strategy(MODEL, head_lr=0.02)
METRICS = ["accuracy", "balanced-accuracy", "log-loss", "auroc"]


def tried(space: Workspace) -> list[TrialRecord]:
    """A head, and a training that is stopped in its second epoch, as a search keeps them."""
    records = []
    for number, strategy in enumerate((HEAD, TRAINED)):
        told: list[dict[str, float]] = []
        job = LaneJob(number, JobKind.SEARCH, strategy.to_dict(), 1)
        result = do_job(space, job, lambda message, told=told: told.append(message["report"].metrics))
        record = TrialRecord(number, "search", strategy.to_dict(), strategy.key, fold=1, history=told)
        record.metrics, record.score = dict(told[-1]), told[-1]["score"]
        record.status = TrialStatus.PRUNED
        if not number:
            assert result.validation_index is not None and result.validation_probabilities is not None
            record.status, record.validated = TrialStatus.COMPLETED, result.validation_index.tolist()
            record.predicted = rounded(result.validation_probabilities)
        records.append(record)
    return records


def as_before(record: TrialRecord, loss_share: float = 0.1, pseudo: int = 20, images: int = 9) -> None:
    """A tenth of the loss, and evidence without labels for so many labelled images."""
    for told in [*record.history, record.metrics]:
        told["labelled"] = told["target-accuracy"] + loss_share * max(told["target-log-loss"], -LOG_LOSS_CAP)
        told["score"] = (images * told["labelled"] + pseudo * told["unlabelled"]) / (images + pseudo)
    record.score = record.metrics["score"]


def scored(record: TrialRecord) -> list[Any]:
    looks = [record.metrics, *record.history]
    return [record.score, *(look[name] for look in looks for name in ("score", "labelled"))]


@pytest.mark.parametrize("metric", METRICS)
def test_trials_of_this_version_are_as_they_were(tmp_path: Path, metric: str) -> None:
    space = workspace(tmp_path, data(), metric=metric)
    records = tried(space)
    before = copy.deepcopy(records)
    rescore(records, space)
    assert [record.history for record in records] == [record.history for record in before]
    assert [scored(record) for record in records] == [scored(record) for record in before]


def test_those_of_an_earlier_one_compare_with_those_of_this_one(tmp_path: Path) -> None:
    space = workspace(tmp_path, data())
    now, old = tried(space), tried(space)
    for record in old:
        as_before(record)
    assert [scored(record) for record in old] != [scored(record) for record in now]
    rescore(old, space)
    for record, expected in zip(old, now, strict=True):
        assert scored(record) == pytest.approx(scored(expected), abs=1e-12)


def test_where_classes_count_alike_so_does_the_loss_as_far_as_it_is_known(tmp_path: Path) -> None:
    """Those that came after are left alone: of a trial that was stopped the loss cannot be had again."""
    space = workspace(tmp_path, data(), metric="balanced-accuracy")
    now, old = tried(space), [*tried(space), *tried(space)]
    for number, record in enumerate(old):
        record.number = number
    for record in old[:2]:
        as_before(record)
    later = copy.deepcopy(old[2:])
    rescore(old, space)
    assert scored(old[0]) == pytest.approx(scored(now[0]), abs=1e-4)
    assert scored(old[1]) == pytest.approx(scored(now[1]), abs=0.05)
    assert [scored(record) for record in old[2:]] == [scored(record) for record in later]


def test_what_failed_or_told_less_is_as_it_was(tmp_path: Path) -> None:
    space = workspace(tmp_path, data())
    records = tried(space)
    as_before(records[1])
    for told in [*records[0].history, records[0].metrics]:
        del told["target-metric"]
    failed = TrialRecord(2, "search", HEAD.to_dict(), HEAD.key, status=TrialStatus.FAILED, reason="no memory")
    records = [failed, *records]
    before = copy.deepcopy(records)
    rescore(records, space)
    assert failed.score is None and failed.metrics == {} and np.array_equal(failed.predicted, before[0].predicted)
    assert scored(records[1]) == scored(before[1]) and scored(records[2]) != scored(before[2])
    unlabelled = workspace(tmp_path / "u", data(target=None), folds=(0, 0))
    rescore(before, unlabelled)
    assert scored(before[2]) != scored(records[2])
