"""Searches in virtual time: order, time and determinism of events, and that a plan does there what it does on Tune."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import optuna
import pytest
from recorded import CurveTable, FixedRecipes

from raytl.search.jobs import EpochReport, JobKind, JobResult, LaneJob
from raytl.search.plan.halving import SuccessiveHalving
from raytl.search.plan.schedule import SearchPlan
from raytl.search.plan.settings import PlanSettings
from raytl.search.plan.simulation import Curve, Event, VirtualClock, simulate
from raytl.search.propose.sampler import TpeSampler
from raytl.search.records import TrialRecord, TrialStatus
from raytl.search.space.binding import BoundSpace
from raytl.search.space.definition import load_space
from raytl.tasks import LabelledImages, TrainingData, demo_task
from raytl.tasks.items import PixelsItem
from raytl.training.strategy import Strategy

EPOCHS = 8
DATA = Path(__file__).parents[3] / "benchmarks" / "data"
CURVES = DATA / "digits-curves.parquet"
SPACE = """
epochs: 8
image_size: 16
space:
  source_model: [scratch:cnn-small]
  head_lr: {low: 0.001, high: 1.0, log: true}
"""


class Silent:
    def on_trial(self, record: TrialRecord) -> None: ...

    def on_phase(self, phase: str, detail: str) -> None: ...


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> BoundSpace:
    file = tmp_path_factory.mktemp("space") / "rates.yaml"
    file.write_text(SPACE)
    items = [PixelsItem(str(i), np.full((16, 16), i * 20, dtype=np.uint8)) for i in range(8)]
    images = LabelledImages("target", items, None, ("dark", "light"), np.repeat([0, 1], 4))
    return BoundSpace(load_space(str(file)), TrainingData("tones", images.classes, images, None, {}, 1))


def score_of(strategy: dict[str, object]) -> float:
    """Best at a rate of 0.03."""
    return 0.9 - 0.1 * abs(np.log10(float(strategy["head_lr"]) / 0.03))  # type: ignore[arg-type]


def rising(job: LaneJob) -> Curve:
    """Curves that never cross; a second an epoch."""
    top = score_of(job.strategy)
    return Curve(tuple((top - 0.02 * (EPOCHS - epoch), float(epoch)) for epoch in range(1, EPOCHS + 1)))


def make_plan(
    space: BoundSpace,
    clock: VirtualClock,
    *,
    trials: int,
    lanes: int = 2,
    folds: int = 1,
    seed: int = 0,
    **settings: object,
) -> SearchPlan:
    given = PlanSettings(trials, folds, lanes, EPOCHS, Path("refits"), **settings)  # type: ignore[arg-type]
    recipes = FixedRecipes({"scratch": Strategy("scratch:cnn-small", head_lr=0.05)})
    halving = SuccessiveHalving(2, 3, EPOCHS)
    return SearchPlan(given, TpeSampler(space, seed), halving, recipes, [], Silent(), clock)


def searched(space: BoundSpace, curves=rising, lanes: int = 2, **settings) -> tuple[SearchPlan, list[Event]]:
    clock = VirtualClock()
    plan = make_plan(space, clock, lanes=lanes, **settings)
    return plan, simulate(plan, curves, clock, lanes=lanes)


def test_the_same_seed_gives_the_same_events(space: BoundSpace) -> None:
    _, first = searched(space, trials=30, seed=3)
    _, again = searched(space, trials=30, seed=3)
    _, other = searched(space, trials=30, seed=4)
    assert first == again
    assert [event.job.strategy for event in first] != [event.job.strategy for event in other]


def test_a_thousand_trials_run_in_virtual_time(space: BoundSpace) -> None:
    plan, events = searched(space, trials=1000, lanes=4)
    search = [record for record in plan.records if record.kind == JobKind.SEARCH]
    assert len(search) == 1000
    assert {record.status for record in plan.records} == {TrialStatus.COMPLETED, TrialStatus.PRUNED}
    assert plan.finished()
    work = sum(len(record.history) for record in plan.records) + EPOCHS * len(plan.refits.done)
    assert work / 4 <= events[-1].time_s <= work / 4 + 3 * EPOCHS  # all four lanes were busy nearly all the time


def test_events_come_in_order_and_a_lane_does_one_job_at_a_time(space: BoundSpace) -> None:
    _, events = searched(space, trials=40, lanes=3, folds=3)
    assert all(before.time_s <= after.time_s for before, after in pairwise(events))
    for lane in range(3):
        busy = None
        for event in (event for event in events if event.lane == lane):
            if event.what == "start":
                assert busy is None
                busy, epoch = event.job.number, 0
            assert event.job.number == busy
            if event.what == "epoch":
                epoch += 1
                assert event.epoch == epoch
            if event.what in ("stop", "end"):
                busy = None
        assert busy is None


def test_the_clock_stands_where_the_arithmetic_says(space: BoundSpace) -> None:
    # One lane, nothing to stop: the baseline, one trial, the refits of both; 8 s each, and 0.5 s before each.
    clock = VirtualClock()
    plan = make_plan(space, clock, trials=1, lanes=1)
    events = simulate(plan, rising, clock, lanes=1, overhead_s=0.5)
    assert [event.job.kind for event in events if event.what == "start"] == ["baseline", "search", "refit", "refit"]
    assert [event.time_s for event in events if event.what == "end"] == [8.5, 17.0, 25.5, 34.0]


def test_a_hopeless_trial_is_stopped_at_the_first_rung(space: BoundSpace) -> None:
    plan, events = searched(space, trials=20)
    pruned = {record.number for record in plan.records if record.status == TrialStatus.PRUNED}
    assert pruned
    assert {event.epoch for event in events if event.what == "stop"} <= {2, 6}
    worst = min((record for record in plan.records), key=lambda record: score_of(record.strategy))
    assert worst.number in pruned


def test_a_failing_job_is_a_failed_trial_and_the_search_goes_on(space: BoundSpace) -> None:
    def curves(job: LaneJob) -> Curve:
        diverges = job.kind == JobKind.SEARCH and float(job.strategy["head_lr"]) > 0.1
        return Curve(seconds=1.0, reason="the loss stopped being finite") if diverges else rising(job)

    plan, events = searched(space, curves, trials=20)
    failed = [record for record in plan.records if record.status == TrialStatus.FAILED]
    assert failed and all(record.reason == "the loss stopped being finite" for record in failed)
    assert plan.finished() and plan.winner() in plan.refits.done
    assert sum(event.job.kind == JobKind.SEARCH and event.what == "start" for event in events) == 20


def test_a_time_budget_ends_the_search_in_virtual_time(space: BoundSpace) -> None:
    plan, events = searched(space, trials=10_000, time_budget_s=100.0)
    assert events[-1].time_s <= 100.0 + EPOCHS
    assert plan.winner() in plan.refits.done
    assert max(event.time_s for event in events if event.job.kind == JobKind.SEARCH) > 50.0


def test_a_plan_does_in_virtual_time_what_it_does_on_tune(space: BoundSpace, tmp_path: Path) -> None:
    """Jobs, their strategies, their ends and their curves: with one lane nothing depends on timing."""
    from ray import tune

    from raytl.search.driver import run_plan
    from raytl.search.lanes.cluster import cluster

    def replay(config: dict[str, str]) -> None:
        job = LaneJob.from_json(config["job"])
        top = 0.9 - 0.1 * abs(np.log10(job.strategy["head_lr"] / 0.03))
        for epoch in range(1, EPOCHS + 1):
            metrics = {"epoch": float(epoch), "score": top - 0.02 * (EPOCHS - epoch), "seconds": float(epoch)}
            tune.report({"report": EpochReport(metrics)})
        tune.report({"report": JobResult(seconds=float(EPOCHS)), "done": True})

    simulated, _ = searched(space, trials=8, lanes=1, folds=2)
    real = make_plan(space, VirtualClock(), trials=8, lanes=1, folds=2)
    with cluster(1, 0.0) as lanes:
        assert run_plan(real, replay, lanes, tmp_path)

    def told(plan: SearchPlan) -> list[tuple[object, ...]]:
        return [(r.kind, r.strategy_key, r.fold, r.status, r.score, len(r.history)) for r in plan.records]

    assert told(real) == told(simulated)
    assert {record.status for record in real.records} == {TrialStatus.COMPLETED, TrialStatus.PRUNED}
    assert list(real.refits.done) == list(simulated.refits.done)
    assert real.finished() and simulated.finished()


class TestRecordedCurves:
    """The curves that come with the benchmarks."""

    @pytest.fixture(scope="class")
    def table(self) -> CurveTable:
        return CurveTable.read(CURVES, 0)

    @pytest.fixture(scope="class")
    def digits(self) -> BoundSpace:
        return BoundSpace(load_space(str(DATA / "recorded-space.yaml")), demo_task(0).data)

    def test_every_strategy_of_the_space_is_there_with_its_whole_curve(
        self, table: CurveTable, digits: BoundSpace
    ) -> None:
        assert len(table.curves) == 294
        assert all(len(curve.epochs) == EPOCHS for curve in table.curves.values() if curve.reason is None)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        for _ in range(200):
            assert table.of(digits.suggest(study.ask()).key).duration > 0
        assert 0.9 < table.best_test_accuracy <= 1.0

    def test_what_was_not_recorded_is_not_guessed(self, table: CurveTable) -> None:
        with pytest.raises(LookupError, match="no curve was recorded for strategy"):
            table.of(Strategy("scratch:cnn-small", head_lr=0.0123).key)
        with pytest.raises(LookupError, match="holds no curves of seed 99"):
            CurveTable.read(CURVES, 99)

    def test_a_search_on_them_finds_nearly_the_best_in_a_third_of_the_work(
        self, table: CurveTable, digits: BoundSpace
    ) -> None:
        clock, given = VirtualClock(), digits.space.settings
        settings = PlanSettings(trials=100, folds=1, lanes=2, epochs=EPOCHS, directory=Path(), tested=False)
        halving = SuccessiveHalving(given.grace_epochs, given.reduction_factor, EPOCHS)
        plan = SearchPlan(settings, TpeSampler(digits, 0), halving, FixedRecipes(), [], Silent(), clock)
        events = simulate(plan, table, clock, lanes=2)
        winner = plan.winner()
        assert winner is not None
        assert table.of(winner).test_accuracy > table.best_test_accuracy - 0.03
        assert 2 * events[-1].time_s < sum(curve.duration for curve in table.curves.values()) / 3
