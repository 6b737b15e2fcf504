"""How many lanes fit a cluster, and which lane a job goes to; without Ray."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
from joblist import Held, JobList, loading
from ray.tune.search import Searcher

from raytl.core.errors import UserError
from raytl.core.machine import cores
from raytl.search.jobs import JobKind, JobResult, LaneJob
from raytl.search.lanes.cluster import Lanes, fitting, plan_lanes
from raytl.search.lanes.here import Beginning
from raytl.search.lanes.resources import lane_resources
from raytl.search.lanes.scheduling import PlanScheduler
from raytl.search.lanes.sizing import own_threads
from raytl.search.lanes.tuning import RETRIES, START_PATIENCE_S, PlanSearcher
from raytl.search.plan.settings import Wait
from raytl.search.planning import SearchSettings, make_workspace_settings
from raytl.search.space.definition import load_space


class TestLanesThatFit:
    @pytest.mark.parametrize(
        ("wanted", "gpus", "workers", "nodes", "expected"),
        [
            (None, 0.0, 1, [(4.0, 0.0)], (4, 1.0, 0.0)),
            (2, 0.0, 1, [(4.0, 0.0)], (2, 2.0, 0.0)),
            (3, 0.0, 1, [(4.0, 0.0)], (3, 1.0, 0.0)),
            # Evenly, but never more than a node has: three CPUs would fit neither node twice.
            (2, 0.0, 1, [(1.0, 0.0), (5.0, 0.0)], (2, 2.0, 0.0)),
            (None, 0.25, 1, [(8.0, 1.0)], (4, 1.0, 0.25)),
            # A share lies on one GPU: 0.6 of each, not six of them on four.
            (None, 0.6, 1, [(16.0, 4.0)], (4, 1.0, 0.6)),
            (None, 0.1, 1, [(16.0, 1.0)], (10, 1.0, 0.1)),
            # CPUs run out first.
            (None, 0.25, 1, [(2.0, 1.0)], (2, 1.0, 0.25)),
            # Where there are GPUs and nobody says anything, a whole one each.
            (None, 0.0, 1, [(16.0, 4.0)], (4, 1.0, 1.0)),
            (None, 0.0, 2, [(4.0, 0.0)], (2, 1.0, 0.0)),
            (None, 1.0, 2, [(8.0, 1.0), (8.0, 1.0)], (1, 1.0, 1.0)),
            # Nor where somebody says how many lanes: a whole one each, or the share with which they fit.
            (2, 0.0, 1, [(4.0, 1.0), (4.0, 1.0)], (2, 1.0, 1.0)),
            (4, 0.0, 1, [(4.0, 1.0), (4.0, 1.0)], (4, 1.0, 0.5)),
            (6, 0.0, 1, [(8.0, 1.0)], (6, 1.0, 0.1666)),
            (8, 0.0, 1, [(4.0, 1.0)], (8, 1.0, 0.25)),  # four, as the CPUs run out, and the others wait
            (1, 0.0, 2, [(4.0, 1.0)], (1, 1.0, 0.5)),
            (None, 0.0, 2, [(4.0, 1.0)], (1, 1.0, 0.5)),
            # More than fit: an autoscaling cluster may bring them.
            (8, 0.0, 1, [(2.0, 0.0)], (8, 1.0, 0.0)),
        ],
    )
    def test_by_node(self, wanted, gpus, workers, nodes, expected):
        lanes = plan_lanes(wanted, gpus, workers, nodes)
        assert (lanes.count, lanes.cpus, lanes.gpus) == expected

    @pytest.mark.parametrize(
        ("gpus", "workers", "said"),
        [
            (2.0, 1, "2: a worker computes on one GPU.* pass --workers-per-trial 2"),
            (1.5, 1, "1.5: .*--workers-per-trial 2"),
            (0.0, 9, "hold fewer workers"),
        ],
    )
    @pytest.mark.parametrize("wanted", [None, 1])
    def test_what_cannot_be_is_said(self, wanted, gpus, workers, said):
        with pytest.raises(UserError, match=said):
            plan_lanes(wanted, gpus, workers, [(4.0, 2.0)])

    @pytest.mark.parametrize(
        ("gpus", "nodes", "said"),
        [
            (1.0, [(4.0, 0.0)], "--gpus-per-trial 1, but the cluster has 0 GPUs"),
            (1.0, [(4.0, 0.0), (0.0, 1.0)], "--gpus-per-trial 1, but no node of the cluster has so many"),
            (0.0, [(0.0, 0.0)], "the cluster has no node with a CPU"),
        ],
    )
    @pytest.mark.parametrize("wanted", [None, 2])
    def test_a_lane_that_fits_no_single_node_is_refused(self, wanted, gpus, nodes, said):
        """It would wait for ever."""
        with pytest.raises(UserError, match=said):
            plan_lanes(wanted, gpus, 1, nodes)
        assert plan_lanes(wanted, gpus, 1, nodes, grows=True).count == (wanted or 1)

    def test_lanes_that_an_autoscaler_will_bring_nodes_for_have_whole_gpus(self):
        assert plan_lanes(4, 0.0, 1, [(4.0, 1.0)], grows=True).gpus == 1.0

    @pytest.mark.parametrize(
        ("gpus", "workers", "expected"), [(1.0, 1, (1, 1.0, 1.0)), (0.0, 1, (1, 1.0, 0.0)), (0.5, 2, (1, 1.0, 0.5))]
    )
    def test_a_lane_that_only_an_autoscaler_has_room_for_is_asked_for(self, gpus, workers, expected):
        """A head without CPUs, and nodes of which the first comes once there is something to do."""
        lanes = plan_lanes(None, gpus, workers, [(0.0, 0.0)], grows=True)
        assert (lanes.count, lanes.cpus, lanes.gpus) == expected

    @pytest.mark.parametrize(
        ("wanted", "workers", "held", "expected"),
        [
            (None, 1, 3, (3, 2.0, 3)),  # what the others leave goes to those that there are
            (None, 1, 8, (8, 1.0, None)),
            (None, 2, 5, (2, 2.0, 2)),
            (None, 2, 1, (1, 4.0, 1)),
            (6, 1, 3, (6, 1.0, None)),  # the user said so
        ],
    )
    def test_where_memory_is_short_there_are_fewer(self, wanted, workers, held, expected):
        lanes = plan_lanes(wanted, 0.0, workers, [(8.0, 0.0)], held)
        assert (lanes.count, lanes.cpus, lanes.most) == expected

    @pytest.mark.parametrize(
        ("wanted", "gpus", "workers", "nodes", "threads"),
        [
            (None, 0.0, 1, [(16.0, 1.0)], 16),
            (2, 0.0, 1, [(8.0, 1.0)], 4),
            (None, 0.0, 2, [(8.0, 2.0)], 4),
            (2, 0.0, 1, [(16.0, 4.0)], 8),  # of four that would fit, both may come to lie on it
            (None, 0.0, 1, [(32.0, 4.0), (16.0, 1.0), (2.0, 0.0)], 8),  # the same for all; none on the node without
            (8, 0.0, 1, [(4.0, 1.0)], 1),
            (None, 1.0, 1, [(1.5, 1.0)], 1),
        ],
    )
    def test_lanes_with_a_gpu_share_the_processors_of_their_node(self, wanted, gpus, workers, nodes, threads):
        """And ask for one of them all the same: what an autoscaler brings may have no more."""
        lanes = plan_lanes(wanted, gpus, workers, nodes)
        assert (lanes.threads, lanes.cpus) == (threads, 1.0)
        settings = make_workspace_settings(tiny.data(), load_space("vision-gpu"), SearchSettings(), lanes)
        assert settings.threads == threads

    def test_on_processors_alone_it_is_what_they_ask_for_and_where_no_node_with_a_gpu_is_known_each_finds_out(self):
        grown = plan_lanes(4, 1.0, 1, [(8.0, 0.0)], grows=True)
        assert grown.threads is None
        assert make_workspace_settings(tiny.data(), load_space("vision-gpu"), SearchSettings(), grown).threads is None
        alone = plan_lanes(2, 0.0, 1, [(4.0, 0.0)])
        assert alone == Lanes(2, 2.0, 0.0)
        assert make_workspace_settings(tiny.data(), load_space("vision-gpu"), SearchSettings(), alone).threads == 2

    @pytest.mark.parametrize(
        ("node", "gpus", "threads"),
        [
            ((16.0, 1.0), 1.0, 16),
            ((16.0, 4.0), 1.0, 4),
            ((8.0, 1.0), 0.5, 4),
            ((1.0, 1.0), 1.0, 1),
            ((8.0, 0.0), 1.0, 1),
        ],
    )
    def test_a_lane_on_a_node_that_came_later_finds_out_what_that_leaves_it(self, node, gpus, threads):
        assert own_threads(node, gpus) == threads

    def test_a_node_that_came_later_may_have_fewer_cores_than_was_planned_with(self, tmp_path: Path) -> None:
        before = torch.get_num_threads()
        try:
            tiny.workspace(tmp_path, tiny.data(), threads=cores() + 1)
            assert torch.get_num_threads() == cores()
        finally:
            torch.set_num_threads(before)

    def test_none_fits_no_nodes(self):
        assert fitting([], 1.0, 0.0) == 0

    def test_two_lanes_never_ask_for_the_same(self):
        requests = [lane_resources(Lanes(3, 2.0, 0.5))({"lane": lane}) for lane in range(3)]
        assert len(set(requests)) == 3
        assert all(request.required_resources["CPU"] == 2.0 for request in requests)

    def test_a_lane_of_several_workers_leaves_the_processors_to_them(self):
        request = lane_resources(Lanes(1, 2.0, 0.5, workers=2))({"lane": 0})
        assert set(request.required_resources) == {"memory"}


class Desk:
    """A searcher, asked and told as Tune does it."""

    def __init__(self, jobs: list[LaneJob], room: int = 2, beginning: Beginning | None = None) -> None:
        self.plan = JobList(jobs)
        self.room = room
        self.now = 0.0
        self.said: list[str] = []
        self.searcher = PlanSearcher(
            self.plan, lambda: self.room, lambda: self.now, self.said.append, beginning=beginning
        )
        self.lane_of: dict[str, int] = {}
        self._ids = iter(f"t{n}" for n in range(1000))

    def ask(self) -> str | None:
        """A new trial's id, or what the searcher says instead."""
        trial_id = next(self._ids)
        config = self.searcher.suggest(trial_id)
        if not isinstance(config, dict):
            return config
        self.lane_of[trial_id] = config["lane"]
        return trial_id

    def done(self, trial_id: str) -> None:
        self.searcher.on_trial_complete(trial_id, {"report": JobResult(lane="x")})

    def starved(self, trial_id: str) -> None:
        self.searcher.starved(trial_id)
        self.died(trial_id)

    def died(self, trial_id: str) -> None:
        self.searcher.on_trial_complete(trial_id, None, error=True)


