"""Going on with an interrupted search: nothing that ended runs again, and what was learned is known."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import virtual
from optuna.trial import TrialState
from recorded import FixedRecipes
from tiny import MODEL, STAGES, data
from virtual import EPOCHS, key

from raytl.search.jobs import JobKind, LaneJob
from raytl.search.plan.ledger import EARLIER, OTHER
from raytl.search.plan.schedule import SearchPlan
from raytl.search.plan.settings import Wait
from raytl.search.plan.simulation import Curve, simulate
from raytl.search.propose.recipes import Control
from raytl.search.records import TrialRecord, TrialStatus
from raytl.search.space.binding import BoundSpace
from raytl.search.space.choices import FirstChoices
from raytl.search.space.definition import load_space
from raytl.sources.manifest import MANIFEST_FILE
from raytl.training import Strategy

TRIALS = 14
SPACE = f"""
epochs: {EPOCHS}
space:
  source_model: [{MODEL}]
  head_lr: {{low: 0.001, high: 1.0, log: true}}
  adaptation: [none, mcc]
"""
BASELINES = {"fine-tune": Strategy(MODEL, head_lr=0.01), "scratch": Strategy(MODEL, head_lr=0.02)}
PROBES = {uri: [Strategy(uri, cut=STAGES, head="logistic")] for uri in (MODEL, "plain:pixels")}
CONTROLS = (Control("without augmentation", "augmentation", Strategy(MODEL, head_lr=0.06, ema=0.5)),)
ENDED = (TrialStatus.COMPLETED, TrialStatus.PRUNED, TrialStatus.FAILED)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> BoundSpace:
    file = tmp_path_factory.mktemp("space") / "resume.yaml"
    file.write_text(SPACE)
    return BoundSpace(load_space(str(file)), data())


class Search(virtual.Search):
    def __init__(self, space: BoundSpace, **settings: Any) -> None:
        recipes = FixedRecipes(BASELINES, PROBES, CONTROLS)
        super().__init__(space, recipes=recipes, **({"trials": TRIALS, "tested": False} | settings))

    def curve(self, job: LaneJob) -> Curve:
        rate = float(job.strategy["head_lr"])
        if job.strategy["head"] == "logistic":
            return Curve(((0.3 + 0.01 * (job.strategy["source_model"] == MODEL), 1.0),))
        if rate > 0.5:
            return Curve(seconds=1.0, reason="the loss stopped being finite")
        top = 0.9 - abs(rate - 0.05) - 0.01 * (job.fold or 0)
        return Curve(tuple((top - 0.02 * (EPOCHS - epoch), float(epoch)) for epoch in range(1, EPOCHS + 1)))

    def end(self) -> SearchPlan:
        self.play(self.curve)
        return self.plan


def begun(search: Search) -> None:
    """Ask for the first model, and for what comes after it: now all that was known is."""
    for _ in range(2):
        search.plan.next_job()


def interrupted_after(space: BoundSpace, jobs: int) -> list[TrialRecord]:
    """The records of a search whose process was killed when it had started so many jobs."""

    class KilledError(Exception):
        pass

    search = Search(space)

    def curve(job: LaneJob) -> Curve:
        search.jobs.append(job)
        if len(search.jobs) > jobs:
            raise KilledError
        return search.curve(job)

    with pytest.raises(KilledError):
        simulate(search.plan, curve, search.clock, lanes=2)
    return copy.deepcopy(search.plan.records)


@pytest.mark.parametrize("jobs", [1, 2, 5, 8, 16, 24, 31, 33])
class TestWhereverItWasKilled:
    def test_no_trial_that_ended_runs_again(self, space: BoundSpace, jobs: int) -> None:
        before = interrupted_after(space, jobs)
        done = {(record.strategy_key, record.fold) for record in before if record.status in ENDED}
        search = Search(space)
        search.plan.restore(before)
        search.end()
        started = [(key(job), job.fold) for job in search.jobs if job.kind != JobKind.REFIT]
        assert not done & set(started)
        assert max(Counter(started).values()) == 1

    def test_the_search_ends_with_all_its_trials(self, space: BoundSpace, jobs: int) -> None:
        search = Search(space)
        search.plan.restore(interrupted_after(space, jobs))
        plan = search.end()
        assert plan.finished() and plan.winner() in plan.refits.done
        assert [record.number for record in plan.records] == list(range(len(plan.records)))
        ended = [record for record in plan.records if record.status in ENDED]
        kinds = Counter(record.kind for record in ended)
        assert (kinds[JobKind.PROBE], kinds[JobKind.BASELINE], kinds[JobKind.SEARCH]) == (6, 2, TRIALS)
        assert (kinds[JobKind.CONFIRM], kinds[JobKind.CONTROL]) == (8, 3)


def test_models_that_an_earlier_session_left_are_not_made_again(space: BoundSpace, tmp_path: Path) -> None:
    before = interrupted_after(space, 33)  # all but the refits
    undisturbed = Search(space, directory=tmp_path / "refits")
    undisturbed.plan.restore(copy.deepcopy(before))
    winner = undisturbed.end().winner()
    for name, file in ((winner, MANIFEST_FILE), ("half", "model.safetensors"), (f".{PROBES[MODEL][0].key}", "any")):
        (tmp_path / "refits" / str(name)).mkdir(parents=True)
        (tmp_path / "refits" / str(name) / file).touch()
    search = Search(space, directory=tmp_path / "refits")
    search.plan.restore(before)
    plan = search.end()
    made = [key(job) for job in search.jobs if job.kind == JobKind.REFIT]
    again = [key(job) for job in undisturbed.jobs if job.kind == JobKind.REFIT]
    assert winner in again and [name for name in again if name != winner] == made
    assert plan.winner() == winner and plan.refits.done[winner] == str(tmp_path / "refits" / winner)


def test_what_was_under_way_is_tried_first(space: BoundSpace) -> None:
    before = interrupted_after(space, 14)
    cut_off = [r.strategy_key for r in before if r.kind == JobKind.SEARCH and r.status == TrialStatus.RUNNING]
    assert cut_off
    search = Search(space)
    search.plan.restore(before)
    first_model = search.plan.next_job()
    assert isinstance(first_model, LaneJob) and first_model.kind == JobKind.REFIT
    given = [job for job in (search.plan.next_job() for _ in range(4)) if isinstance(job, LaneJob)]
    assert [key(job) for job in given if job.kind == JobKind.SEARCH][: len(cut_off)] == cut_off
    assert all(before[r.number].status == TrialStatus.INTERRUPTED for r in before if r.strategy_key in cut_off)


def test_the_sampler_and_the_rungs_know_what_they_knew(space: BoundSpace) -> None:
    first, resumed = Search(space), Search(space)
    first.end()
    resumed.plan.restore(copy.deepcopy(first.plan.records))
    begun(resumed)
    told = [
        {
            (tuple(sorted(t.params.items())), t.state, t.value, tuple(t.intermediate_values.items()))
            for t in study.trials
        }
        for study in (first.sampler._study, resumed.sampler._study)
    ]
    assert told[0] == told[1]
    assert {trial.state for trial in resumed.sampler._study.trials} >= {TrialState.COMPLETE, TrialState.PRUNED}
    known = [
        {rung: {kind: sorted(scores) for kind, scores in kinds.items()} for rung, kinds in search.halving.rungs.items()}
        for search in (first, resumed)
    ]
    assert known[0] == known[1] and all(known[0].values())


def test_a_search_that_had_ended_only_refits(space: BoundSpace) -> None:
    first, resumed = Search(space), Search(space)
    records = copy.deepcopy(first.end().records)
    resumed.plan.restore(records)
    plan = resumed.end()
    assert {job.kind for job in resumed.jobs} == {JobKind.REFIT}
    assert plan.winner() == first.plan.winner()


def test_fewer_trials_than_there_were_make_a_model_of_the_best_so_far(space: BoundSpace) -> None:
    before = interrupted_after(space, 14)
    best = max((r for r in before if r.status == TrialStatus.COMPLETED), key=lambda r: r.score or 0.0)
    search = Search(space, trials=1, folds=1)
    search.plan.restore(before)
    plan = search.end()
    assert not [job for job in search.jobs if job.kind == JobKind.SEARCH]
    assert plan.winner() == best.strategy_key and best.strategy_key in plan.refits.done


class Told:
    """Keeps what is said of strategies that were asked for by hand."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def on_trial(self, record: TrialRecord) -> None:
        pass

    def on_phase(self, phase: str, detail: str) -> None:
        if phase == "by-hand":
            self.said.append(detail)


