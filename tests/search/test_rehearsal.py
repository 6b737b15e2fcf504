"""A search rehearsed in virtual time, on jobs that take what they are said to take."""

from __future__ import annotations

import importlib
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import MODEL, PRETRAINED, SIDE, STAGES, data, workspace

from raytl.search.jobs import JobKind, JobResult, LaneJob
from raytl.search.lanes.sizing import Lanes
from raytl.search.plan.schedule import SearchPlan
from raytl.search.plan.simulation import VirtualClock
from raytl.search.plan.time_budget import unlimited_yardstick_seconds
from raytl.search.planning import END_S, END_SHARE, LEAST_S, SearchSettings, make_plan
from raytl.search.propose.effort import Effort
from raytl.search.records import TrialRecord, TrialStatus
from raytl.search.rehearsal import FINISH_S, START_S, Known, Rehearsal, Silent, rehearse
from raytl.search.space.binding import BoundSpace
from raytl.search.space.definition import load_space
from raytl.training.strategy import Strategy
from raytl.training.workspace import Workspace

SPACE = f"""
epochs: 4
grace_epochs: 1
image_size: {SIDE}
space:
  source_model: ['{PRETRAINED}', '{MODEL}']
  cut: 0
  head_lr: {{low: 0.001, high: 1.0, log: true}}
"""
TRAINING_S = 30.0
REHEARSAL = importlib.import_module("raytl.search.rehearsal")  # raytl.search is a function as well