class TestWhichLane:
    def test_no_more_jobs_than_lanes_and_each_in_its_own(self):
        desk = Desk([loading(n) for n in range(5)])
        first, second = desk.ask(), desk.ask()
        assert desk.ask() is None
        assert {desk.lane_of[first], desk.lane_of[second]} == {0, 1}

    def test_the_freed_lane_takes_the_next_job(self):
        desk = Desk([loading(n) for n in range(5)])
        first, _ = desk.ask(), desk.ask()
        desk.done(first)
        assert desk.lane_of[desk.ask()] == desk.lane_of[first]

    def test_new_room_is_used(self):
        desk = Desk([loading(n) for n in range(5)])
        desk.ask(), desk.ask()
        desk.room = 3
        assert desk.lane_of[desk.ask()] == 2

    def test_a_dead_lane_is_the_last_to_be_tried_again(self):
        desk = Desk([loading(n) for n in range(5)])
        first, second = desk.ask(), desk.ask()
        desk.done(second)
        desk.died(first)
        again = desk.ask()
        assert desk.lane_of[again] == desk.lane_of[second]
        assert desk.searcher._trials[again].job.number == 0


class TestWarmingUp:
    def test_lanes_start_once_there_is_a_model_and_the_plan_is_asked_once_the_beginning_is_over(
        self, tmp_path: Path
    ) -> None:
        beginning = Held(tmp_path)
        desk = Desk([loading(n) for n in range(3)], beginning=beginning)
        with beginning:
            assert desk.ask() is None  # their start would be in the way of the first model
            beginning.has = True
            first, second = desk.ask(), desk.ask()
            assert desk.ask() is None
            assert {desk.lane_of[first], desk.lane_of[second]} == {0, 1}
            warming = [desk.searcher._trials[trial].job for trial in (first, second)]
            assert [job.kind for job in warming] == [JobKind.WARM] * 2
            assert not beginning._ready.is_set()
            desk.done(first)
            assert beginning._ready.is_set()  # a lane is up: nothing new is begun here
            assert desk.ask() is None  # but what was begun is finished
            beginning.end()
            job = desk.ask()
            assert desk.searcher._trials[job].job.number == 0 and desk.lane_of[job] == desk.lane_of[first]
            desk.done(second)
            assert desk.plan.errors == {}  # the plan knows of none of them

    def test_a_lane_that_does_not_come_up_is_found_out_by_the_jobs_that_are_due(self, tmp_path: Path) -> None:
        beginning = Held(tmp_path)
        beginning.has = True
        desk = Desk([loading(0)], room=1, beginning=beginning)
        with beginning:
            desk.died(desk.ask())
            beginning.end()
        for _ in range(RETRIES):
            desk.died(desk.ask())
        assert desk.plan.errors == {}
        for _ in range(RETRIES + 1):
            desk.died(desk.ask())
        assert "its process died 3 times" in desk.plan.errors[0]

    def test_a_lane_that_still_starts_when_all_is_done_is_not_waited_for(self, tmp_path: Path) -> None:
        beginning = Held(tmp_path)
        beginning.has = True
        desk = Desk([], room=1, beginning=beginning)
        with beginning:
            starting = desk.ask()
            assert desk.searcher.needless() == []
            beginning.end()
            desk.room = 2
            assert desk.ask() is None
            assert desk.searcher.needless() == [starting]
            desk.done(starting)  # as Tune says of what it stopped
            assert desk.ask() == Searcher.FINISHED

    def test_what_goes_wrong_in_the_beginning_ends_the_search_with_it(self, tmp_path: Path) -> None:
        beginning = Held(tmp_path, OSError("no space left on device"))
        desk = Desk([loading(0)], beginning=beginning)
        with beginning:
            beginning.end()
            with pytest.raises(OSError, match="no space left"):
                desk.ask()
        assert isinstance(desk.searcher.failure, OSError)


