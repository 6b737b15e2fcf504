"""Lanes without a GPU beside lanes that have one: which jobs they are given, and what becomes of those; without Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import tiny
from joblist import JobList, loading
from ray.tune.search import Searcher

from raytl.search.jobs import JobKind, JobResult, LaneJob
from raytl.search.lanes.head_lanes import DEATHS, HeadLanes
from raytl.search.lanes.resources import NODE_ID, lane_resources
from raytl.search.lanes.sizing import Lanes, holds_head_lane, plan_lanes, with_head_lanes
from raytl.search.lanes.tuning import PlanSearcher
from raytl.search.plan.head_work import HeadWork
from raytl.training.strategy import Strategy

PIXELS = Strategy("plain:pixels", cut=1, head="logistic")


class TestPlanned:
    @pytest.mark.parametrize(
        ("wanted", "gpus", "nodes", "expected"),
        [
            (None, 0.0, [(16.0, 1.0)], (4, 12)),
            (2, 0.0, [(8.0, 1.0)], (2, 3)),
            (None, 0.0, [(2.0, 1.0)], (1, 1)),
            (None, 0.0, [(1.0, 1.0)], (0, 1)),
            (None, 0.0, [(32.0, 4.0), (16.0, 0.0), (16.0, 0.0)], (4, 7)),
            (None, 0.0, [(4.0, 1.0), (1.0, 1.0)], (2, 1)),
            (8, 0.0, [(4.0, 1.0)], (0, 1)),
        ],
    )
    def test_each_node_with_a_gpu_has_one_where_processors_are_left(self, wanted, gpus, nodes, expected) -> None:
        lanes = with_head_lanes(plan_lanes(wanted, gpus, 1, nodes), nodes)
        assert (lanes.head_cpus, lanes.threads) == expected
        alone = plan_lanes(wanted, gpus, 1, nodes)
        assert replace(lanes, head_cpus=0, threads=alone.threads) == alone
        held = [holds_head_lane(node, lanes) for node in nodes]
        assert held == [bool(node[1]) and node[0] > 1 and lanes.head_cpus > 0 for node in nodes]

    def test_none_where_there_is_no_gpu_or_no_memory_or_where_workers_train_together(self) -> None:
        node = [(16.0, 2.0)]
        assert with_head_lanes(plan_lanes(2, 0.0, 1, [(16.0, 0.0)]), [(16.0, 0.0)]).head_cpus == 0
        assert with_head_lanes(plan_lanes(None, 0.0, 1, node, 2), node, 2).head_cpus == 0
        assert with_head_lanes(plan_lanes(None, 0.0, 1, node, 3), node, 3).head_cpus == 4
        assert with_head_lanes(plan_lanes(1, 0.0, 2, node), node).head_cpus == 0

    @pytest.mark.parametrize(
        ("wanted", "late", "holds"),
        [(None, (8.0, 8.0), False), (None, (16.0, 8.0), True), (1, (8.0, 8.0), True), (None, (4.0, 1.0), False)],
    )
    def test_it_takes_no_processor_of_the_lanes_that_a_later_node_brings(self, wanted, late, holds) -> None:
        lanes = with_head_lanes(plan_lanes(wanted, 1.0, 1, [(8.0, 1.0)]), [(8.0, 1.0)])
        assert lanes.head_cpus == 4
        assert holds_head_lane(late, lanes) is holds

    def test_it_asks_for_its_own_node_and_no_gpu(self) -> None:
        resources = lane_resources(Lanes(1, 1.0, 1.0, head_cpus=4))
        request = resources({"lane": 7, "node": "ab12"})
        assert request.required_resources == {"CPU": 4.0}
        assert request._kwargs == {"bundle_label_selector": [{NODE_ID: "ab12"}]}
        assert request != resources({"lane": 7, "node": "ff00"}) and request != resources({"lane": 0})
        hash(request)


def head(number: int) -> LaneJob:
    return LaneJob(number, JobKind.PROBE, PIXELS.to_dict(), number)


class Heads(JobList):
    """A list of jobs with heads among them."""

    def __init__(self, jobs: list[LaneJob], heads: list[LaneJob]) -> None:
        super().__init__(jobs)
        self.head_work = HeadWork(few=True)
        self.heads = heads
        self.absent: list[int] = []

    def next_head(self, node: str) -> LaneJob | None:
        job = self.heads.pop(0) if self.heads else None
        if job is not None:
            self._running.add(job.number)
        return job

    def hand_back(self, number: int, node: str, *, absent: bool) -> LaneJob:
        self.absent += [number] * absent
        return head(number)

    def finished(self) -> bool:
        return super().finished() and not self.heads


class Desk:
    """A searcher with such lanes, asked and told as Tune does it."""

    def __init__(self, jobs: list[LaneJob], heads: list[LaneJob], nodes: Mapping[str, str] | None = None) -> None:
        self.plan = Heads(jobs, heads)
        self.nodes = {"aaaaaa": "aaaaaa11"} if nodes is None else nodes
        self.said: list[str] = []
        self.heads = HeadLanes(self.plan, lambda: self.nodes, 2)
        self.searcher = PlanSearcher(self.plan, lambda: 2, lambda: 0.0, self.said.append, heads=self.heads)
        self._ids = iter(f"t{n}" for n in range(1000))

    def ask(self) -> tuple[str, dict] | str | None:
        """A new trial's id and config, or what the searcher says instead."""
        trial_id = next(self._ids)
        config = self.searcher.suggest(trial_id)
        return (trial_id, config) if isinstance(config, dict) else config

    def done(self, trial_id: str, **result: object) -> None:
        self.searcher.on_trial_complete(trial_id, {"report": JobResult(**({"lane": "aaaaaa-1"} | result))})

    def died(self, trial_id: str) -> None:
        self.searcher.on_trial_complete(trial_id, None, error=True)

    def up(self) -> None:
        """A lane that trains, and beside it one for heads."""
        trial_id, config = self.ask()
        assert "node" not in config
        self.done(trial_id)
        warming, config = self.ask()
        assert (config["node"], config["threads"]) == ("aaaaaa11", 2)
        assert LaneJob.from_json(config["job"]).kind == JobKind.WARM
        self.done(warming)


