"""The plan of a search, played in virtual time: order of jobs, what is stopped, what fails, what wins."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from recorded import FixedRecipes
from tiny import MODEL, PRETRAINED, data
from virtual import BASELINES, EPOCHS, PIXELS, PROBE, PROBES, SPACE, Search, flat, key, rising, top

from raytl.judging.verdict import Part
from raytl.search.jobs import JobKind, JobResult, LaneJob, Survey
from raytl.search.plan.schedule import FIRST_MODEL, TIME
from raytl.search.plan.settings import Wait
from raytl.search.plan.simulation import Curve
from raytl.search.plan.time_budget import CONFIRMED, trial_seconds
from raytl.search.propose.effort import Passes
from raytl.search.propose.recipes import Control
from raytl.search.records import TrialRecord, TrialStatus
from raytl.search.space.binding import BoundSpace
from raytl.search.space.choices import FirstChoices
from raytl.search.space.definition import load_space
from raytl.training import Strategy

WITHOUT = (
    Control("without pretrained weights", Part.SOURCE_MODEL, Strategy(MODEL, head_lr=0.7)),
    Control("without augmentation", Part.AUGMENTATION, Strategy(PRETRAINED, head_lr=0.7)),
)


@pytest.fixture
def space(tmp_path: Path) -> BoundSpace:
    path = tmp_path / "plan.yaml"
    path.write_text(SPACE)
    return BoundSpace(load_space(str(path)), data())


class TestPhases:
    def test_no_strategy_is_tried_as_a_baseline_and_again(self, space: BoundSpace) -> None:
        """Not even one that an earlier search was won with."""
        inside = space.suggest(FirstChoices({"source_model": MODEL}))
        search = Search(space, recipes=FixedRecipes({"scratch": inside}), first=[inside], trials=6, folds=1)
        search.play(rising)
        keys = [record.strategy_key for record in search.plan.records]
        assert len(keys) == 7 and len(set(keys)) == 7

    def test_follow_one_another(self, space: BoundSpace) -> None:
        recipes = FixedRecipes(BASELINES, PROBES, WITHOUT)
        search = Search(space, lanes=1, trials=5, pretraining=[PRETRAINED], recipes=recipes, surveys=True)
        search.play(rising)
        told = ["survey", "pretrain", "probe", FIRST_MODEL, "baseline", "search", "confirm", "refit"]
        assert search.heard.phases == told
        given = Counter(job.kind for job in search.jobs)
        # Probes and the four that lead are tried on three folds; of the others one is enough.
        assert (given["survey"], given["pretrain"], given["probe"]) == (1, 1, 6)
        assert (given["baseline"], given["search"], given["confirm"], given["control"]) == (2, 5, 8, 0)
        # Refitted: the first model, the winner, what it is held against.
        refits = {
            PROBE.key,
            search.plan.winner(),
            *(s.key for s in BASELINES.values()),
            *(c.strategy.key for c in WITHOUT),
        }
        assert set(search.plan.refits.done) == refits
        assert search.plan.finished()

    def test_nothing_is_trained_where_nothing_would_tell_whether_it_is_better(self, space: BoundSpace) -> None:
        search = Search(space, recipes=FixedRecipes(BASELINES, PROBES), folds=0, trials=0, trains=False, tested=False)
        search.play(rising)
        assert {job.kind for job in search.jobs} == {JobKind.PROBE, JobKind.REFIT}
        assert search.plan.finished() and set(search.plan.refits.done) == {search.plan.winner()}

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
        search.play(rising)
        kinds = [job.kind for job in search.jobs]
        assert kinds[:4] == [JobKind.BASELINE, JobKind.SEARCH, JobKind.BASELINE, JobKind.SEARCH]
        assert search.heard.phases == ["baseline", "search", "confirm", "refit"]

    def test_a_lane_that_asks_too_early_is_told_to_wait_and_the_end_is_not_announced(self, space: BoundSpace) -> None:
        plan = Search(space, trials=1, folds=1, tested=False).plan
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
        search.play(rising)
        assert {job.fold for job in search.given(JobKind.REFIT)} == {None}
        winner = search.plan.winner()
        assert winner is not None
        assert search.plan.refits.done[winner] == f"refits/{winner}"

    def test_without_folds_nothing_is_validated_on_or_confirmed(self, space: BoundSpace) -> None:
        search = Search(space, folds=0, recipes=FixedRecipes(BASELINES, PROBES, WITHOUT), tested=False)
        search.play(rising)
        assert {job.fold for job in search.jobs} == {None}
        assert not search.given(JobKind.CONFIRM, JobKind.CONTROL)
        assert len(search.given(JobKind.PROBE)) == 2
        assert search.plan.winner() in search.plan.refits.done

    def test_without_a_test_split_only_the_first_model_and_the_winner_are_refitted(self, space: BoundSpace) -> None:
        search = Search(space, tested=False, recipes=FixedRecipes(BASELINES, PROBES))
        search.play(rising)
        assert list(search.plan.refits.done) == [PROBE.key, search.plan.winner()]


class TestSurvey:
    def test_comes_before_all_else_and_is_told_which_models_there_are(self, space: BoundSpace) -> None:
        plan = Search(space, surveys=True, recipes=FixedRecipes(BASELINES, PROBES)).plan
        job = plan.next_job()
        assert isinstance(job, LaneJob) and job.kind == JobKind.SURVEY
        assert job.source_models == (PRETRAINED, MODEL)
        assert isinstance(plan.next_job(), Wait)

    def test_is_heard_and_every_trial_after_it_knows_the_frequencies_and_what_was_set_aside(
        self, space: BoundSpace
    ) -> None:
        search = Search(space, surveys=True, lanes=1, recipes=FixedRecipes(BASELINES, PROBES))
        plan = search.plan
        first = plan.next_job()
        assert isinstance(first, LaneJob)
        found = Survey(("bright",), {"dim": "contradicted"}, (0.5, 0.3, 0.2), ("one thing", "another"))
        plan.on_end(first.number, JobResult(survey=found))
        assert search.heard.said[1:] == [("survey", "one thing"), ("survey", "another")]
        seen = Counter()
        while isinstance(job := plan.next_job(), LaneJob):
            plan.on_epoch(job.number, {"epoch": float(EPOCHS), "score": top(job), "seconds": 9.0})
            plan.on_end(job.number, JobResult())
            assert LaneJob.from_json(job.to_json()) == job
            seen[job.kind, job.frequencies, job.set_aside] += 1
        assert {key[1:] for key in seen if key[0] != JobKind.REFIT} == {((0.5, 0.3, 0.2), ("dim",))}
        assert {kind for kind, *_ in seen} >= {JobKind.PROBE, JobKind.BASELINE, JobKind.SEARCH, JobKind.CONFIRM}

    def test_what_it_sets_aside_is_not_searched(self, space: BoundSpace) -> None:
        search = Search(space, surveys=True, lanes=1, recipes=FixedRecipes({"scratch": BASELINES["scratch"]}))
        plan = search.plan
        first = plan.next_job()
        assert isinstance(first, LaneJob)
        plan.on_end(first.number, JobResult(survey=Survey((), {"bright": "its labels are wrong"})))
        search.play(rising)
        assert {job.strategy["source_model"] for job in search.jobs} == {MODEL}

    def test_that_fails_leaves_the_domains_as_they_are(self, space: BoundSpace) -> None:
        search = Search(space, surveys=True)
        search.play(lambda job: Curve(seconds=1.0, reason="no memory") if job.kind == JobKind.SURVEY else rising(job))
        assert search.plan.survey == Survey(("bright",))
        assert PRETRAINED in {record.strategy["source_model"] for record in search.records(JobKind.SEARCH)}


class TestFirstModel:
    def test_is_there_before_anything_is_trained_and_told_of_once(self, space: BoundSpace) -> None:
        search = Search(space, lanes=1, recipes=FixedRecipes(BASELINES, PROBES))
        search.play(rising)
        kinds = [job.kind for job in search.jobs]
        before = kinds[: kinds.index(JobKind.BASELINE)]
        # How long another source model and the race over the further folds take it does not wait for.
        assert before == [JobKind.PROBE, JobKind.REFIT, *[JobKind.PROBE] * 5]
        assert key(search.jobs[1]) == PROBE.key
        assert (
            search.heard.said.count((FIRST_MODEL, "2 s after the data was read"))
            == search.heard.phases.count(FIRST_MODEL)
            == 1
        )

    def test_gives_way_to_a_better_one(self, space: BoundSpace) -> None:
        probes = {"plain:pixels": [PIXELS], **PROBES, MODEL: [replace(PROBE, source_model=MODEL)]}
        best = {PIXELS.key: 0.1, PROBE.key: 0.2, probes[MODEL][0].key: 0.3}
        search = Search(space, lanes=1, recipes=FixedRecipes(BASELINES, probes), tested=False)
        search.play(lambda job: Curve(((best[key(job)], 1.0),)) if job.kind == JobKind.PROBE else rising(job))
        made = [key(job) for job in search.given(JobKind.REFIT) if key(job) in best]
        assert made == [PROBE.key, probes[MODEL][0].key]  # of plain pixels none, while something that learned waits
        assert search.heard.phases.count(FIRST_MODEL) == 1

    def test_waits_for_a_race_that_is_soon_over(self, space: BoundSpace) -> None:
        search = Search(space, lanes=1, recipes=FixedRecipes(BASELINES, {PRETRAINED: [PROBE]}))
        search.play(lambda job: Curve(((top(job), 0.1),)) if job.kind == JobKind.PROBE else rising(job))
        kinds = [job.kind for job in search.jobs]
        assert kinds[: kinds.index(JobKind.BASELINE)] == [JobKind.PROBE] * 3 + [JobKind.REFIT]

    def test_is_told_of_again_once_its_worth_is_known_better(self, space: BoundSpace) -> None:
        told: list[tuple[str, int]] = []
        search = Search(space, lanes=1, recipes=FixedRecipes(BASELINES, PROBES))
        plan = search.plan
        plan._first_model._keep = lambda made: str(told.append((made, len(plan.contest.completed(made)))))
        search.play(rising)
        assert told == [(PROBE.key, 1), (PROBE.key, 3)]

    def test_that_cannot_be_made_holds_up_nothing(self, space: BoundSpace) -> None:
        def curves(job: LaneJob) -> Curve:
            failed = job.kind == JobKind.REFIT and job.strategy["head"] == "logistic"
            return Curve(seconds=1.0, reason="disk full") if failed else rising(job)

        search = Search(space, recipes=FixedRecipes(BASELINES, PROBES))
        search.play(curves)
        assert FIRST_MODEL not in search.heard.phases
        assert search.plan.refits.failed == {PROBE.key: "disk full"}
        assert search.plan.winner() in search.plan.refits.done

    def test_that_wins_is_not_made_twice(self, space: BoundSpace) -> None:
        best = {PROBE.key: 2.0}
        search = Search(space, recipes=FixedRecipes(BASELINES, PROBES), tested=False)
        search.play(lambda job: Curve(((best.get(key(job), 0.0) + rising(job).epochs[-1][0], 1.0),)))
        assert search.plan.winner() == PROBE.key
        assert [key(job) for job in search.given(JobKind.REFIT)] == [PROBE.key]


class TestControls:
    def test_are_tried_on_the_winners_folds_where_there_is_no_test_split(self, space: BoundSpace) -> None:
        """After all that could change the winner, fold by fold, and as many folds as they may be tried on."""
        search = Search(space, tested=False, recipes=FixedRecipes(BASELINES, {}, WITHOUT), folds_once=2)
        search.play(rising)
        given = search.given(JobKind.CONTROL)
        assert [(job.baseline, job.fold) for job in given] == [(c.name, fold) for fold in (0, 1) for c in WITHOUT]
        before = [job.kind for job in search.jobs[: search.jobs.index(given[0])]]
        assert set(before) == {JobKind.BASELINE, JobKind.SEARCH, JobKind.CONFIRM}
        assert len(before) == len(search.jobs) - len(given) - 1  # what is left is the winner's refit
        assert [record.baseline for record in search.records(JobKind.CONTROL)] == [job.baseline for job in given]

    def test_never_win_however_good(self, space: BoundSpace) -> None:
        search = Search(space, tested=False, recipes=FixedRecipes(BASELINES, {}, WITHOUT))
        search.play(lambda job: flat(9.0) if job.kind == JobKind.CONTROL else rising(job))
        assert search.plan.winner() not in {control.strategy.key for control in WITHOUT}
        assert search.given(JobKind.CONTROL)

    def test_are_refitted_where_there_is_a_test_split_the_winner_first(self, space: BoundSpace) -> None:
        search = Search(space, lanes=1, recipes=FixedRecipes({}, {}, WITHOUT))
        search.play(rising)
        assert not search.given(JobKind.CONTROL)
        refits = [(job.baseline, key(job)) for job in search.given(JobKind.REFIT)]
        assert refits == [(None, search.plan.winner()), *((c.name, c.strategy.key) for c in WITHOUT)]

    def test_are_the_winners_also_where_another_one_could_not_be_refitted(self, space: BoundSpace) -> None:
        class OfTheWinner(FixedRecipes):
            def controls(self, winner: Strategy, order: Any, survey: Any) -> list[Control]:
                return [Control("without a part", "freezing", replace(winner, ema=0.5))]

        failed: list[str] = []

        def curves(job: LaneJob) -> Curve:
            if job.kind == JobKind.REFIT and not failed:
                failed.append(key(job))
                return Curve(seconds=1.0, reason="no memory")
            return rising(job)

        search = Search(space, tested=False, recipes=OfTheWinner(BASELINES))
        search.play(curves)
        winner = search.plan.winner()
        assert winner is not None and winner not in failed
        (control,) = search.plan.controls
        assert replace(control.strategy, ema=0.0).key == winner

    def test_that_were_tried_anyway_are_not_tried_again(self, space: BoundSpace) -> None:
        given = (Control("a baseline", "freezing", BASELINES["scratch"]),)
        search = Search(space, tested=False, folds=1, recipes=FixedRecipes(BASELINES, {}, given))
        search.play(rising)
        assert not search.given(JobKind.CONTROL)


class TestTime:
    @pytest.mark.parametrize(("budget_s", "begun"), [(60.0, False), (90.0, True)])
    def test_a_baseline_is_begun_where_it_can_also_be_refitted(
        self, space: BoundSpace, budget_s: float, begun: bool
    ) -> None:
        """A training takes 39 s."""

        def curves(job: LaneJob) -> Curve:
            if job.kind == JobKind.PROBE:
                return replace(rising(job), result=JobResult(forward_s=(0.01,), step_s=0.03))
            return flat(0.9, 39.0 / EPOCHS) if job.strategy["head"] == "linear" else rising(job)

        recipes = FixedRecipes({"fine-tune": BASELINES["fine-tune"]}, PROBES)
        settings = {"passes": lambda strategy, frozen: Passes(0.0, 1000.0), "time_budget_s": budget_s}
        search = Search(space, lanes=1, trials=1, folds=1, tested=False, recipes=recipes, **settings)
        search.play(curves)
        assert bool(search.given(JobKind.BASELINE)) is begun
        assert search.clock.now <= budget_s + 1

    def test_is_kept_for_controls_as_long_as_the_leader_takes(self, space: BoundSpace) -> None:
        search = Search(space)
        search.play(rising)
        (leader,) = search.plan.contest.leaders(1)
        took = max(record.seconds for record in search.plan.contest.completed(leader))
        assert trial_seconds(search.plan._time._leaders_trials()) == took > 0

    def test_is_kept_for_a_head_that_leads_as_what_it_takes_once_its_features_are_made(self, space: BoundSpace) -> None:
        plan = Search(space, folds=4).plan
        head = TrialRecord(0, JobKind.PROBE, PROBE.to_dict(), PROBE.key, fold=0, status=TrialStatus.COMPLETED)
        head.score, head.seconds, head.made_s = 0.9, 20.0, 16.0
        plan.records.append(head)
        assert trial_seconds(plan._time._leaders_trials()) == pytest.approx(4.0)
        assert plan._confirm_seconds() == pytest.approx(3 * 4.0 + 3 * 20.0)  # and one that may join


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

    def test_nobody_is_stopped_who_is_ahead_of_one_that_would_be_confirmed(self, space: BoundSpace) -> None:
        """The second of three of its kind, say, at nearly the end of its training."""
        search = Search(space, trials=40)
        search.play(rising)
        pruned = [record for record in search.plan.records if record.status == TrialStatus.PRUNED]
        assert pruned
        for record in pruned:
            assert record.ended is not None and record.score is not None
            ended = {
                other.strategy_key: other.score
                for other in search.plan.records
                if other.status == TrialStatus.COMPLETED and other.fold == 0 and other.ended < record.ended
            }
            assert len(ended) < CONFIRMED or record.score <= sorted(ended.values())[-CONFIRMED]

    def test_a_trial_whose_lane_died_is_started_again_and_counts_once(self, space: BoundSpace) -> None:
        search = Search(space, trials=1)
        plan = search.plan
        plan.next_job()
        job = plan.next_job()
        assert isinstance(job, LaneJob) and job.kind == JobKind.SEARCH
        for epoch in (1, 2, 3, 1, 2, 3, 4):  # dies after the third
            assert plan.on_epoch(job.number, {"epoch": float(epoch), "score": 0.1 * epoch, "seconds": 1.0})
        assert {rung: sum(map(len, kinds.values())) for rung, kinds in search.halving.rungs.items()} == {1: 1, 3: 1}
        assert [entry["epoch"] for entry in plan.records[-1].history] == [1.0, 2.0, 3.0, 4.0]
        plan.on_end(job.number, None)
        assert search.sampler._study.trials[0].intermediate_values == pytest.approx({1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4})


class TestFailures:
    def test_where_all_fail_time_alone_does_not_keep_the_search_going(self, space: BoundSpace) -> None:
        search = Search(space, trials=10**6, time_budget_s=60.0, recipes=FixedRecipes(BASELINES, PROBES))

        def fails(job: LaneJob) -> Curve:
            trains = job.kind in (JobKind.SEARCH, JobKind.BASELINE, JobKind.CONTROL)
            return Curve(seconds=0.1, reason="ValueError: mine") if trains else rising(job)

        search.play(fails)
        assert 0 < len(search.records(JobKind.SEARCH)) < 40 and search.plan.winner() is not None

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
        assert sum(e.what == "start" and e.job.kind == JobKind.CONFIRM for e in events) == 8
        assert search.plan.finished() and search.plan.winner() in search.plan.refits.done

    def test_a_failed_refit_makes_the_next_best_the_winner(self, space: BoundSpace) -> None:
        search = Search(space)
        first: list[str] = []

        def curves(job: LaneJob) -> Curve:
            if job.kind == JobKind.REFIT and job.baseline is None and not first:
                first.append(key(job))
                return Curve(seconds=1.0, reason="out of memory")
            return rising(job)

        search.play(curves)
        scores = {
            record.strategy_key: record.score or 0.0
            for record in search.plan.records
            if record.status == TrialStatus.COMPLETED and record.fold == 2
        }
        ranking = sorted(scores, key=scores.__getitem__, reverse=True)
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

    def test_a_trial_is_given_up_in_time_for_the_refit_of_what_leads(self, space: BoundSpace) -> None:
        """Of 100 s ten are kept for judging the model, and what leads takes 2 s once more."""
        search = Search(space, lanes=1, trials=0, time_budget_s=100.0, recipes=FixedRecipes({}, PROBES))
        seen = []
        while isinstance(job := search.plan.next_job(), LaneJob):
            seen.append(job)
            if job.kind == JobKind.PROBE:
                search.plan.on_epoch(job.number, {"epoch": 1.0, "score": 0.5, "seconds": 2.0})
            search.clock.now += 2.0
            search.plan.on_end(job.number, JobResult(seconds=2.0))
        timed = [(number, job.within_s) for number, job in enumerate(seen) if job.within_s is not None]
        assert timed and all(within_s == pytest.approx(100 - 10 - 2 * number - 2) for number, within_s in timed)

    @pytest.mark.parametrize("looked", [True, False])
    def test_a_refit_looks_at_what_its_trials_looked_at(self, space: BoundSpace, looked: bool) -> None:
        search = Search(space, lanes=1, trials=0, recipes=FixedRecipes({}, {PRETRAINED: [PROBE]}))
        answers = (0.5, 0.5) if looked else ()
        search.play(lambda job: Curve(((0.5, 1.0),), result=JobResult(answers=answers)))
        refits = search.given(JobKind.REFIT)
        assert refits and all(job.looks == looked for job in refits)

    def test_a_trial_that_the_clock_cut_short_is_interrupted_not_pruned(self, space: BoundSpace) -> None:
        search = Search(space, trials=10_000, lanes=2, time_budget_s=200.0)

        def curves(job: LaneJob) -> Curve:  # all alike, so that halving stops none
            return Curve(tuple((0.5, 2.0 * epoch) for epoch in range(1, search.plan.settings.epochs + 1)))

        search.play(curves)
        statuses = Counter(record.status for record in search.records(JobKind.SEARCH))
        assert set(statuses) == {TrialStatus.COMPLETED, TrialStatus.INTERRUPTED}
        assert 1 <= statuses[TrialStatus.INTERRUPTED] <= 2

    def test_where_a_head_leads_no_time_is_kept_for_the_refit_of_a_long_training_that_lost(
        self, space: BoundSpace
    ) -> None:
        """Its two minutes, and the leaders' on further folds, were left of a quarter of an hour."""
        search = Search(
            space, lanes=1, folds=3, trials=10_000, time_budget_s=300.0, recipes=FixedRecipes(BASELINES, PROBES)
        )

        def curves(job: LaneJob) -> Curve:
            if job.strategy and job.strategy["head"] == "logistic":
                return flat(0.95 if job.strategy["source_model"] == PRETRAINED else 0.9, 1.0 / EPOCHS)
            return (
                flat(0.3, 60.0 / EPOCHS)
                if job.kind == JobKind.BASELINE and job.baseline == "fine-tune"
                else rising(job)
            )

        events = search.play(curves)
        assert search.plan.winner() == PROBE.key
        assert events[-1].time_s > 210.0

    def test_time_that_is_left_because_no_training_fits_is_said_to_be(self, space: BoundSpace) -> None:
        recipes = FixedRecipes({"fine-tune": BASELINES["fine-tune"]}, PROBES)
        search = Search(space, lanes=1, trials=0, time_budget_s=200.0, recipes=recipes)

        def curves(job: LaneJob) -> Curve:  # nobody knows that a training takes ten minutes before its first epoch ends
            return rising(job) if job.kind in (JobKind.PROBE, JobKind.REFIT) else flat(0.9, epoch_s=600.0 / EPOCHS)

        search.play(curves)
        said = [detail for phase, detail in search.heard.said if phase == TIME]
        assert len(said) == 1 and "expected to take 10 min" in said[0] and "--time-budget" in said[0]

    def test_no_budget_is_too_small_for_a_model(self, space: BoundSpace) -> None:
        search = Search(space, time_budget_s=0.5, recipes=FixedRecipes(BASELINES, PROBES))
        search.play(rising)
        assert search.plan.winner() == PROBE.key
        assert list(search.plan.refits.done) == [PROBE.key]

    def test_probes_take_no_more_than_their_share_of_a_budget(self, space: BoundSpace) -> None:
        """They are tried on no further folds, so that something is trained as well."""
        search = Search(space, lanes=1, trials=100, time_budget_s=80.0, recipes=FixedRecipes(BASELINES, PROBES))

        def curves(job: LaneJob) -> Curve:
            return Curve(((top(job), 13.0),)) if job.kind == JobKind.PROBE else rising(job)

        search.play(curves)
        trained = search.given(JobKind.BASELINE, JobKind.SEARCH)
        probes = search.given(JobKind.PROBE)
        assert [job.fold for job in probes if job.number < trained[0].number] == [0, 0]
        # What no training fits into any more is theirs again.
        assert {job.fold for job in probes if job.number > trained[-1].number} <= {1, 2, 3, 4}

    def test_what_the_leading_probe_is_worth_is_told_by_all_folds_where_these_are_cheap(
        self, space: BoundSpace
    ) -> None:
        """What takes its time is making the features, which on the other folds are there already."""
        passes = Passes(10.0, 10.0)
        search = Search(
            space, lanes=1, time_budget_s=80.0, recipes=FixedRecipes({}, PROBES), passes=lambda strategy, frozen: passes
        )
        probes = []
        while isinstance(job := search.plan.next_job(), LaneJob) and job.kind in (JobKind.PROBE, JobKind.REFIT):
            seconds = 2.0 if job.fold else 13.0
            search.clock.now += seconds
            if job.kind == JobKind.PROBE:
                probes.append((key(job), job.fold))
                search.plan.on_epoch(job.number, {"epoch": 1.0, "score": top(job), "seconds": seconds})
            search.plan.on_end(job.number, JobResult(seconds=seconds, forward_s=(1.2,)))
        assert [fold for _, fold in probes[:4]] == [0, 0, 1, 2]
        assert len({of for of, _ in probes[2:4]}) == 1

    def test_the_first_training_takes_what_is_left_beside_its_refit(self, space: BoundSpace) -> None:
        """Of a head on frozen features the controls are such trainings: time kept for them would be left in the end."""
        passes, recipes = Passes(10.0, 0.0), FixedRecipes(BASELINES, {PRETRAINED: [PROBE]})
        search = Search(
            space, lanes=1, folds=1, trials=0, time_budget_s=38.0, recipes=recipes,
            passes=lambda strategy, frozen: passes,
        )  # fmt: skip
        trained = []
        while isinstance(job := search.plan.next_job(), LaneJob):
            seconds = 6.0 if job.kind == JobKind.PROBE else 1.0
            if job.kind == JobKind.BASELINE:  # expected to take 13 s, its refit as long, of the 31 s that are left
                trained.append(search.plan.baselines[job.baseline or ""])
                seconds = 13.0
            search.clock.now += seconds
            if job.kind != JobKind.REFIT:
                search.plan.on_epoch(job.number, {"epoch": float(EPOCHS), "score": 0.5, "seconds": seconds})
            search.plan.on_end(job.number, JobResult(seconds=seconds, forward_s=(1.0,)))
        assert len(trained) == 1 and search.clock.now <= 38.0

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