class TestEnds:
    def test_finished_only_when_nothing_can_come_back(self):
        desk = Desk([loading(0)])
        only = desk.ask()
        assert desk.ask() is None
        desk.died(only)
        again = desk.ask()
        desk.done(again)
        assert desk.ask() == Searcher.FINISHED
        assert desk.plan.errors == {0: None}

    def test_a_job_fails_after_its_last_death(self):
        desk = Desk([loading(0)])
        for _ in range(RETRIES):
            desk.died(desk.ask())
            assert not desk.plan.errors
        desk.died(desk.ask())
        assert "its process died 3 times" in desk.plan.errors[0]

    def test_a_job_outlives_the_idle_lanes_of_a_node_that_is_lost(self):
        """Each is found dead by the job that is handed to it, before that has begun."""
        lanes = RETRIES + 2
        desk = Desk([loading(n) for n in range(lanes + 1)], room=lanes)
        trials = [desk.ask() for _ in range(lanes)]
        for trial_id in trials:
            desk.searcher.begun(trial_id)
            desk.done(trial_id)
        for _ in range(lanes):
            desk.died(desk.ask())
        for _ in range(RETRIES):  # with a process of its own: these count
            desk.died(desk.ask())
        assert lanes not in desk.plan.errors
        desk.died(desk.ask())
        assert "its process died 3 times" in desk.plan.errors[lanes]

    def test_an_exception_is_not_tried_again(self):
        desk = Desk([loading(0)])
        trial_id = desk.ask()
        desk.searcher.raised(trial_id, "ValueError: no")
        desk.died(trial_id)
        assert desk.plan.errors == {0: "ValueError: no"}

    def test_a_gpu_that_fails_is_no_fault_of_the_job_until_it_fails_again_and_again(self, tmp_path: Path) -> None:
        desk = Desk([loading(0)])
        said = "torch.AcceleratorError: CUDA error: an illegal memory access was encountered"
        advice = "For debugging consider passing CUDA_LAUNCH_BLOCKING=1"
        (tmp_path / "error.txt").write_text(f"ray::lane() (pid=7)\n  File ...\n{said}\n{advice}\n")
        for _ in range(RETRIES + 1):
            assert desk.plan.errors == {}
            trial_id = desk.ask()
            trial = SimpleNamespace(trial_id=trial_id, error_file=tmp_path / "error.txt")
            PlanScheduler(desk.searcher).on_trial_error(None, trial)
            desk.died(trial_id)
        assert desk.plan.errors == {0: said}

    def test_what_failed_on_the_gpu_of_the_process_that_began_is_done_first_of_all_by_a_lane(self, tmp_path: Path):
        beginning = Held(tmp_path)
        desk = Desk([loading(1)], beginning=beginning)
        with beginning:
            beginning.fault, beginning.left = "CUDA error: unspecified launch failure", loading(0)
            beginning.end()
        first = desk.ask()
        assert desk.searcher._trials[first].job.number == 0
        said = "the GPU failed in the search's own process (CUDA error: unspecified launch failure): the lanes go on"
        assert desk.said == [said]

    def test_a_lane_that_leaves_after_its_result_has_done_its_job(self):
        desk = Desk([loading(0)])
        trial_id = desk.ask()
        desk.searcher.on_trial_result(trial_id, {"report": JobResult(lane="grown")})
        desk.died(trial_id)
        assert desk.plan.results[0].lane == "grown"
        assert desk.plan.errors == {0: None}


