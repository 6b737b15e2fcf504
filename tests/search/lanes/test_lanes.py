"""Lanes on a real Ray: which processes run, and what becomes of jobs whose process dies."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import tiny
from joblist import Held, JobList, loading, trial
from own_ray import begin
from photos import folder, space
from ray import tune
from ray._private import ray_constants, state
from ray._raylet import GcsClient

import raytl
from raytl.core.errors import UserError
from raytl.machines.growing import autoscales
from raytl.search import driver
from raytl.search.driver import run_plan
from raytl.search.jobs import LaneJob
from raytl.search.lanes import tuning
from raytl.search.lanes.cluster import IdleGpus, Lanes, cluster, plan_lanes
from raytl.search.lanes.lane import GROWTH_LIMIT_BYTES, HeldData, lane, lane_for
from raytl.training.workspace import Budget, WorkspaceSettings

SETTINGS = WorkspaceSettings(budget=Budget(3, 2, 16), image_size=tiny.SIDE, folds=(2, 1), device="cpu", threads=1)
NODE = [(4.0, 1.0)]
TWO_LANES = plan_lanes(2, 0.0, 1, NODE)
ONE_LANE = plan_lanes(1, 0.0, 1, NODE)


@pytest.fixture(scope="module", autouse=True)
def session(tmp_path_factory):
    """A Ray with room for more processes than there are lanes, and a GPU that is none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYTL_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        begin(num_cpus=4, num_gpus=1)
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def held(session):
    return HeldData.put(tiny.data())


def run(plan: JobList, trainable, lanes: Lanes, folder: Path) -> JobList:
    assert run_plan(plan, trainable, lanes, folder)
    return plan


@pytest.mark.parametrize("jobs", [3, 0])
def test_lanes_start_beside_the_beginning_and_are_not_waited_for_where_nothing_is_left(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], jobs: int
) -> None:
    """The beginning ends once a lane is up; without jobs it ends while they still start."""
    beginning = Held(tmp_path)
    beginning.has = True
    plan = JobList([loading(number) for number in range(jobs)])
    with beginning:
        if jobs:
            threading.Thread(target=lambda: beginning._ready.wait(300) and beginning.let_go.set(), daemon=True).start()
        else:
            threading.Timer(0.5, beginning.let_go.set).start()
        trainable = lane_for(tiny.data(), SETTINGS)
        assert run_plan(plan, trainable, TWO_LANES, tmp_path, beginning=beginning)
    assert plan.errors == dict.fromkeys(range(jobs)) and beginning._ready.is_set()
    assert "Trial" not in capfd.readouterr().out


def test_a_lane_that_is_given_up_before_it_began_to_start_does_not_end_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The beginning ends between Tune's taking in a lane's trial and giving it a process."""
    beginning = Held(tmp_path)
    beginning.has = True
    warm_up = tuning.PlanSearcher._warm_up

    def last(searcher, trial_id, held):
        config = warm_up(searcher, trial_id, held)
        if config is not None:
            held.end()
            searcher._all_done = True
        return config

    monkeypatch.setattr(tuning.PlanSearcher, "_warm_up", last)
    before = processes_started()
    with beginning:
        assert run_plan(JobList([]), lane_for(tiny.data(), SETTINGS), ONE_LANE, tmp_path, beginning=beginning)
    assert processes_started() == before


class TestPlannedOnTheCluster:
    """With what is free of four CPUs and a GPU, to which no node will be added."""

    def test_what_can_never_be_is_refused_within_the_time_that_an_autoscaler_has_to_show_itself(self):
        with (
            pytest.raises(UserError, match="--workers-per-trial 8, but the cluster's 4 CPUs and 1 GPUs"),
            cluster(1, 0.0, 8),
        ):
            raise AssertionError("the search would wait for ever")

    def test_what_others_hold_now_is_waited_for(self, session):
        holder = ray.remote(num_cpus=3)(type("Holder", (), {"here": lambda self: True})).remote()
        assert ray.get(holder.here.remote())
        with cluster(None, 0.0, 2) as lanes:
            assert lanes.workers == 2
        ray.kill(holder)


def processes_started() -> int:
    """Actors that were ever started in this session, dead ones included."""
    return len(state.actors())


def test_a_cluster_without_an_autoscaler_has_no_more_to_ask_for(session):
    """Ray's monitor runs there too, and writes of it as of one that grows."""
    gcs = GcsClient(ray.get_runtime_context().gcs_address)
    until = time.monotonic() + 180
    while b"active_nodes" not in (gcs.internal_kv_get(ray_constants.DEBUG_AUTOSCALING_STATUS.encode()) or b""):
        assert time.monotonic() < until
        time.sleep(0.2)
    assert not autoscales()


