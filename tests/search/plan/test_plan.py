"""The plan of a search, played in virtual time: order of jobs, what is stopped, what fails, what wins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from tiny import MODEL, PRETRAINED, data

from raytl.search.jobs import JobKind, JobResult, LaneJob
from raytl.search.plan.halving import SuccessiveHalving
from raytl.search.plan.schedule import PlanSettings, SearchPlan, Wait
from raytl.search.plan.simulation import Curve, Event, VirtualClock, simulate
from raytl.search.propose.sampler import TpeSampler
from raytl.search.records import TrialRecord, TrialStatus
from raytl.search.space.binding import BoundSpace
from raytl.search.space.choices import FirstChoices
from raytl.search.space.definition import load_space
from raytl.training import Strategy

EPOCHS = 9
SPACE = f"""
epochs: {EPOCHS}
space:
  source_model: ['{PRETRAINED}', {MODEL}]
  head_lr: {{low: 0.001, high: 1.0, log: true}}
  adaptation: [none, mcc]
"""
BASELINES = {
    "fine-tune": Strategy(PRETRAINED, head_lr=0.01),
    "scratch": Strategy(MODEL, head_lr=0.02),
}
Curves = Callable[[LaneJob], Curve]


class Heard:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.trials: list[tuple[int, TrialStatus]] = []

    def on_trial(self, record: TrialRecord) -> None:
        self.trials.append((record.number, record.status))

    def on_phase(self, phase: str, detail: str) -> None:
        self.phases.append(phase)


class Search:
    """A plan and what it takes to play it."""

    def __init__(self, space: BoundSpace, *, seed: int = 0, pretraining: tuple[str, ...] = (), **settings: Any) -> None:
        defaults: dict[str, Any] = {"trials": 12, "folds": 3, "lanes": 2, "epochs": EPOCHS, "directory": Path("refits")}
        self.clock = VirtualClock()
        self.heard = Heard()
        self.sampler = TpeSampler(space, seed)
        self.halving = SuccessiveHalving(1, 3, EPOCHS)
        given = PlanSettings(**(defaults | settings))
        self.plan = SearchPlan(given, self.sampler, self.halving, BASELINES, list(pretraining), self.heard, self.clock)

    def play(self, curves: Curves) -> list[Event]:
        return simulate(self.plan, curves, self.clock, lanes=self.plan.settings.lanes)

    def records(self, kind: JobKind) -> list[TrialRecord]:
        return [record for record in self.plan.records if record.kind == kind]


def top(job: LaneJob) -> float:
    """A score between 0 and 1 that only the strategy decides: the higher the rate the better, MCC better still."""
    return 0.3 + 0.2 * float(job.strategy["head_lr"]) + 0.1 * (job.strategy["adaptation"] == "mcc")


def rising(job: LaneJob) -> Curve:
    """A second an epoch, curves that never cross."""
    if job.kind == JobKind.PRETRAIN:
        return Curve(seconds=5.0)
    return Curve(tuple((top(job) - 0.01 * (EPOCHS - epoch), float(epoch)) for epoch in range(1, EPOCHS + 1)))


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> BoundSpace:
    path = tmp_path_factory.mktemp("space") / "plan.yaml"
    path.write_text(SPACE)
    return BoundSpace(load_space(str(path)), data())


class TestPhases:
    def test_no_strategy_is_tried_as_a_baseline_and_again(self, space: BoundSpace) -> None:
        """Not even one that an earlier search was won with."""
        search = Search(space, lanes=2, trials=6, folds=1)
        inside = space.suggest(FirstChoices({"source_model": MODEL}))
        plan = SearchPlan(
            search.plan.settings,
            TpeSampler(space, 0, [inside]),
            search.halving,
            {"scratch": inside},
            [],
            search.heard,
            search.clock,
        )
        simulate(plan, rising, search.clock, lanes=2)
        keys = [record.strategy_key for record in plan.records]
        assert len(keys) == 7 and len(set(keys)) == 7

    def test_follow_one_another(self, space: BoundSpace) -> None:
        search = Search(space, lanes=1, trials=5, pretraining=(PRETRAINED,))
        events = search.play(rising)
        assert search.heard.phases == ["pretrain", "baseline", "search", "confirm", "refit"]
        started = Counter(event.job.kind for event in events if event.what == "start")
        # Confirmed: three strategies on two more folds. Refitted: the baselines, the winner, the best without a loss.
        refits = {*(s.key for s in BASELINES.values()), search.plan.winner(), search.plan.without_adaptation()} - {None}
        assert started == {"pretrain": 1, "baseline": 2, "search": 5, "confirm": 6, "refit": len(refits)}
        assert set(search.plan.refits.done) == refits
        assert search.plan.finished()

    def test_overlap_so_that_no_lane_waits(self, space: BoundSpace) -> None:
        """One trial takes an age: meanwhile the other lanes confirm and refit the baselines, but not the winner."""

        def slow(job: LaneJob) -> Curve:
            if job.kind == JobKind.SEARCH and job.number == 3:  # and is too good to be stopped
                return Curve(tuple((1.0 + score, 50.0 * seconds) for score, seconds in rising(job).epochs))
            return rising(job)

        search = Search(space, lanes=3, trials=6)
        events = search.play(slow)
        ends = {event.job.number: event.time_s for event in events if event.what in ("end", "stop")}
        during = [e.job for e in events if e.what == "start" and e.time_s < ends[3] and e.job.kind != JobKind.SEARCH]
        assert {job.kind for job in during} >= {JobKind.CONFIRM, JobKind.REFIT}
        assert all(job.baseline for job in during if job.kind == JobKind.REFIT)
        assert search.plan.winner() in search.plan.refits.done

    def test_the_most_promising_strategy_waits_for_no_baseline_but_the_default(self, space: BoundSpace) -> None:
        search = Search(space, lanes=1)
        kinds = [event.job.kind for event in search.play(rising) if event.what == "start"]
        assert kinds[:4] == [JobKind.BASELINE, JobKind.SEARCH, JobKind.BASELINE, JobKind.SEARCH]
        assert search.heard.phases == ["baseline", "search", "confirm", "refit"]

    def test_a_baseline_whose_source_model_is_being_made_lets_the_others_pass(self, space: BoundSpace) -> None:
        needs = next(iter(BASELINES.values())).source_model
        others = [name for name, strategy in BASELINES.items() if strategy.source_model != needs]
        assert others and next(iter(BASELINES)) not in others
        plan = Search(space, pretraining=(needs,)).plan
        first, second = plan.next_job(), plan.next_job()
        assert isinstance(first, LaneJob) and isinstance(second, LaneJob)
        assert (first.kind, second.baseline) == (JobKind.PRETRAIN, others[0])
        plan.on_end(first.number, JobResult())
        third = plan.next_job()
        assert isinstance(third, LaneJob) and third.baseline == next(iter(BASELINES))

    def test_a_lane_that_asks_too_early_is_told_to_wait_and_the_end_is_not_announced(self, space: BoundSpace) -> None:
        plan = Search(space, trials=1, folds=1, refit_baselines=False).plan
        jobs = [plan.next_job() for _ in range(3)]
        assert [isinstance(job, LaneJob) for job in jobs] == [True] * 3
        assert isinstance(plan.next_job(), Wait) and not plan.finished()
        for job in jobs:
            assert isinstance(job, LaneJob)
            plan.on_epoch(job.number, {"epoch": float(EPOCHS), "score": top(job), "seconds": 9.0})
            plan.on_end(job.number, JobResult())
        refit = plan.next_job()
        assert isinstance(refit, LaneJob) and refit.kind == JobKind.REFIT
        assert isinstance(plan.next_job(), Wait) and not plan.finished()
        plan.on_end(refit.number, JobResult())
        assert plan.next_job() is None and plan.finished()

    def test_the_winner_is_refitted_on_everything(self, space: BoundSpace) -> None:
        search = Search(space)
        refits = [e.job for e in search.play(rising) if e.what == "start" and e.job.kind == JobKind.REFIT]
        assert all(job.fold is None for job in refits)
        winner = search.plan.winner()
        assert winner is not None
        assert search.plan.refits.done[winner] == f"refits/{winner}"

    def test_without_folds_nothing_is_validated_on_or_confirmed(self, space: BoundSpace) -> None:
        search = Search(space, folds=0)
        assert {event.job.fold for event in search.play(rising)} == {None}
        assert not search.records(JobKind.CONFIRM)

    def test_without_a_test_split_only_the_winner_is_refitted(self, space: BoundSpace) -> None:
        search = Search(space, refit_baselines=False)
        search.play(rising)
        assert list(search.plan.refits.done) == [search.plan.winner()]


class TestStopping:
    def test_baselines_and_confirmations_are_never_stopped_however_bad(self, space: BoundSpace) -> None:
        def curves(job: LaneJob) -> Curve:
            bad = job.kind in (JobKind.BASELINE, JobKind.CONFIRM)
            return Curve(tuple((-5.0 * bad + score, s) for score, s in rising(job).epochs))

        search = Search(space)
        search.play(curves)
        for kind in (JobKind.BASELINE, JobKind.CONFIRM):
            assert search.records(kind)
            for record in search.records(kind):
                assert record.status == TrialStatus.COMPLETED and len(record.history) == EPOCHS

    def test_optuna_hears_the_truth_about_stopped_trials(self, space: BoundSpace) -> None:
        search = Search(space, trials=20)
        search.play(rising)
        told = search.sampler._study.trials
        records = search.records(JobKind.SEARCH)
        assert len(told) == len(records) == 20
        assert Counter(t.state for t in told) == {
            TrialState.PRUNED: sum(record.status == TrialStatus.PRUNED for record in records),
            TrialState.COMPLETE: sum(record.status == TrialStatus.COMPLETED for record in records),
        }
        for trial, record in zip(told, records, strict=True):
            seen = {int(entry["epoch"]): entry["score"] for entry in record.history}
            assert trial.intermediate_values == seen
            assert trial.value == record.score
            assert (len(seen) < EPOCHS) == (trial.state == TrialState.PRUNED)
        assert {len(record.history) for record in records if record.status == TrialStatus.PRUNED} <= {1, 3}

    def test_the_best_curve_is_never_stopped(self, space: BoundSpace) -> None:
        search = Search(space, trials=20, lanes=3)
        search.play(rising)
        records = search.records(JobKind.SEARCH)
        best = max(records, key=lambda record: top(LaneJob(0, JobKind.SEARCH, record.strategy)))
        assert best.status == TrialStatus.COMPLETED and best.strategy_key == search.plan.winner()

    def test_a_trial_whose_lane_died_is_started_again_and_counts_once(self, space: BoundSpace) -> None:
        search = Search(space, trials=1)
        plan = search.plan
        plan.next_job()
        job = plan.next_job()
        assert isinstance(job, LaneJob) and job.kind == JobKind.SEARCH
        for epoch in (1, 2, 3, 1, 2, 3, 4):  # dies after the third
            assert plan.on_epoch(job.number, {"epoch": float(epoch), "score": 0.1 * epoch, "seconds": 1.0})
        assert {rung: len(scores) for rung, scores in search.halving.rungs.items()} == {1: 1, 3: 1}
        assert [entry["epoch"] for entry in plan.records[-1].history] == [1.0, 2.0, 3.0, 4.0]
        plan.on_end(job.number, None)
        assert search.sampler._study.trials[0].intermediate_values == pytest.approx({1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4})


class TestFailures:
    def test_failed_trials_are_recorded_and_the_search_goes_on(self, space: BoundSpace) -> None:
        def curves(job: LaneJob) -> Curve:
            diverges = job.kind == JobKind.SEARCH and float(job.strategy["head_lr"]) > 0.05
            return Curve(rising(job).epochs[:2], 2.0, "the loss stopped being finite") if diverges else rising(job)

        search = Search(space, trials=20)
        search.play(curves)
        failed = [record for record in search.plan.records if record.status == TrialStatus.FAILED]
        assert failed and {record.reason for record in failed} == {"the loss stopped being finite"}
        assert {record.score for record in failed} == {None}
        states = Counter(trial.state for trial in search.sampler._study.trials)
        assert states[TrialState.FAIL] == len(failed)
        assert search.plan.winner() not in {record.strategy_key for record in failed}
        assert search.plan.finished()

    def test_a_confirmation_that_fails_is_not_repeated(self, space: BoundSpace) -> None:
        search = Search(space, lanes=1)
        events = search.play(
            lambda job: Curve(seconds=1.0, reason="nan") if job.kind == JobKind.CONFIRM else rising(job)
        )
        assert sum(e.what == "start" and e.job.kind == JobKind.CONFIRM for e in events) == 6
        assert search.plan.finished() and search.plan.winner() in search.plan.refits.done

    def test_a_failed_refit_makes_the_next_best_the_winner(self, space: BoundSpace) -> None:
        search = Search(space)
        first: list[str] = []

        def curves(job: LaneJob) -> Curve:
            if job.kind == JobKind.REFIT and job.baseline is None and not first:
                first.append(Strategy.from_dict(job.strategy).key)
                return Curve(seconds=1.0, reason="out of memory")
            return rising(job)

        search.play(curves)
        ranking = search.plan.ranking()
        assert first == [ranking[0]]
        assert search.plan.winner() == ranking[1] and ranking[1] in search.plan.refits.done
        assert search.plan.refits.failed == {ranking[0]: "out of memory"}

    def test_the_search_ends_where_everything_fails(self, space: BoundSpace) -> None:
        search = Search(space)
        search.play(lambda job: Curve(seconds=1.0, reason="no memory"))
        assert search.plan.finished()
        assert search.plan.winner() is None
        assert {record.status for record in search.plan.records} == {TrialStatus.FAILED}

    def test_a_lane_that_dies_for_good_fails_its_trial(self, space: BoundSpace) -> None:
        plan = Search(space).plan
        job = plan.next_job()
        assert isinstance(job, LaneJob)
        plan.on_end(job.number, None, "its process died")
        assert (plan.records[0].status, plan.records[0].reason) == (TrialStatus.FAILED, "its process died")


class TestEnd:
    @pytest.mark.parametrize("lanes", [1, 2, 4])
    @pytest.mark.parametrize("folds", [1, 5])
    def test_a_time_budget_holds_with_all_phases_in_it(self, space: BoundSpace, lanes: int, folds: int) -> None:
        search = Search(space, trials=10_000, folds=folds, lanes=lanes, time_budget_s=200.0)
        events = search.play(rising)
        assert search.plan.winner() in search.plan.refits.done
        assert len(search.plan.refits.done) >= 3
        assert 120.0 <= events[-1].time_s <= 210.0
        if folds > 1:
            assert search.records(JobKind.CONFIRM)

    def test_a_trial_that_the_clock_cut_short_is_interrupted_not_pruned(self, space: BoundSpace) -> None:
        search = Search(space, trials=10_000, lanes=2, time_budget_s=200.0)

        def curves(job: LaneJob) -> Curve:  # all alike, so that halving stops none
            return Curve(tuple((0.5, 2.0 * epoch) for epoch in range(1, search.plan.settings.epochs + 1)))

        search.play(curves)
        statuses = Counter(record.status for record in search.records(JobKind.SEARCH))
        assert set(statuses) == {TrialStatus.COMPLETED, TrialStatus.INTERRUPTED}
        assert 1 <= statuses[TrialStatus.INTERRUPTED] <= 2

    def test_no_budget_is_too_small_for_the_baselines_and_one_strategy(self, space: BoundSpace) -> None:
        search = Search(space, time_budget_s=1.0)
        search.play(rising)
        assert len(search.records(JobKind.BASELINE)) == 2
        assert all(record.status == TrialStatus.COMPLETED for record in search.records(JobKind.BASELINE))
        assert search.plan.winner() in search.plan.refits.done

    def test_patience_ends_a_search_that_finds_nothing_better(self, space: BoundSpace) -> None:
        def curves(job: LaneJob) -> Curve:
            score = 0.9 if job.kind == JobKind.SEARCH and job.number == 6 else 0.5
            return Curve(tuple((score, float(epoch)) for epoch in range(1, EPOCHS + 1)))

        search = Search(space, trials=100, lanes=1, patience=7)
        search.play(curves)
        searched = search.records(JobKind.SEARCH)
        best = next(i for i, record in enumerate(searched) if record.score == 0.9)
        assert len(searched) == best + 1 + 7

    def test_a_small_space_ends_when_all_of_it_was_tried(self, tmp_path: Path) -> None:
        path = tmp_path / "small.yaml"
        path.write_text(f"space: {{source_model: {MODEL}, optimizer: [sgd, adamw], ema: [0.0, 0.9, 0.99]}}")
        search = Search(BoundSpace(load_space(str(path)), data()), trials=50)
        search.play(rising)
        keys = [record.strategy_key for record in search.records(JobKind.SEARCH)]
        assert len(keys) == len(set(keys)) == 6
        assert search.plan.finished()

    def test_no_strategy_is_tried_twice(self, space: BoundSpace) -> None:
        search = Search(space, trials=40)
        search.play(rising)
        keys = [record.strategy_key for record in search.records(JobKind.SEARCH)]
        assert len(keys) == len(set(keys)) == 40

    def test_an_interrupt_marks_what_runs(self, space: BoundSpace) -> None:
        search = Search(space)
        jobs = [search.plan.next_job() for _ in range(3)]
        assert isinstance(jobs[0], LaneJob)
        search.plan.on_end(jobs[0].number, JobResult())
        search.plan.interrupt()
        statuses = [record.status for record in search.plan.records]
        assert statuses == [TrialStatus.COMPLETED, TrialStatus.INTERRUPTED, TrialStatus.INTERRUPTED]
        assert search.heard.trials[-2:] == [(1, TrialStatus.INTERRUPTED), (2, TrialStatus.INTERRUPTED)]
        assert not search.plan.finished()


class TestRanking:
    def confirmed(self, space: BoundSpace, folds: int, luck: Callable[[LaneJob], float]) -> Search:
        """All strategies get 0.5 plus what ``luck`` adds."""
        search = Search(space, folds=folds, trials=8)
        epochs = range(1, EPOCHS + 1)
        search.play(lambda job: Curve(tuple((0.5 + luck(job) + 0.001 * epoch, float(epoch)) for epoch in epochs)))
        return search

    def test_who_was_lucky_on_one_fold_loses_to_who_holds_on_several(self, space: BoundSpace) -> None:
        def luck(job: LaneJob) -> float:
            if job.kind == JobKind.BASELINE:
                return {"fine-tune": 0.4 if job.fold == 0 else -0.4, "scratch": 0.3}[job.baseline or ""]
            mine = Strategy.from_dict(job.strategy).key
            lucky = BASELINES["fine-tune"].key
            return -0.4 if mine == lucky else 0.3 if mine == BASELINES["scratch"].key else 0.0

        search = self.confirmed(space, 3, luck)
        assert search.plan.winner() == BASELINES["scratch"].key
        assert [record.fold for record in search.plan.of_strategy(BASELINES["scratch"].key)] == [0, 1, 2]

    def test_a_leader_that_comes_late_is_confirmed_too(self, space: BoundSpace) -> None:
        """The best trial ends when the others' confirmations are long done."""

        def curves(job: LaneJob) -> Curve:
            late = job.kind == JobKind.SEARCH and job.number == 3
            key = Strategy.from_dict(job.strategy).key
            if late:
                late_key.append(key)
            score = 0.9 if key in late_key else 0.5
            return Curve(tuple((score, epoch * (100.0 if late else 1.0)) for epoch in range(1, EPOCHS + 1)))

        late_key: list[str] = []
        search = Search(space, folds=3, trials=6, lanes=2)
        search.play(curves)
        assert search.plan.winner() == late_key[0]
        assert [record.fold for record in search.plan.of_strategy(late_key[0])] == [0, 1, 2]

    def test_folds_of_different_difficulty_are_not_compared(self, space: BoundSpace) -> None:
        """The leader was also tried on an easy fold, when time ran out: that must not make it better."""
        plan = Search(space).plan
        for number, (key, fold, score) in enumerate(
            [("a", 0, 0.61), ("b", 0, 0.60), ("a", 1, 0.50), ("b", 1, 0.59), ("a", 2, 0.95)]
        ):
            record = TrialRecord(number, "confirm", {}, key, fold=fold, status=TrialStatus.COMPLETED, score=score)
            plan.records.append(record)
        assert plan.ranking() == ["b", "a"]