def test_a_strategy_asked_for_by_hand_is_tried_next_and_beyond_the_others(space: BoundSpace) -> None:
    search, told = Search(space), Told()
    search.plan.by_hand._listener = told
    wanted = space.suggest(FirstChoices({"source_model": MODEL, "head_lr": 0.0456, "adaptation": "none"}))
    foreign = Strategy(MODEL, head_lr=50.0)
    given: list[LaneJob] = []

    def curve(job: LaneJob) -> Curve:
        given.append(job)
        searched = [one for one in given if one.kind == JobKind.SEARCH]
        if len(searched) == 4 and job.kind == JobKind.SEARCH:
            asked = {"1": wanted.to_dict(), "2": foreign.to_dict(), "3": job.strategy}
            assert search.plan.by_hand.take(asked) and not search.plan.by_hand.take(asked)
        return search.curve(job)

    simulate(search.plan, curve, search.clock, lanes=1)
    searched = [key(job) for job in given if job.kind == JobKind.SEARCH]
    assert searched[4] == wanted.key and len(searched) == TRIALS + 1
    assert told.said[0] == f"asked for by hand, tried next: {MODEL}, cut 0"
    assert "not in what is searched over" in told.said[1] and "tries that or did" in told.said[2]


def test_what_was_asked_for_takes_nothing_from_a_search_that_is_gone_on_with(space: BoundSpace) -> None:
    search = Search(space)
    wanted = space.suggest(FirstChoices({"source_model": MODEL, "head_lr": 0.0456, "adaptation": "none"}))

    def curve(job: LaneJob) -> Curve:
        if job.kind == JobKind.SEARCH:
            search.plan.by_hand.take({"1": wanted.to_dict()})
        return search.curve(job)

    simulate(search.plan, curve, search.clock, lanes=1)
    records = copy.deepcopy(search.plan.records)
    cut = next(n for n, record in enumerate(records) if record.asked) + 1
    again = Search(space)
    again.plan.restore(records[:cut])
    tried = [record for record in again.end().records if record.kind == JobKind.SEARCH]
    assert len(tried) == TRIALS + 1