class TestProcesses:
    def test_fifty_jobs_need_one_process_per_lane(self, tmp_path):
        before = processes_started()
        plan = run(JobList([loading(n) for n in range(50)]), lane_for(tiny.data(), SETTINGS), TWO_LANES, tmp_path)
        assert sorted(plan.results) == list(range(50))
        assert all(result is not None and result.reason is None for result in plan.results.values())
        assert len(plan.lanes()) == TWO_LANES.count
        assert processes_started() - before == TWO_LANES.count

    def test_stopped_and_failed_trials_keep_their_lane(self, tmp_path):
        jobs = [loading(0), trial(1), trial(2, head_lr=1e30), trial(3, source_model="scratch:nothing"), trial(4)]
        plan = JobList(jobs, watch=lambda number, epoch: number != 1 or epoch < 2)
        run(plan, lane_for(tiny.data(), SETTINGS), ONE_LANE, tmp_path)
        assert plan.results[1] is None
        assert plan.errors[1] is None
        assert plan.epochs[1] == [1, 2]
        assert "stopped being finite in epoch 1" in plan.results[2].reason
        assert "unknown architecture 'nothing'" in plan.results[3].reason
        assert plan.epochs[4] == [1, 2, 3]
        assert len(plan.lanes()) == 1

    def test_a_process_that_has_grown_too_far_leaves_after_its_result(self, tmp_path):
        jobs = [loading(n) for n in range(2)]
        plan = run(JobList(jobs), lane_for(tiny.data(), SETTINGS, growth_limit_bytes=-1), ONE_LANE, tmp_path)
        assert all(result is not None and result.reason is None for result in plan.results.values())
        assert len(plan.lanes()) == 2

    def test_a_lane_that_does_not_fit_the_cluster_holds_nobody_up(self, tmp_path, monkeypatch):
        monkeypatch.setattr(tuning, "START_PATIENCE_S", 1.0)
        plan = run(
            JobList([loading(n) for n in range(6)]), lane_for(tiny.data(), SETTINGS), Lanes(2, 3.0, 0.0), tmp_path
        )
        assert plan.errors == dict.fromkeys(range(6))
        assert len(plan.lanes()) == 1

    def test_gpus_that_no_lane_uses_are_told_of_once(self, tmp_path):
        """They may have come with a node later on; lanes keep what they began with."""
        said: list[str] = []
        trainable = lane_for(tiny.data(), SETTINGS)
        assert run_plan(
            JobList([loading(n) for n in range(3)]), trainable, Lanes(1, 1.0, 0.0), tmp_path, notice=said.append
        )
        IdleGpus(Lanes(1, 1.0, 0.5), said.append).look()
        (sentence,) = said
        assert "begins with --gpus-per-trial 1" in sentence

    def test_two_lanes_share_a_gpu_and_go_without_where_cuda_is_absent(self, tmp_path):
        lanes = plan_lanes(None, 0.5, 1, NODE)
        plan = run(
            JobList([trial(n) for n in range(4)]),
            lane_for(tiny.data(), replace(SETTINGS, device="auto")),
            lanes,
            tmp_path,
        )
        assert lanes.count == 2
        assert all(result is not None and result.reason is None for result in plan.results.values())


def noting(folder: Path):
    """A lane that notes under each job's number which processes began it."""

    def trainable(config, held, settings):
        job = LaneJob.from_json(config["job"])
        with (folder / f"{job.number}.pids").open("a") as file:
            file.write(f"{os.getpid()}\n")
        lane(config, held, settings, GROWTH_LIMIT_BYTES)

    return trainable


