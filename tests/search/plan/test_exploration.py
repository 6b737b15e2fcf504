"""What is proposed while the time budget has room, and again once it is known to have."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from tiny import MODEL, data

from raytl.search.jobs import Survey
from raytl.search.plan.exploration import DEAR, PROPOSED, Exploration
from raytl.search.plan.halving import SuccessiveHalving, kind_of
from raytl.search.plan.settings import PlanSettings
from raytl.search.plan.time_budget import CONFIRMED, TimeBudget
from raytl.search.propose.sampler import Handle, TpeSampler
from raytl.search.records import TrialRecord, TrialStatus
from raytl.search.space.binding import BoundSpace
from raytl.search.space.choices import FirstChoices
from raytl.search.space.definition import load_space
from raytl.training import Strategy

SPACE = f"""
space:
  source_model: {MODEL}
  optimizer: [sgd, adamw]
first:
  - {{optimizer: adamw}}
"""


def test_what_seemed_to_take_too_long_is_tried_first_once_it_does_not(tmp_path: Path) -> None:
    """The space's recommended strategies were lost to an estimate that was too high before anything was trained."""
    (tmp_path / "s.yaml").write_text(SPACE)
    space = BoundSpace(load_space(str(tmp_path / "s.yaml")), data())
    expected = {"seconds": 1e4}
    refused: list[float] = []
    exploration = Exploration(
        PlanSettings(10, 1, 1, 9, tmp_path), TpeSampler(space, 0), SuccessiveHalving(1, 3, 9),
        TimeBudget(1000.0, lambda: 0.0, 0.0, [], lanes=1, tested=True, folds=1), [], count(),
        seconds=lambda strategy: expected["seconds"], refuse=refused.append,
    )  # fmt: skip
    exploration.begin([MODEL], Survey(), leave_out=[], ahead=[], probes=[], hold_back=[])
    assert exploration.next_job() is None and exploration.is_over()
    assert set(refused) == {1e4}
    exploration.look_again()
    assert exploration.next_job() is None  # it still does: nothing is asked for twice
    assert len(refused) == 2
    by_hand = Strategy(MODEL, optimizer="sgd")
    assert space.suggest(FirstChoices({"source_model": MODEL, "optimizer": "sgd"})) == by_hand
    assert exploration.job_of(by_hand).strategy["optimizer"] == "sgd"
    expected["seconds"] = 10.0
    exploration.look_again()
    found = []
    while (job := exploration.next_job()) is not None:
        found.append(Strategy.from_dict(job.strategy).optimizer)
    assert found == ["adamw"]  # the other one was tried by hand


def test_none_of_the_many_that_seemed_to_take_too_long_is_lost(tmp_path: Path) -> None:
    rates = ", ".join(f"{0.001 * number}" for number in range(1, 2 * DEAR))
    (tmp_path / "s.yaml").write_text(f"space: {{source_model: {MODEL}, head_lr: [{rates}]}}")
    space = BoundSpace(load_space(str(tmp_path / "s.yaml")), data())
    expected = {"seconds": 1e4}
    exploration = Exploration(
        PlanSettings(3 * DEAR, 1, 1, 9, tmp_path), TpeSampler(space, 0), SuccessiveHalving(1, 3, 9),
        TimeBudget(1000.0, lambda: 0.0, 0.0, [], lanes=1, tested=True, folds=1), [], count(),
        seconds=lambda strategy: expected["seconds"],
    )  # fmt: skip
    exploration.begin([MODEL], Survey(), leave_out=[], ahead=[], probes=[], hold_back=[])
    while not exploration.exhausted:
        assert exploration.next_job() is None
        exploration.look_again()
    expected["seconds"] = 10.0
    exploration.look_again()
    tried = set()
    while (job := exploration.next_job()) is not None:
        tried.add(job.strategy["head_lr"])
    assert len(tried) == 2 * DEAR - 1


def test_proposals_which_take_long_are_few_where_little_fits(tmp_path: Path) -> None:
    """At the end of a search each look for what fits asked TPE forty times, for two to five seconds."""
    rates = ", ".join(f"{0.001 * number}" for number in range(1, 2 * DEAR))
    (tmp_path / "s.yaml").write_text(f"space: {{source_model: {MODEL}, optimizer: [sgd, adamw], head_lr: [{rates}]}}")
    space = BoundSpace(load_space(str(tmp_path / "s.yaml")), data())
    proposals: list[Strategy] = []

    class Watched(TpeSampler):
        def ask(self) -> tuple[Handle, Strategy]:
            handle, strategy = super().ask()
            proposals.append(strategy)
            return handle, strategy

    found = set()
    for seed in range(20):
        proposals.clear()
        exploration = Exploration(
            PlanSettings(10, 1, 1, 9, tmp_path), Watched(space, seed), SuccessiveHalving(1, 3, 9),
            TimeBudget(1000.0, lambda: 0.0, 0.0, [], lanes=1, tested=True, folds=1), [], count(),
            seconds=lambda strategy: 10.0 if strategy.head_lr > 0.07 and strategy.optimizer == "sgd" else 1e4,
        )  # fmt: skip
        exploration.begin([MODEL], Survey(), leave_out=[], ahead=[], probes=[], hold_back=[])
        job = exploration.next_job()
        assert 1 <= len(proposals) <= PROPOSED
        if job is not None:
            strategy = Strategy.from_dict(job.strategy)
            assert strategy.head_lr > 0.07 and strategy.optimizer == "sgd"
            found.add(strategy not in proposals)
            exploration.on_end(job.number, TrialRecord(job.number, "search", job.strategy, strategy.key, fold=0))
    assert True in found  # what was drawn