class TestYardstick:
    @pytest.mark.parametrize(("budget_s", "kept_s"), [(60.0, 0.0), (400.0, 40.0)])
    def test_a_tenth_of_the_time_is_kept_for_it_unless_that_is_too_little(
        self, space: BoundSpace, budget_s: float, kept_s: float
    ) -> None:
        search = Search(space, lanes=1, trials=10_000, time_budget_s=budget_s, recipes=FixedRecipes(BASELINES, PROBES))
        assert search.plan._time.left() == budget_s - kept_s
        events = search.play(lambda job: flat(0.5, 1.0))
        assert 0.7 * budget_s < events[-1].time_s <= budget_s - kept_s

    @pytest.mark.parametrize(("budget_s", "kept_s"), [(20.0, 4.0), (60.0, 10.0), (400.0, 40.0)])
    def test_where_it_tells_of_unlabelled_images_it_is_worth_more_of_a_short_time(
        self, space: BoundSpace, budget_s: float, kept_s: float
    ) -> None:
        """A minute's model was 100 % right by cross-validation and 54 % where it was to be used: nobody was told."""
        plan = Search(space, lanes=1, time_budget_s=budget_s, judged=True).plan
        assert plan._time.left() == budget_s - kept_s


class TestShippingAll:
    def test_what_all_images_take_through_the_network_anew_is_kept_of_the_time(self, space: BoundSpace) -> None:
        def left(**settings: int) -> float:
            search = Search(space, lanes=1, time_budget_s=60.0, recipes=FixedRecipes(BASELINES, PROBES), **settings)
            job = search.plan.next_job()
            assert isinstance(job, LaneJob) and job.kind == JobKind.PROBE
            search.plan.on_epoch(job.number, {"epoch": 1.0, "score": 0.5, "seconds": 1.0})
            search.plan.on_end(job.number, JobResult(seconds=1.0, forward_s=(0.004, 0.006)))
            return search.plan._time.left()

        plain = left(test_images=100)
        assert plain - left(test_images=100, refits=2, shipped_images=500) == pytest.approx(500 * 0.01)