def pids(folder: Path, number: int) -> list[int]:
    return [int(line) for line in (folder / f"{number}.pids").read_text().split()]


class TestDeath:
    @pytest.mark.slow
    def test_jobs_of_killed_processes_start_again_three_times_at_most(self, tmp_path, held):
        def watch(number: int, epoch: int) -> bool:
            begun = pids(tmp_path, number)
            if (number == 1 and epoch == 2 and len(begun) == 1) or number == 3:
                os.kill(begun[-1], signal.SIGKILL)
            return True

        plan = JobList([trial(n) for n in range(6)], watch)
        run(plan, tune.with_parameters(noting(tmp_path), held=held, settings=SETTINGS), TWO_LANES, tmp_path)
        assert plan.epochs[1] == [1, 2, 1, 2, 3]
        assert plan.results[3] is None
        assert "its process died 3 times" in plan.errors[3]
        assert len(pids(tmp_path, 3)) == 3
        assert all(plan.errors[n] is None for n in (0, 1, 2, 4, 5))
        assert all(plan.epochs[n] == [1, 2, 3] for n in (0, 2, 4, 5))

    def test_a_bug_fails_its_job_at_once_and_is_quoted(self, tmp_path, held):
        def buggy(config, held, settings):
            job = LaneJob.from_json(config["job"])
            with (tmp_path / f"{job.number}.pids").open("a") as file:
                file.write(f"{os.getpid()}\n")
            if job.number == 0:
                raise IndexError("no such thing")
            lane(config, held, settings, GROWTH_LIMIT_BYTES)

        plan = JobList([loading(0), trial(1)])
        run(plan, tune.with_parameters(buggy, held=held, settings=SETTINGS), ONE_LANE, tmp_path)
        assert plan.errors[0] == "IndexError: no such thing"
        assert len(pids(tmp_path, 0)) == 1
        assert plan.errors[1] is None

    def test_no_memory_for_a_trial_fails_it_and_keeps_the_lane(self, tmp_path, held):
        def narrow(config, held, settings):
            size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            # VGG-16's weights alone are more; the heaps of Ray's and torch's threads are not.
            resource.setrlimit(resource.RLIMIT_AS, (size + 2**29, resource.RLIM_INFINITY))
            lane(config, held, settings, GROWTH_LIMIT_BYTES)

        plan = JobList([loading(0), trial(1, source_model="torchvision:vgg16@none"), loading(2)])
        run(plan, tune.with_parameters(narrow, held=held, settings=SETTINGS), ONE_LANE, tmp_path)
        assert plan.results[1].reason.startswith("out of memory")
        assert plan.results[0].lane == plan.results[1].lane == plan.results[2].lane


def test_lanes_on_a_node_without_the_files_have_the_images(tmp_path, monkeypatch):
    """On a cluster that others started. What lies where a process works itself, lanes find nothing of.

    Of that cluster this machine may be the head alone: the search does not begin here, where nothing is to be computed.
    """
    folder(tmp_path / "photos")
    monkeypatch.setattr(driver, "is_this_process_own", lambda: False)  # as where `ray start` began it
    monkeypatch.chdir(tmp_path)
    found = raytl.search(
        raytl.Task(target="/proc/self/cwd/photos"), space=str(space(tmp_path)), storage=tmp_path / "runs",
        trials=1, lanes=1,
    )  # fmt: skip
    assert set(found.trials()["status"]) == {"completed"} and found.has_model
    assert "driver" not in (found.trials()["lane"].iloc[0], found.trials()["lane"].iloc[-1])


def test_on_a_ray_of_this_process_the_search_begins_before_its_lanes_are_up(tmp_path):
    found = raytl.search(
        raytl.Task(target=folder(tmp_path / "photos")), space=str(space(tmp_path)), storage=tmp_path / "runs",
        trials=1, lanes=1,
    )  # fmt: skip
    lanes = found.trials()["lane"]
    assert lanes.iloc[0] == "driver" and lanes.iloc[-1] != "driver"