class TestShortOfMemory:
    """Processes that Ray ended so that the node lives on."""

    def test_there_is_a_lane_less_and_its_job_has_not_failed(self):
        desk = Desk([loading(n) for n in range(9)], room=3)
        trials = [desk.ask() for _ in range(3)]
        desk.starved(trials[0])
        assert desk.said == ["memory ran out, and Ray ended a lane: going on with 2 lanes"]
        assert desk.ask() is None  # though there would be room for a third
        desk.done(trials[1])
        assert desk.searcher._trials[desk.ask()].job.number == 0
        assert desk.searcher._again == deque()

    def test_a_job_that_others_crowded_out_again_and_again_is_done_in_the_end(self):
        desk = Desk([loading(n) for n in range(2)], room=2)
        first, second = desk.ask(), desk.ask()
        desk.starved(first)
        desk.done(second)
        for _ in range(RETRIES):
            desk.starved(desk.ask())
        desk.done(desk.ask())
        assert desk.plan.errors == {0: None, 1: None}
        assert desk.said == ["memory ran out, and Ray ended a lane: going on with a single lane"]

    def test_what_is_too_large_by_itself_fails(self):
        desk = Desk([loading(0)], room=1)
        for _ in range(RETRIES + 1):
            desk.starved(desk.ask())
        assert "too little memory" in desk.plan.errors[0]

    def test_where_one_after_the_other_is_the_search_stops_before_all_are_lost(self):
        desk = Desk([loading(n) for n in range(9)], room=1)
        for _ in range(2 * (RETRIES + 1)):
            desk.starved(desk.ask())
        assert desk.ask() == Searcher.FINISHED
        assert list(desk.plan.errors) == [0]  # the second is still to be done, and so are the others
        assert not desk.plan.finished()
        assert sum("the search stops with what it has; close other programs" in said for said in desk.said) == 1

    def test_two_large_ones_among_others_fail_and_the_rest_goes_on(self):
        desk = Desk([loading(n) for n in range(3)], room=1)
        for _ in range(RETRIES + 1):
            desk.starved(desk.ask())
        desk.done(desk.ask())
        for _ in range(RETRIES + 1):
            desk.starved(desk.ask())
        assert desk.ask() == Searcher.FINISHED
        assert list(desk.plan.errors) == [0, 1, 2]
        assert not any("the search stops" in sentence for sentence in desk.said)


