"""A whole search on a real Ray with a GPU (which is none): heads are done beside the trainings, in a second process."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import tiny
from own_ray import own_ray
from ray import tune

from raytl.search.driver import run_plan
from raytl.search.jobs import JobKind, LaneJob
from raytl.search.lanes.cluster import cluster, head_nodes
from raytl.search.lanes.here import do_here
from raytl.search.lanes.lane import GROWTH_LIMIT_BYTES, HeldData, known_nodes, lane, threads_here
from raytl.search.lanes.sizing import Lanes
from raytl.search.plan.schedule import SearchPlan
from raytl.search.planning import SearchSettings, make_plan, make_workspace_settings
from raytl.search.records import TrialRecord
from raytl.search.space.binding import BoundSpace
from raytl.search.space.definition import load_space
from raytl.training import Strategy
from raytl.training.workspace import Workspace

PATIENCE_S = 300.0


class Quiet:
    def on_trial(self, record: TrialRecord) -> None:
        """Nothing."""

    def on_phase(self, phase: str, detail: str) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def lanes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lanes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYTL_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        with own_ray(2, num_gpus=1), cluster(None, 0.0) as planned:
            yield planned


def planned(folder: Path, lanes: Lanes) -> tuple[SearchPlan, Workspace]:
    folder.mkdir()
    file = folder / "space.yaml"
    models = f"['pretrain:bright/{tiny.MODEL}', 'plain:gradients']"
    file.write_text(f"image_size: {tiny.SIDE}\nepochs: 2\nspace:\n  source_model: {models}\n  head_lr: [0.01, 0.1]\n")
    bound = BoundSpace(load_space(str(file)), tiny.data(8))
    settings = SearchSettings(trials=1)
    told = make_workspace_settings(bound.data, bound.space, settings, lanes)
    workspace = Workspace(bound.data, told, folder)
    return make_plan(bound, settings, workspace, lanes, folder, Quiet(), test_images=0, started=0.0), workspace


class Nodes(set[str]):
    """Leaves a file once there is a node with such a lane."""

    def __init__(self, note: Path) -> None:
        super().__init__()
        self._note = note

    def add(self, node: str) -> None:
        super().add(node)
        self._note.touch()


def noting(notes: Path) -> Any:
    """A lane that notes what it begins.

    The one with the GPU waits until the other is up before it does heads, and with a training until the other has begun
    with a network's.
    """

    def wait_for(pattern: str) -> None:
        until = time.monotonic() + PATIENCE_S
        while not list(notes.glob(pattern)) and time.monotonic() < until:
            time.sleep(0.05)

    def trainable(config: dict[str, Any], held: HeldData, settings: Any) -> None:
        job = LaneJob.from_json(config["job"])
        if "node" in config:
            if job.features_of:
                (notes / f"reads-{os.getpid()}").touch()
            if list(notes.glob("training-*")):
                (notes / f"head-{job.number}-during").touch()
        elif job.kind == JobKind.PROBE:
            wait_for("up")
        elif job.kind in (JobKind.BASELINE, JobKind.SEARCH):
            (notes / f"training-{os.getpid()}").touch()
            wait_for("reads-*")
        lane(config, held, settings, GROWTH_LIMIT_BYTES)

    return trainable


@dataclass
class Told:
    plan: SearchPlan
    notes: Path
    alone: SearchPlan


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, lanes: Lanes) -> Told:
    folder = tmp_path_factory.mktemp("beside")
    notes = folder / "notes"
    notes.mkdir()
    plan, workspace = planned(folder / "ray", lanes)
    plan.head_work.nodes = Nodes(notes / "up")
    held = HeldData.put(workspace.data)
    trainable = tune.with_parameters(noting(notes), held=held, settings=workspace.settings)
    assert run_plan(plan, trainable, lanes, folder / "ray")
    alone, workspace = planned(folder / "alone", lanes)
    while isinstance(job := alone.next_job(), LaneJob):
        do_here(alone, workspace, job)
    return Told(plan, notes, alone)


def test_a_node_with_a_gpu_has_a_lane_beside_it(lanes: Lanes) -> None:
    assert (lanes.count, lanes.gpus, lanes.head_cpus, lanes.threads) == (1, 1.0, 1, 1)
    ((name, node),) = head_nodes(lanes).items()
    assert node == ray.get_runtime_context().get_node_id() and node.startswith(name)


def test_a_lane_on_a_node_that_nobody_knew_of_finds_out_what_that_leaves_it(lanes: Lanes) -> None:
    assert (threads_here(1.0), threads_here(0.5)) == (2, 1)
    assert (threads_here(1.0, 5), threads_here(0.5, 5), threads_here(1.0, 1)) == (2, 1, 1)


def test_a_lane_on_a_node_that_was_planned_with_computes_as_planned(lanes: Lanes) -> None:
    assert threads_here(0.5, 5, known_nodes()) == 5


def test_heads_are_done_in_a_process_of_their_own_while_another_trains(told: Told) -> None:
    processes: dict[str, set[str]] = {}
    for record in told.plan.records:
        processes.setdefault(record.lane, set()).add(record.kind if not convex(record) else "head")
    (trains,) = (lane for lane, kinds in processes.items() if kinds - {"head"})
    others = [lane for lane in processes if lane != trains]
    assert len(others) == 1 and processes[others[0]] == {"head"}
    assert list(told.notes.glob("head-*-during"))
    read = [record for record in told.plan.records if record.lane == others[0] and "pretrain" in str(record.strategy)]
    assert read and all(record.forward_s == [] and record.step_s == 0.0 for record in read)


def test_the_records_are_those_of_one_lane(told: Told) -> None:
    beside, alone = scored(told.plan), scored(told.alone)
    both = beside.keys() & alone.keys()
    assert {key: beside[key] for key in both} == {key: alone[key] for key in both} != {}
    # Whether a further fold of a probe is worth its while depends on what has come in before it.
    assert all(fold > 0 for _, _, fold in beside.keys() ^ alone.keys())
    assert told.plan.winner() == told.alone.winner() and told.plan.finished()


def convex(record: TrialRecord) -> bool:
    return Strategy.from_dict(record.strategy).convex


def scored(plan: SearchPlan) -> dict[tuple[str, str, int], Any]:
    return {
        (r.kind, r.strategy_key, r.fold): (r.score, np.asarray(r.predicted).tolist()) for r in plan.records if convex(r)
    }
