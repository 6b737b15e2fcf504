"""A lane: a warm process that does one job after another, as a Ray Tune trainable.

Tune keeps the process (``reuse_actors``) and Ray Train runs the loop inside it (``TorchTrainer`` in local mode), so a
job finds torch imported, the data mapped and recent source models loaded. Starting a worker group for each trial, the
documented pattern, costs seconds per trial instead.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import ray
from ray import tune

from raytl.core.errors import UserError
from raytl.search.jobs import JobKind, JobResult, LaneJob
from raytl.search.lanes import store
from raytl.search.lanes.sizing import own_threads
from raytl.search.lanes.work import do_job
from raytl.tasks import TrainingData
from raytl.training.workspace import Workspace, WorkspaceSettings

_DATA = "the search's data"
NODE_NAME = 6
"""Digits of a node's id that are enough to call it by."""
GROWTH_LIMIT_BYTES = 2 * 2**30
"""What a lane's own memory may grow by, over its first job, before its process is replaced by a fresh one."""


@dataclass(frozen=True)
class HeldData:
    """A search's data in Ray's object store, known by their fingerprint: a lane reads them once, not per trial.

    Of images in files only where they are: :mod:`raytl.search.lanes.files`.
    """

    fingerprint: str
    reference: Any = field(compare=False)

    @classmethod
    def put(cls, data: TrainingData) -> HeldData:
        """Into the object store. Raises UserError where it has no room."""
        return cls(data.fingerprint, store.put(data, _DATA))

    def get(self) -> TrainingData:
        """Out of it again. Raises UserError where the store of this node has no room."""
        data: TrainingData = store.get(self.reference, _DATA)
        return data


def lane_for(
    data: TrainingData, settings: WorkspaceSettings, growth_limit_bytes: int = GROWTH_LIMIT_BYTES
) -> Callable[[dict[str, Any]], None]:
    """The trainable of a search over ``data``."""
    held = HeldData.put(data)
    trainable: Callable[[dict[str, Any]], None] = tune.with_parameters(
        lane, held=held, settings=settings, growth_limit_bytes=growth_limit_bytes, known=known_nodes()
    )
    return trainable


def lane(
    config: dict[str, Any],
    held: HeldData,
    settings: WorkspaceSettings,
    growth_limit_bytes: int,
    known: frozenset[str] = frozenset(),
) -> None:
    """The trainable: does ``config["job"]`` and reports its epochs, then its result, to Tune.

    known: ids of the nodes that the search was planned with.
    A lane for heads has ``config["threads"]`` and no GPU. It is told so: where Ray gives it none it may still see some.
    """
    from ray.train import ScalingConfig
    from ray.train.torch import TorchTrainer

    # How long Tune lets a stopped trial unwind before it gives up the next one for it; 2 s are few on a busy machine.
    os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", "120")
    job = LaneJob.from_json(config["job"])
    if "threads" in config:
        settings = replace(settings, device="cpu", threads=config["threads"])
    elif settings.device != "cpu":
        settings = replace(settings, threads=threads_here(settings.gpu_share, settings.threads, known))
    workspace = _workspace(held, settings)

    def train_loop() -> None:
        result = in_store(do_job(workspace, job, tune.report))
        # A refit's files live as long as the process that put them into the object store.
        if config.get("leaves") or (_grown_bytes() > growth_limit_bytes and job.kind != JobKind.REFIT):
            tune.report({"report": result})
            # The report is taken in. Tune ends a process whose trial raises, and the next job gets a fresh one.
            raise _LeavingError
        # "done" with the result: without it Tune would have to ask once more for the end of the trial.
        tune.report({"report": result, "done": True})

    # num_workers=0 is Ray Train's local mode: the same trainer in this process, without a worker group of its own.
    TorchTrainer(train_loop, scaling_config=ScalingConfig(num_workers=0, use_gpu=workspace.device.type == "cuda")).fit()


def in_store(result: JobResult) -> JobResult:
    """The result as it leaves the lane: named after its process, a model's files in Ray's object store.

    Lane and driver need no common disk then. The files live as long as the process that put them there. Where there is
    no room for them the job has failed, with that as its reason, and no other has.
    """
    result.lane = f"{ray.get_runtime_context().get_node_id()[:NODE_NAME]}-{os.getpid()}"
    if result.model_files is not None:
        try:
            result.model_files = store.put(result.model_files, "the files of the refitted model")
        except UserError as error:
            result.model_files, result.reason = None, str(error)
    return result


@lru_cache(maxsize=1)
def threads_here(gpu_share: float, planned: int | None = None, known: frozenset[str] = frozenset()) -> int:
    """What a lane with a GPU computes with: as planned, but on a node that came later no more than that leaves it."""
    here = ray.get_runtime_context().get_node_id()
    if planned is not None and here in known:
        return planned
    node = next(node["Resources"] for node in ray.nodes() if node["NodeID"] == here)
    own = own_threads((node.get("CPU", 0.0), node.get("GPU", 0.0)), gpu_share)
    return own if planned is None else min(own, planned)


def known_nodes() -> frozenset[str]:
    """Ids of the nodes that the cluster has now."""
    return frozenset(node["NodeID"] for node in ray.nodes() if node["Alive"])


def _grown_bytes() -> int:
    """By how much this process's own memory has grown since its first job; 0 where the system does not tell."""
    grown = _own_memory_bytes() - _first_memory_bytes()
    return max(0, grown)


@lru_cache(maxsize=1)
def _first_memory_bytes() -> int:
    return _own_memory_bytes()


def _own_memory_bytes() -> int:
    """Resident memory without mapped files, which the lanes of a node share."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    lines = [line for line in status.read_text().splitlines() if line.startswith("RssAnon")]
    return int(lines[0].split()[1]) * 1024 if lines else 0


class _LeavingError(Exception):
    """The lane's process is to end: it has grown beyond its limit, or others want the memory."""


@lru_cache(maxsize=1)
def _workspace(held: HeldData, settings: WorkspaceSettings) -> Workspace:
    """The process's workspace; a lane serves one search at a time."""
    return Workspace(held.get(), settings)