class TestConfirmation:
    def test_who_was_lucky_on_one_fold_loses_to_who_holds_on_several(self, space: BoundSpace) -> None:
        lucky, steady = BASELINES["fine-tune"].key, BASELINES["scratch"].key

        def curves(job: LaneJob) -> Curve:
            luck = {lucky: 0.4 if job.fold == 0 else -0.4, steady: 0.3}
            return flat(0.5 + luck.get(key(job), 0.0))

        search = Search(space, trials=8)
        search.play(curves)
        assert search.plan.winner() == steady
        assert [record.fold for record in search.plan.contest.completed(steady)] == [0, 1, 2]

    def test_a_leader_that_comes_late_is_confirmed_too(self, space: BoundSpace) -> None:
        """The best trial ends when the others' confirmations are long done."""
        late: list[str] = []

        def curves(job: LaneJob) -> Curve:
            slow = job.kind == JobKind.SEARCH and job.number == 3
            if slow:
                late.append(key(job))
            return flat(0.9 if key(job) in late else 0.5, 100.0 if slow else 1.0)

        search = Search(space, trials=6)
        search.play(curves)
        assert search.plan.winner() == late[0]
        assert [record.fold for record in search.plan.contest.completed(late[0])] == [0, 1, 2]

    def test_goes_fold_by_fold_the_best_first(self, space: BoundSpace) -> None:
        search = Search(space, lanes=1, trials=6)
        search.play(rising)
        given = search.given(JobKind.CONFIRM)
        assert [job.fold for job in given] == [1] * 4 + [2] * 4
        tops = [top(job) for job in given[:4]]
        assert tops == sorted(tops, reverse=True)
        assert [key(job) for job in given[4:]] == [key(job) for job in given[:4]]