def test_a_strategy_asked_for_once_the_choice_is_made_is_not_tried(space: BoundSpace) -> None:
    search, told = Search(space), Told()
    search.plan.by_hand._listener = told
    wanted = space.suggest(FirstChoices({"source_model": MODEL, "head_lr": 0.0456, "adaptation": "none"}))
    given: list[LaneJob] = []

    def curve(job: LaneJob) -> Curve:
        given.append(job)
        if job.kind == JobKind.CONTROL:
            search.plan.by_hand.take({"1": wanted.to_dict()})
        return search.curve(job)

    simulate(search.plan, curve, search.clock, lanes=1)
    assert wanted.key not in [key(job) for job in given]
    assert "the choice is made already" in told.said[0] and len(told.said) == 1


def test_patience_counts_from_before_the_interruption(space: BoundSpace) -> None:
    records = copy.deepcopy(Search(space).end().records)
    best = max((r.number for r in records if r.kind == JobKind.SEARCH), key=lambda n: records[n].score or 0.0)
    since = sum(r.number > best for r in records if r.kind == JobKind.SEARCH)
    for patience, over in ((max(since, 1), since > 0), (since + 1, False)):
        search = Search(space, trials=TRIALS + 20, patience=patience)
        search.plan.restore(copy.deepcopy(records))
        rest = simulate(search.plan, search.curve, search.clock, lanes=1)
        assert any(event.job.kind == JobKind.SEARCH for event in rest) is not over


def test_a_search_stops_when_another_trial_brings_too_little(space: BoundSpace) -> None:
    """Sooner the more is asked for, and with nearly the best that the whole search finds."""
    found = {}
    for min_gain in (None, 1e-3, 5e-3):
        search = Search(space, trials=60, folds=1, min_gain=min_gain)
        plan = search.end()
        tried = [record for record in plan.records if record.kind == JobKind.SEARCH]
        found[min_gain] = len(tried), max(record.score or 0.0 for record in tried)
    assert 60 == found[None][0] > found[1e-3][0] > found[5e-3][0]
    assert found[None][1] - found[5e-3][1] < 0.02


def test_all_that_was_there_is_heard(space: BoundSpace) -> None:
    before = interrupted_after(space, 8)
    search = Search(space)
    search.plan.restore(before)
    assert [number for number, _ in search.heard.trials] == [record.number for record in before]
    assert not isinstance(search.plan.next_job(), Wait)


def test_what_an_earlier_raytl_tried_as_another_strategy_is_tried_anew(space: BoundSpace) -> None:
    """Its records kept the key of then: they won, and the winner was refitted over and over under the key of today."""
    first = Search(space)
    first.play(first.curve)
    records = copy.deepcopy(first.plan.records)
    leader = first.plan.winner()
    for record in records:
        if record.strategy_key == leader or record.kind == JobKind.PROBE:
            record.strategy_key = f"then {record.strategy_key}"
    again = Search(space)
    again.plan.restore(records)
    then = [record for record in records if record.strategy_key.startswith("then")]
    assert {record.reason for record in then} == {OTHER}
    assert [said.split()[0] for phase, said in again.heard.said if phase == EARLIER] == [str(len(then))]
    again.play(again.curve)
    refits = [job for job in again.jobs if job.kind == JobKind.REFIT]
    assert len(refits) == len({key(job) for job in refits}) <= 3
    winner = again.plan.winner()
    assert winner is not None and not winner.startswith("then")
    assert {job.strategy["source_model"] for job in again.given(JobKind.PROBE)} == set(PROBES)