@pytest.fixture(autouse=True)
def _all_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine has no fewer."""
    monkeypatch.setattr(REHEARSAL, "ENOUGH_S", 600.0)


@pytest.fixture(scope="module")
def bound(tmp_path_factory: pytest.TempPathFactory) -> BoundSpace:
    file = tmp_path_factory.mktemp("space") / "rehearsed.yaml"
    file.write_text(SPACE)
    return BoundSpace(load_space(str(file)), data(8))


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory, bound: BoundSpace) -> Workspace:
    return workspace(tmp_path_factory.mktemp("home"), bound.data, epochs=4)


def known(held: Workspace, bound: BoundSpace, training_s: float = TRAINING_S, **more: object) -> Known:
    """Of a fine-tune that took half a minute, say; what trains nothing takes no time."""
    trained = Strategy(MODEL)
    record = TrialRecord(0, JobKind.SEARCH, trained.to_dict(), trained.key)
    record.status, record.seconds = TrialStatus.COMPLETED, training_s
    return Known(Effort(bound, held.settings.budget).passes, 4, [record], **more)  # type: ignore[arg-type]


def plan_of(held: Workspace, bound: BoundSpace, clock: VirtualClock) -> SearchPlan:
    return make_plan(
        bound, SearchSettings(trials=4), held, Lanes(1, 1.0, 0.0), Path(), Silent(),
        test_images=0, started=0.0, clock=clock,
    )  # fmt: skip


def rehearsed(
    held: Workspace,
    bound: BoundSpace,
    *,
    lanes: int = 1,
    often: int = 1,
    pretrain_s: float = 0.0,
    training_s: float = TRAINING_S,
    **wishes: object,
) -> list[tuple[float, SearchPlan]]:
    settings = replace(SearchSettings(), **wishes)  # type: ignore[arg-type]

    def plan(clock: VirtualClock, seed: int) -> SearchPlan:
        return make_plan(
            bound, replace(settings, seed=seed), held, Lanes(lanes, 1.0, 0.0), Path(), Silent(),
            test_images=0, started=0.0, clock=clock,
        )  # fmt: skip

    given = known(held, bound, training_s, pretrain_s={PRETRAINED: pretrain_s})
    return rehearse(plan, given, held, epochs=4, lanes=lanes, often=often, seed=0)


def seconds(held: Workspace, bound: BoundSpace, **more: object) -> float:
    return rehearsed(held, bound, **more)[0][0]  # type: ignore[arg-type]


def test_more_trials_take_longer_and_more_lanes_less(held: Workspace, bound: BoundSpace) -> None:
    one = seconds(held, bound, trials=60)
    assert one > START_S + FINISH_S + 20 * TRAINING_S
    assert seconds(held, bound, trials=4) < 0.7 * one
    assert seconds(held, bound, trials=60, lanes=4) < 0.5 * one


def test_making_a_source_model_takes_what_it_takes(held: Workspace, bound: BoundSpace) -> None:
    quick, slow = (seconds(held, bound, trials=4, pretrain_s=each) for each in (0.0, 500.0))
    assert slow == pytest.approx(quick + 500.0)


def test_the_same_seed_is_the_same_rehearsal_and_others_differ(held: Workspace, bound: BoundSpace) -> None:
    first, again = (rehearsed(held, bound, trials=8, often=3) for _ in range(2))
    assert [took for took, _ in first] == [took for took, _ in again]
    assert len({took for took, _ in first}) == 3


@pytest.mark.parametrize(("enough_s", "runs"), [(600.0, 3), (0.0, 1)])
def test_where_a_run_takes_long_the_first_is_all(
    held: Workspace, bound: BoundSpace, monkeypatch: pytest.MonkeyPatch, enough_s: float, runs: int
) -> None:
    monkeypatch.setattr(REHEARSAL, "ENOUGH_S", enough_s)
    assert len(rehearsed(held, bound, often=3)) == runs


def test_a_time_budget_ends_it(held: Workspace, bound: BoundSpace) -> None:
    took, plan = rehearsed(held, bound, trials=500, time_budget_s=400.0)[0]
    assert 200.0 < took < 400.0 + FINISH_S + TRAINING_S
    assert plan.finished()
    assert 3 < len({record.strategy_key for record in plan.records}) < 40


def test_a_time_budget_is_less_what_reading_the_data_took(held: Workspace, bound: BoundSpace) -> None:
    """And something is kept for the report. However long it was, a first model is tried for."""

    def plan(spent_s: float, budget_s: float | None) -> SearchPlan:
        return make_plan(
            bound, SearchSettings(time_budget_s=budget_s), held, Lanes(1, 1.0, 0.0), Path(), Silent(),
            test_images=0, started=0.0, spent_s=spent_s, clock=VirtualClock(),
        )  # fmt: skip

    assert plan(30.0, 100.0).settings.time_budget_s == 100.0 - 30.0 - END_S
    assert plan(30.0, 20.0).settings.time_budget_s == LEAST_S
    assert plan(0.0, 10.0).settings.time_budget_s == 10.0 - END_SHARE * 10.0
    assert plan(30.0, None).settings.time_budget_s is None


@pytest.mark.parametrize(
    ("target", "unlabelled", "kept"), [(8, 7, True), (8, 6, False), (8, None, False), (1, 7, False)]
)
def test_time_is_kept_for_judging_on_unlabelled_images_where_that_tells(
    tmp_path: Path, bound: BoundSpace, target: int, unlabelled: int | None, kept: bool
) -> None:
    """Of three classes: 18 images are too few, and of one label a class none is held out."""
    own = BoundSpace(bound.space, data(target, unlabelled))
    settings = SearchSettings(time_budget_s=60.0)
    plan = make_plan(
        own, settings, workspace(tmp_path, own.data, epochs=4), Lanes(1, 1.0, 0.0), Path(), Silent(),
        test_images=0, started=0.0, clock=VirtualClock(),
    )  # fmt: skip
    assert bool(plan.settings.yardstick_s) is kept


def test_a_time_budget_is_searched_until_it_is_over_unless_a_number_is_asked_for(held: Workspace, bound: BoundSpace):
    def most(**wishes: Any) -> int:
        plan = make_plan(
            bound, SearchSettings(**wishes), held, Lanes(1, 1.0, 0.0), Path(), Silent(),
            test_images=0, started=0.0, clock=VirtualClock(),
        )  # fmt: skip
        return plan.settings.trials

    usual = bound.space.settings.trials
    assert most() == usual
    assert most(time_budget_s=100.0) > 100 * usual
    assert most(trials=3, time_budget_s=100.0) == most(trials=3) == 3


def test_who_is_right_wins_and_races_end(held: Workspace, bound: BoundSpace) -> None:
    _, plan = rehearsed(held, bound, trials=12)[0]
    assert plan.winner() is not None
    assert any(record.status == TrialStatus.PRUNED for record in plan.records)
    assert all(len(record.predicted) for record in plan.records if record.status == TrialStatus.COMPLETED)


def test_what_is_kept_on_the_way_takes_the_search_no_time(tmp_path: Path) -> None:
    """Features are made once, for the quote; the search finds them, and so does each further head on them."""
    file = tmp_path / "rehearsed.yaml"
    file.write_text(SPACE.replace(f"'{PRETRAINED}', ", ""))
    own = BoundSpace(load_space(str(file)), data(8))
    held = workspace(tmp_path, own.data, epochs=4)
    given, plan = known(held, own), plan_of(held, own, VirtualClock())
    given.begin(plan, held, math.inf)
    made = [record for record in plan.records if record.made_s]
    assert made
    for record in made:
        curve = given.done["trial", record.strategy_key, str(record.fold)]
        assert curve.duration == pytest.approx(record.again_s) and curve.duration < record.seconds
        assert curve.result.made_s == 0.0


def test_of_a_single_head_further_ones_take_what_it_takes_again(
    tmp_path: Path, bound: BoundSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the quote had time for one head of a source model: on that its images passed the network."""
    held = workspace(tmp_path, bound.data, epochs=4)
    given, plan = known(held, bound), plan_of(held, bound, VirtualClock())
    next_quick = plan.next_quick
    monkeypatch.setattr(plan, "next_quick", lambda: None if any(r.made_s for r in plan.records) else next_quick())
    given.begin(plan, held, math.inf)
    (head,) = [record for record in plan.records if record.made_s]
    assert given.again_s(head.strategy["source_model"]) == pytest.approx(head.again_s)
    assert head.again_s < head.seconds