def test_what_was_drawn_does_not_come_before_what_is_proposed(tmp_path: Path) -> None:
    """Once there is time after all: only what was proposed is given again before anything else."""
    rates = ", ".join(f"{0.001 * number}" for number in range(1, 4 * DEAR))
    (tmp_path / "s.yaml").write_text(f"space: {{source_model: {MODEL}, head_lr: [{rates}]}}")
    again: list[Strategy] = []

    class Watched(TpeSampler):
        def give_again(self, strategy: Strategy) -> None:
            again.append(strategy)
            super().give_again(strategy)

    expected = {"seconds": 1e4}
    exploration = Exploration(
        PlanSettings(10, 1, 1, 9, tmp_path), Watched(BoundSpace(load_space(str(tmp_path / "s.yaml")), data()), 0),
        SuccessiveHalving(1, 3, 9), TimeBudget(1000.0, lambda: 0.0, 0.0, [], lanes=1, tested=True, folds=1), [],
        count(), seconds=lambda strategy: expected["seconds"],
    )  # fmt: skip
    exploration.begin([MODEL], Survey(), leave_out=[], ahead=[], probes=[], hold_back=[])
    assert exploration.next_job() is None
    expected["seconds"] = 10.0
    exploration.look_again()
    assert 1 <= len(again) <= PROPOSED


@pytest.mark.parametrize(("score", "goes_on"), [(0.8, True), (0.6, False)])
@pytest.mark.parametrize("time_is_over", [False, True])
def test_a_trial_that_is_ahead_of_those_that_lead_goes_on(
    tmp_path: Path, score: float, goes_on: bool, time_is_over: bool
) -> None:
    """Halving would stop it, or the time that the search has is over: what may win comes to its end all the same."""
    (tmp_path / "s.yaml").write_text(SPACE)
    space = BoundSpace(load_space(str(tmp_path / "s.yaml")), data())
    records: list[TrialRecord] = []
    now = {"seconds": 0.0}
    time = TimeBudget(100.0, lambda: now["seconds"], 0.0, records, lanes=1, tested=True, folds=2)
    halving = SuccessiveHalving(1, 3, 9)
    exploration = Exploration(
        PlanSettings(10, 2, 1, 9, tmp_path), TpeSampler(space, 0), halving, time, records, count(),
        seconds=lambda strategy: 1.0,
    )  # fmt: skip
    exploration.begin([MODEL], Survey(), leave_out=[], ahead=[], probes=[], hold_back=[])
    job = exploration.next_job()
    assert job is not None
    for number in range(CONFIRMED):
        strategy = Strategy(MODEL, optimizer="sgd", head_lr=0.01 * (number + 1))
        record = TrialRecord(100 + number, "search", strategy.to_dict(), strategy.key, fold=0)
        record.status, record.score, record.seconds = TrialStatus.COMPLETED, 0.7, 1.0
        # Of three images two are right on one fold, and three on another, whatever the strategy.
        further, control = replace(record, fold=1, score=0.99), replace(record, kind="control", score=0.99)
        records.extend([record, further, control])
        halving.record(1, 0.1 if time_is_over else 0.99, kind_of(job.strategy))
    now["seconds"] = 93.0 if time_is_over else 1.0
    assert exploration.on_epoch(job.number, 1, score) == goes_on


def test_a_probe_on_all_folds_is_one_strategy_of_which_nothing_is_expected_but_its_first(tmp_path: Path) -> None:
    """Ten figures that are nearly the same look like a search that has come to its end."""
    (tmp_path / "s.yaml").write_text(SPACE)
    records: list[TrialRecord] = []
    exploration = Exploration(
        PlanSettings(10, 5, 1, 9, tmp_path, min_gain=0.001),
        TpeSampler(BoundSpace(load_space(str(tmp_path / "s.yaml")), data()), 0), SuccessiveHalving(1, 3, 9),
        TimeBudget(None, lambda: 0.0, 0.0, records, lanes=1, tested=True, folds=5), records, count(),
        seconds=lambda strategy: 1.0,
    )  # fmt: skip
    exploration.begin([MODEL], Survey(), leave_out=[], ahead=[], probes=[], hold_back=[])
    while exploration.sampler.has_first:
        assert exploration.next_job() is not None

    def ended(kind: str, score: float, fold: int, **strategy: float) -> None:
        tried = Strategy(MODEL, **strategy)
        record = TrialRecord(len(records), kind, tried.to_dict(), tried.key, fold=fold)
        record.status, record.score = TrialStatus.COMPLETED, score
        records.append(record)

    for fold in range(10):
        ended("probe", 0.9, fold)
    for number in range(5):
        ended("search", 0.5 + 0.05 * number, 0, head_lr=0.01 * (number + 1))
    assert not exploration.has_enough()