class TestStuckLanes:
    """A lane that no node has room for must not keep its job for ever."""

    def test_the_next_free_lane_takes_a_job_that_waits_for_room(self):
        desk = Desk([loading(n) for n in range(3)])
        first, second = desk.ask(), desk.ask()
        desk.searcher.begun(first)
        desk.now = START_PATIENCE_S + 1
        assert desk.searcher.rehouse(lambda trial_id: False) is None  # the warm lane is busy
        desk.done(first)
        assert desk.ask() is None  # and kept when it is free
        assert desk.searcher.rehouse(lambda trial_id: False) == second
        desk.searcher.on_trial_complete(second)
        again = desk.ask()
        assert desk.lane_of[again] == desk.lane_of[first]
        assert desk.searcher._trials[again].job.number == 1
        assert 1 not in desk.plan.errors

    def test_a_lane_that_is_starting_is_left_alone(self):
        desk = Desk([loading(n) for n in range(3)])
        first, _ = desk.ask(), desk.ask()
        desk.searcher.begun(first)
        desk.done(first)
        desk.now = 10 * START_PATIENCE_S
        assert desk.searcher.rehouse(lambda trial_id: True) is None
        assert desk.ask() is not None

    def test_nobody_is_moved_before_the_time(self):
        desk = Desk([loading(n) for n in range(3)])
        first, _ = desk.ask(), desk.ask()
        desk.searcher.begun(first)
        desk.done(first)
        assert desk.searcher.rehouse(lambda trial_id: False) is None

    def test_a_waiting_plan_is_asked_again_only_after_an_end(self):
        class Waiting(JobList):
            asked = 0

            def next_job(self):
                self.asked += 1
                return super().next_job() or Wait()

        desk = Desk([])
        desk.plan = desk.searcher.plan = Waiting([loading(0)])
        only = desk.ask()
        for _ in range(5):
            assert desk.ask() is None
        assert desk.plan.asked == 2
        desk.done(only)
        desk.ask()
        assert desk.plan.asked == 3


def test_what_others_leave_of_a_gpu_is_shared_too_and_gpus_without_a_free_cpu_are_done_without() -> None:
    assert fitting([(4.0, 0.75)], 1.0, 0.5) == 1 and fitting([(4.0, 1.5)], 1.0, 0.5) == 3
    assert fitting([(4.0, 0.25)], 1.0, 0.5) == 0
    apart = plan_lanes(4, 0.0, 1, [(8.0, 0.0), (0.0, 1.0)])
    assert (apart.count, apart.gpus) == (4, 0.0)
