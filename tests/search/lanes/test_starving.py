"""Ray's memory monitor ends lanes: on a real Ray that finds any memory too much."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import tiny
from joblist import JobList, loading
from own_ray import own_ray
from ray.air.execution._internal import RayActorManager
from ray.air.execution._internal.tracked_actor import TrackedActor
from ray.air.execution._internal.tracked_actor_task import TrackedActorTask
from ray.exceptions import ActorDiedError, OutOfMemoryError

from raytl.search.driver import lane_trainable, run_plan
from raytl.search.lanes.lane import lane_for
from raytl.search.lanes.sizing import plan_lanes
from raytl.search.lanes.starving import survive
from raytl.training.workspace import Budget, WorkspaceSettings

SETTINGS = WorkspaceSettings(budget=Budget(1, 1, 16), image_size=tiny.SIDE, folds=(2, 1), device="cpu", threads=1)


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYTL_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("RAY_memory_usage_threshold", "0.0")
        patch.setenv("RAY_memory_monitor_refresh_ms", "100")
        with own_ray(2):
            yield


@pytest.mark.slow
def test_the_search_goes_on_with_fewer_lanes_and_ends_in_a_sentence(session, tmp_path):
    said: list[str] = []
    plan = JobList([loading(n) for n in range(2)])
    lanes = plan_lanes(2, 0.0, 1, [(2.0, 0.0)])
    assert not run_plan(plan, lane_for(tiny.data(), SETTINGS), lanes, tmp_path, notice=said.append)
    assert said[0] == "memory ran out, and Ray ended a lane: going on with a single lane"
    assert said[-1].startswith("memory ran out again and again with a single lane, whatever it trained")
    # The first may be too large by itself; the second one is not failed for what others take.
    assert list(plan.errors.values()) == [
        "the machine has too little memory for it: close other programs, or choose smaller models"
    ]


@pytest.mark.slow
def test_a_search_of_worker_groups_ends_in_the_same_sentence(session, tmp_path):
    """Whatever of it is ended first: a worker, what rebuilds the workers, or the pool of jobs between them and Tune."""
    said: list[str] = []
    plan = JobList([loading(n) for n in range(2)])
    lanes = plan_lanes(1, 0.0, 2, [(2.0, 0.0)])
    with lane_trainable(tiny.data(), SETTINGS, lanes, tmp_path) as trainable:
        assert not run_plan(plan, trainable, lanes, tmp_path, notice=said.append)
    assert said[-1].startswith("memory ran out again and again with a single lane, whatever it trained")
    assert list(plan.errors.values()) == [
        "the machine has too little memory for it: close other programs, or choose smaller models"
    ]


def test_a_lane_that_is_ended_while_it_trains_is_a_death_to_tune():
    """By Tune's own manager of processes, which raises for what it does not know."""
    manager = RayActorManager.__new__(RayActorManager)  # without a Ray, of which there is nothing to clean up
    manager._failed_actor_ids, manager._cleanup_actor = set(), lambda tracked_actor: None
    deaths: list[Exception] = []
    actor = TrackedActor("a", on_error=lambda actor, error: deaths.append(error))
    task = TrackedActorTask(actor, on_error=lambda actor, error: deaths.append(error))
    told: list[str] = []
    controller = SimpleNamespace(_actor_manager=manager, _actor_to_trial={actor: SimpleNamespace(trial_id="t1")})
    survive(controller, told.append)
    manager._actor_task_failed(tracked_actor_task=task, exception=OutOfMemoryError("forty lines"))
    assert told == ["t1"]
    assert [type(death) for death in deaths] == [ActorDiedError, ActorDiedError]
    with pytest.raises(RuntimeError, match="unexpected"):
        manager._actor_task_failed(tracked_actor_task=task, exception=KeyError("another"))
    assert told == ["t1"]
