"""What lanes without a GPU do beside those that have one, in virtual time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from recorded import FixedRecipes
from tiny import MODEL, STAGES, data
from virtual import BASELINES, PIXELS, PROBE, PROBES, SPACE, Search, rising

from raytl.search.jobs import JobKind, JobResult, LaneJob, times_forward, times_step
from raytl.search.plan.head_work import HeadWork
from raytl.search.plan.simulation import NODE, Curve, Event
from raytl.search.propose.recipes import Control
from raytl.search.space.binding import BoundSpace
from raytl.search.space.definition import load_space
from raytl.training import Strategy

OTHER = Strategy(MODEL, cut=STAGES, head="logistic")
WITHOUT = tuple(
    Control(name, "source-model", replace(head, class_weights="balanced"))
    for name, head in (("on pixels", PIXELS), ("on frozen features", PROBE))
)


@pytest.fixture
def space(tmp_path: Path) -> BoundSpace:
    path = tmp_path / "plan.yaml"
    path.write_text(SPACE)
    return BoundSpace(load_space(str(path)), data())


def dear_heads(job: LaneJob) -> Curve:
    """A head takes as long as three epochs of a training."""
    curve = rising(job)
    return Curve(((curve.epochs[0][0], 3.0),)) if job.strategy.get("head") == "logistic" else curve


def played(space: BoundSpace, lanes: int, heads: int, **settings: object) -> tuple[Search, list[Event]]:
    recipes = FixedRecipes(BASELINES, {**PROBES, MODEL: [OTHER]}, WITHOUT)
    search = Search(space, recipes=recipes, lanes=lanes, trials=6, **settings)
    return search, search.play(dear_heads, heads)


def scores(search: Search) -> dict[tuple[str, int], float | None]:
    return {(r.strategy_key, r.fold): r.score for r in search.records(JobKind.PROBE)}


@pytest.mark.parametrize("tested", [True, False])
@pytest.mark.parametrize("lanes", [1, 2])
def test_heads_are_done_beside_the_trainings_and_the_search_ends_sooner(
    space: BoundSpace, lanes: int, tested: bool
) -> None:
    alone, _ = played(space, lanes, 0, tested=tested)
    search, events = played(space, lanes, 1, tested=tested)
    beside = [event.job for event in events if event.what == "start" and event.lane >= lanes]
    assert {job.kind for job in beside} >= {JobKind.PROBE} and len(beside) >= 5
    for job in beside:
        strategy = Strategy.from_dict(job.strategy)
        assert strategy.convex
        if strategy.source_model == PIXELS.source_model:
            assert job.features_of == ""
        else:
            assert job.features_of == "cuda"
            assert not times_forward(job.kind, job.fold) and not times_step(job.kind, strategy.head, job.fold)
    assert scores(search) == scores(alone)
    assert search.plan.winner() == alone.plan.winner() and search.plan.finished()
    assert set(search.plan.refits.done) >= set(alone.plan.refits.done)
    assert search.clock.now < alone.clock.now


@pytest.mark.parametrize("lanes", [1, 2])
def test_nothing_is_held_against_its_controls_before_what_leads_was_confirmed(space: BoundSpace, lanes: int) -> None:
    search, _ = played(space, lanes, 1, tested=False)
    kinds = [job.kind for job in search.jobs]
    assert kinds.count(JobKind.CONFIRM) and kinds.count(JobKind.CONTROL)
    first, last = kinds.index(JobKind.CONTROL), len(kinds) - kinds[::-1].index(JobKind.CONFIRM)
    assert last <= first


def test_lanes_that_are_all_alike_are_given_what_they_were(space: BoundSpace) -> None:
    search, _ = played(space, 2, 0)
    assert not any(job.features_of for job in search.jobs)
    assert search.plan.next_head(NODE) is None


def test_a_model_is_made_by_whoever_is_free(space: BoundSpace) -> None:
    _, events = played(space, 1, 1)
    first = next(event for event in events if event.job.kind == JobKind.REFIT and event.what == "start")
    probed = [event.time_s for event in events if event.job.kind == JobKind.PROBE and event.what == "end"]
    assert first.time_s in probed


def test_a_lane_with_a_gpu_has_heads_where_nothing_else_is_due(space: BoundSpace) -> None:
    """It would only wait for them."""
    search = Search(space, recipes=FixedRecipes({}, PROBES), trials=0, trains=False)
    search.plan.head_work.nodes.add(NODE)
    given = [search.plan.next_job() for _ in range(2)]
    assert [Strategy.from_dict(job.strategy) for job in given if isinstance(job, LaneJob)] == [PROBE, PIXELS]


class TestWhichJobs:
    """job: of a network's head; its features are on node a."""

    def job(self, **changes: object) -> LaneJob:
        return replace(LaneJob(7, JobKind.PROBE, PROBE.to_dict(), 0), **changes)

    def work(self, **result: object) -> HeadWork:
        work = HeadWork(few=True)
        work.ended(self.job(), JobResult(**({"lane": "a-1", "device": "cuda"} | result)))
        return work

    def test_those_whose_features_are_on_the_node(self) -> None:
        work = self.work()
        assert work.suits("a", JobKind.CONFIRM, PROBE, 1) and work.device_of("a", PROBE) == "cuda"
        assert not work.suits("b", JobKind.CONFIRM, PROBE, 1)
        assert not work.suits("a", JobKind.CONFIRM, replace(PROBE, source_domain="bright"), 1)
        assert work.suits("a", JobKind.CONFIRM, replace(PROBE, head="stages"), 1)
        assert not self.work(reason="no memory").suits("a", JobKind.CONFIRM, PROBE, 1)

    def test_what_the_driver_made_is_on_the_only_node(self) -> None:
        assert self.work(lane="driver").suits("a", JobKind.CONFIRM, PROBE, 1)

    def test_none_that_trains_or_measures_or_is_made_of_names(self) -> None:
        work = self.work()
        assert not work.suits("a", JobKind.PROBE, PROBE, 0) and not work.suits("a", JobKind.PROBE, PROBE, 1)
        assert work.suits("a", JobKind.PROBE, PROBE, 2)
        assert not work.suits("a", JobKind.SEARCH, replace(PROBE, head="linear"), 1)
        assert not work.suits("a", JobKind.CONFIRM, replace(PROBE, head="zero-shot"), 1)

    def test_plain_features_anywhere_unless_there_are_so_many_images_that_a_gpu_solves_for_heads_sooner(self) -> None:
        assert HeadWork(few=True).suits("b", JobKind.PROBE, PIXELS, 0)
        assert not HeadWork(few=False).suits("b", JobKind.PROBE, PIXELS, 0)

    def test_what_a_lane_read_it_has_not_made(self) -> None:
        work = HeadWork(few=True)
        work.ended(self.job(features_of="cuda"), JobResult(lane="b-2", device="cpu"))
        assert not work.suits("b", JobKind.CONFIRM, PROBE, 1)

    def test_what_was_not_found_is_offered_there_again_only_once_it_was_made_there(self) -> None:
        work = self.work()
        work.absent(self.job(features_of="cuda"), "a")
        assert not work.suits("a", JobKind.CONFIRM, PROBE, 1)
        work.ended(self.job(), JobResult(lane="a-1", device="cuda"))
        assert work.suits("a", JobKind.CONFIRM, PROBE, 1)


def test_a_job_that_was_not_done_goes_back_and_is_done_with_features_of_the_lanes_own(space: BoundSpace) -> None:
    search = Search(space, recipes=FixedRecipes(BASELINES, PROBES), lanes=1)
    plan = search.plan
    plan.head_work.nodes.add("a")
    first = plan.next_job()
    assert isinstance(first, LaneJob)
    plan.on_epoch(first.number, {"epoch": 1.0, "score": 0.3, "seconds": 1.0})
    plan.on_end(first.number, JobResult(lane="a-1", device="cuda"))
    head = plan.next_head("a")
    assert head is not None and head.kind == JobKind.REFIT and head.features_of == "cuda"
    again = plan.hand_back(head.number, "a", absent=True)
    assert again == replace(head, features_of="")
    assert not plan.head_work.suits("a", JobKind.CONFIRM, PROBE, 2)
    plan.on_end(again.number, JobResult(lane="a-1", device="cuda"))
    assert plan.head_work.device_of("a", PROBE) == "cuda"