def test_a_head_that_was_begun_takes_a_further_fold_what_it_takes_again(held: Workspace, bound: BoundSpace) -> None:
    """Where the quote had time for its first fold alone: on that its images passed the network."""
    head = Strategy(MODEL, cut=STAGES, head="logistic")
    first = TrialRecord(1, JobKind.PROBE, head.to_dict(), head.key)
    first.status, first.seconds, first.made_s = TrialStatus.COMPLETED, 20.0, 19.0
    job = LaneJob(0, JobKind.PROBE, head.to_dict(), 1)
    given = known(held, bound)
    given.durations.probed(job, JobResult(seconds=20.0))
    given.records.append(first)
    assert Rehearsal(given, held, 4, 1.0, np.random.default_rng(0)).curve(job).duration <= 0.15 * 20.0


def test_a_head_that_was_not_begun_makes_its_features_once(held: Workspace, bound: BoundSpace) -> None:
    given = known(held, bound, network_s={"plain:pixels": (20.0, 1.0)})
    head = Strategy(MODEL, cut=STAGES, head="logistic")
    given.durations.probed(LaneJob(0, JobKind.PROBE, head.to_dict(), 0), JobResult(seconds=20.0))
    rehearsal = Rehearsal(given, held, 4, 1.0, np.random.default_rng(0))
    took = [rehearsal.curve(LaneJob(n, JobKind.PROBE, head.to_dict(), n)).duration for n in range(2)]
    assert took == [20.0, 1.0]


def test_a_budget_that_is_used_up_is_what_the_search_takes(held: Workspace, bound: BoundSpace) -> None:
    """What is kept of it for the report is what the report is reckoned to take: of 30 s it was quoted 34."""
    took, _ = rehearsed(held, bound, trials=10**6, time_budget_s=30.0, training_s=1.0)[0]
    assert 0.6 * 30.0 < took <= 30.0  # a fifth is kept for what tells of the unlabelled images


def test_without_a_budget_the_yardstick_takes_its_share_as_well(held: Workspace, bound: BoundSpace) -> None:
    took, plan = rehearsed(held, bound, trials=12)[0]
    winner = plan.winner()
    assert winner is not None
    convex = Strategy.from_dict(plan.contest.strategy_of(winner)).convex
    ended = max(record.ended or 0.0 for record in plan.records)
    refit_s = 0.0 if convex else TRAINING_S
    rest = took - ended - refit_s - FINISH_S
    assert 0 <= rest <= 2 * unlimited_yardstick_seconds(took, convex=convex)
    assert convex or rest > 0