def number(asked: tuple[str, dict] | str | None) -> int:
    assert isinstance(asked, tuple)
    return LaneJob.from_json(asked[1]["job"]).number


class TestGiven:
    def test_a_lane_is_started_where_one_that_trains_is_up_and_has_heads_once_it_is_itself(self) -> None:
        desk = Desk([loading(n) for n in range(5)], [head(9), head(8)])
        first, second = desk.ask(), desk.ask()
        assert desk.ask() is None  # no lane is known to be anywhere yet
        assert (number(first), number(second)) == (0, 1)
        desk.done(first[0])
        warming = desk.ask()
        assert number(warming) < 0 and number(desk.ask()) == 2
        assert desk.ask() is None and not desk.plan.head_work.nodes
        desk.done(warming[0])
        assert desk.plan.head_work.nodes == {"aaaaaa"}
        given = desk.ask()
        assert number(given) == 9 and given[1]["lane"] == warming[1]["lane"]
        assert desk.ask() is None
        desk.done(given[0])
        assert number(desk.ask()) == 8
        assert desk.plan.errors == {0: None, 9: None}

    def test_none_is_started_where_there_is_no_room_for_it(self) -> None:
        desk = Desk([loading(n) for n in range(5)], [head(9)], nodes={"bbbbbb": "bbbbbb22"})
        first = desk.ask()
        desk.done(first[0])
        assert [number(desk.ask()) for _ in range(2)] == [1, 2]
        assert desk.ask() is None

    def test_the_end_waits_for_heads_but_not_for_a_lane_that_still_starts(self) -> None:
        desk = Desk([loading(0)], [])
        first = desk.ask()
        desk.done(first[0])
        warming = desk.ask()
        assert desk.ask() is None  # nothing is left to train
        assert desk.searcher.needless() == [warming[0]]
        desk.searcher.on_trial_complete(warming[0])
        assert desk.searcher.needless() == [] and not desk.plan.head_work.nodes
        assert desk.ask() == Searcher.FINISHED


