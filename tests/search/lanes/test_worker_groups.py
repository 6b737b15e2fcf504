"""A lane of two workers on a real Ray: one group for all jobs, and a new one after a death."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import ray
import tiny
from joblist import JobList, loading, trial
from own_ray import own_ray
from ray._private import state

from raytl.search.driver import lane_trainable, run_plan
from raytl.search.jobs import EpochReport, JobKind, JobResult, LaneJob
from raytl.search.lanes import pool as pool_module
from raytl.search.lanes.cluster import plan_lanes
from raytl.search.lanes.pool import JobPool, forward
from raytl.sources.checkpoint import load_checkpoint
from raytl.training.workspace import Budget, WorkspaceSettings

SETTINGS = WorkspaceSettings(budget=Budget(3, 6, 16), image_size=tiny.SIDE, folds=(2, 1), device="cpu", threads=1)
LANES = plan_lanes(1, 0.0, 2, [(2.0, 0.0)])


@pytest.fixture(scope="module", autouse=True)
def session(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYTL_HOME", str(tmp_path_factory.mktemp("home")))
        with own_ray(2):
            yield


def workers() -> list[int]:
    actors = [actor for actor in state.actors().values() if actor["State"] == "ALIVE"]
    return [actor["Pid"] for actor in actors if actor["ActorClassName"] == "RayTrainWorker"]


def pid(lane: str) -> int:
    return int(lane.rsplit("-", 1)[1])


def told(result: JobResult) -> tuple[object, ...]:
    """What a trial's row of the final table is made of."""
    metrics = {name: value for name, value in result.metrics.items() if not name.endswith("seconds")}
    predictions = [np.array(said).tolist() for said in (result.validation_index, result.validation_probabilities)]
    return result.reason, metrics, predictions, result.answers


@pytest.mark.slow
class TestTwoWorkers:
    @pytest.fixture(scope="class")
    def story(self, tmp_path_factory) -> tuple[JobList, Path, list[int]]:
        """Jobs of every fate; job 6 loses its first worker group. What is trained in 7 and 8 was trained before."""
        folder = tmp_path_factory.mktemp("run")
        refit = LaneJob(5, JobKind.REFIT, trial(5).strategy, None, directory=str(folder / "refit"))
        jobs = [
            loading(0), trial(1), trial(2, head_lr=1e30), trial(3, cut=2), trial(4, source_model="scratch:nothing"),
            refit, trial(6), trial(7), trial(8, head_lr=1e30), trial(9),
        ]  # fmt: skip
        before_deaths: list[int] = []

        def watch(number: int, epoch: int) -> bool:
            if number == 6 and epoch == 2 and not before_deaths:
                before_deaths.extend(workers())
                os.kill(before_deaths[-1], signal.SIGKILL)
            return number != 3 or epoch < 2

        plan = JobList(jobs, watch)
        with lane_trainable(tiny.data(target=12), SETTINGS, LANES, folder) as trainable:
            assert run_plan(plan, trainable, LANES, folder)
        return plan, folder, before_deaths

    def test_one_group_does_all_jobs_until_it_dies(self, story):
        plan, _, before_deaths = story
        assert len(before_deaths) == 2
        done_by = {pid(plan.results[n].lane) for n in (0, 1, 2, 4, 5)}
        assert len(done_by) == 1
        assert done_by <= set(before_deaths)

    def test_trials_are_evaluated_and_report_every_epoch(self, story):
        plan, _, _ = story
        assert plan.epochs[1] == [1, 2, 3]
        assert plan.results[1].metrics["score"] > 0
        assert len(plan.results[1].validation_index) == len(plan.results[1].validation_probabilities) == 18

    def test_a_stopped_trial_stops(self, story):
        plan, _, _ = story
        assert plan.epochs[3] == [1, 2]
        assert plan.results[3] is None
        assert plan.errors[3] is None

    def test_failures_have_reasons(self, story):
        plan, _, _ = story
        assert "stopped being finite in epoch 1" in plan.results[2].reason
        assert "unknown architecture 'nothing'" in plan.results[4].reason

    def test_a_refit_comes_back_as_a_checkpoint(self, story):
        _, folder, _ = story
        _, model = load_checkpoint(folder / "refit")
        assert model.labels == tiny.CLASSES

    def test_a_job_survives_the_death_of_a_worker_and_so_does_the_lane(self, story):
        plan, _, before_deaths = story
        assert plan.epochs[6] == [1, 2, 1, 2, 3]
        assert plan.results[6].reason is None
        assert pid(plan.results[6].lane) not in before_deaths
        assert all(plan.results[n].reason is None for n in (7, 9))

    def test_nothing_is_different_after_a_death(self, story):
        """To the last bit, the trial that lost a worker and those of the new group are as the first group had them."""
        plan, _, _ = story
        undisturbed = {1: told(plan.results[1]), 2: told(plan.results[2])}
        assert undisturbed[1] != undisturbed[2]
        assert [told(plan.results[n]) for n in (6, 7, 8, 9)] == [undisturbed[n] for n in (1, 1, 2, 1)]


@pytest.mark.slow
def test_a_trial_whose_report_waits_for_a_busy_driver_keeps_its_job(monkeypatch):
    class CountingPool(JobPool):  # in here, so that it travels to its process
        """Knows how often it has heard of trials that wait."""

        heard = 0

        async def still_there(self, key: str) -> None:
            self.heard += 1
            await super().still_there(key)

        async def times(self) -> int:
            return self.heard

    pool = ray.remote(CountingPool).options(num_cpus=0, max_concurrency=10).remote(1)
    reports: list[EpochReport | JobResult] = []

    def busy(message):
        reports.append(message["report"])
        before, until = ray.get(pool.times.remote()), time.monotonic() + 60
        while ray.get(pool.times.remote()) < before + 3:  # or it would be given up
            assert time.monotonic() < until
            time.sleep(0.05)
        if message["done"]:
            raise StopIteration

    monkeypatch.setattr(pool_module, "POLL_S", 0.1)
    monkeypatch.setattr(pool_module.tune, "report", busy)

    def trial_of_a_lane() -> None:
        with suppress(StopIteration):
            forward({"job": "job"}, pool)

    asking = threading.Thread(target=trial_of_a_lane)
    asking.start()
    ticket = True
    while ticket is True:
        ticket = ray.get(pool.take.remote(0))
    assert ray.get(pool.report.remote(0, ticket, EpochReport({"epoch": 1.0}))) is True
    ray.get(pool.finish.remote(0, ticket, JobResult(seconds=3.0)))
    asking.join(120)
    assert [type(report) for report in reports] == [EpochReport, JobResult]
    assert reports[-1].reason is None