class TestNotDone:
    def test_what_it_does_not_find_goes_to_a_lane_that_trains(self) -> None:
        desk = Desk([loading(0)], [head(9)])
        desk.up()
        given = desk.ask()
        desk.done(given[0], absent=True)
        assert desk.plan.absent == [9] and 9 not in desk.plan.results
        again = desk.ask()
        assert number(again) == 9 and "node" not in again[1]
        desk.done(again[0])
        assert desk.plan.errors == {0: None, 9: None}

    def test_so_does_what_its_process_died_of_and_the_job_has_not_failed(self) -> None:
        desk = Desk([loading(0)], [head(9)])
        desk.up()
        desk.died(desk.ask()[0])
        assert not desk.plan.head_work.nodes and desk.plan.absent == []
        asked = [desk.ask() for _ in range(2)]
        assert [number(one) for one in asked][1] == 9 and "node" in asked[0][1] and "node" not in asked[1][1]

    def test_where_its_processes_die_again_and_again_no_other_is_started(self) -> None:
        desk = Desk([loading(n) for n in range(3)], [])
        desk.done(desk.ask()[0])
        for _ in range(DEATHS):
            warming = desk.ask()
            assert "node" in warming[1]
            desk.died(warming[0])
        assert number(desk.ask()) == 1

    def test_a_head_is_stopped_by_hand(self) -> None:
        desk = Desk([loading(0)], [head(9)])
        desk.up()
        given = desk.ask()
        desk.searcher._under_way(given[0]).error = "stopped by hand"
        desk.searcher.on_trial_complete(given[0])
        assert desk.plan.errors[9] == "stopped by hand"


class TestShortOfMemory:
    def test_they_are_the_first_to_go_and_those_that_train_stay(self) -> None:
        desk = Desk([loading(n) for n in range(5)], [])
        desk.up()
        first, second = desk.ask(), desk.ask()
        desk.searcher.starved(first[0])
        desk.died(first[0])
        assert desk.said == ["memory ran out, and Ray ended a lane: going on without those that only solve for heads"]
        leaving = desk.ask()
        assert leaving[1]["leaves"] and "node" in leaving[1]
        desk.searcher.on_trial_result(leaving[0], {"report": JobResult(lane="aaaaaa-2")})
        desk.died(leaving[0])
        assert number(desk.ask()) == number(first) and desk.ask() is None
        desk.done(second[0])
        assert "node" not in desk.ask()[1]

    def test_what_one_of_them_was_ended_for_is_done_by_another_lane(self) -> None:
        desk = Desk([loading(0)], [head(9)])
        desk.up()
        given = desk.ask()
        desk.searcher.starved(given[0])
        desk.died(given[0])
        assert len(desk.said) == 1
        again = desk.ask()
        assert number(again) == 9 and "node" not in again[1]


def test_the_lane_without_a_gpu_is_told_so(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Ray gives a process no GPU it may see them all."""
    from raytl.search.lanes import lane as lanes

    told = []

    def workspace(held, settings):
        told.append((settings.device, settings.threads))
        raise StopIteration

    monkeypatch.setattr(lanes, "_workspace", workspace)
    # It asks Ray, which begins by itself where it is asked.
    monkeypatch.setattr(lanes, "threads_here", lambda share, threads, known: threads)
    settings = tiny.workspace(tmp_path, tiny.data(4)).settings
    for config in ({}, {"threads": 3, "node": "ab12"}):
        with pytest.raises(StopIteration):
            lanes.lane({"job": loading(0).to_json(), **config}, None, replace(settings, device="auto"), 0)
    assert told == [("auto", 1), ("cpu", 3)]
