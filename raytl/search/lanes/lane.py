"""A lane: a warm process that does one job after another, as a Ray Tune trainable.

Tune keeps the process (``reuse_actors``) and Ray Train runs the loop inside it (``TorchTrainer`` in local mode), so a
job finds torch imported, the data mapped and recent source models loaded. Starting a worker group for each trial, the
documented pattern, costs seconds per trial instead.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import ray
from ray import tune

from raytl.core.errors import UserError
from raytl.search.jobs import EpochReport, JobKind, JobResult, LaneJob
from raytl.search.propose.features import forward_seconds
from raytl.search.propose.survey import survey
from raytl.sources.checkpoint import write_checkpoint
from raytl.tasks import TrainingData
from raytl.training.distributed import Group
from raytl.training.loop import run_trial
from raytl.training.pretrain import is_hurried
from raytl.training.strategy import Strategy
from raytl.training.trial import TrialError, TrialJob
from raytl.training.workspace import Workspace, WorkspaceSettings

OUT_OF_MEMORY = "out of memory"
GROWTH_LIMIT_BYTES = 2 * 2**30
"""What a lane's own memory may grow by, over its first job, before its process is replaced by a fresh one."""

Send = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class HeldData:
    """A search's data in Ray's object store, known by their fingerprint: a lane reads them once, not per trial."""

    fingerprint: str
    reference: Any = field(compare=False)

    @classmethod
    def put(cls, data: TrainingData) -> HeldData:
        """Into the object store."""
        return cls(data.fingerprint, ray.put(data))


def lane_for(
    data: TrainingData, settings: WorkspaceSettings, growth_limit_bytes: int = GROWTH_LIMIT_BYTES
) -> Callable[[dict[str, Any]], None]:
    """The trainable of a search over ``data``."""
    held = HeldData.put(data)
    trainable: Callable[[dict[str, Any]], None] = tune.with_parameters(
        lane, held=held, settings=settings, growth_limit_bytes=growth_limit_bytes
    )
    return trainable


def lane(config: dict[str, Any], held: HeldData, settings: WorkspaceSettings, growth_limit_bytes: int) -> None:
    """The trainable: does ``config["job"]`` and reports its epochs, then its result, to Tune."""
    from ray.train import ScalingConfig
    from ray.train.torch import TorchTrainer

    # How long Tune lets a stopped trial unwind before it gives up the next one for it; 2 s are few on a busy machine.
    os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", "120")
    job = LaneJob.from_json(config["job"])
    workspace = _workspace(held, settings)

    def train_loop() -> None:
        result = do_job(workspace, job, tune.report)
        # A refit's files live as long as the process that put them into the object store.
        if _grown_bytes() > growth_limit_bytes and job.kind != JobKind.REFIT:
            tune.report({"report": result})
            # The report is taken in. Tune ends a process whose trial raises, and the next job gets a fresh one.
            raise _OutgrownError(f"own memory grew by more than {growth_limit_bytes} bytes")
        # "done" with the result: without it Tune would have to ask once more for the end of the trial.
        tune.report({"report": result, "done": True})

    # num_workers=0 is Ray Train's local mode: the same trainer in this process, without a worker group of its own.
    TorchTrainer(train_loop, scaling_config=ScalingConfig(num_workers=0, use_gpu=workspace.device.type == "cuda")).fit()


def do_job(workspace: Workspace, job: LaneJob, send: Send, group: Group | None = None) -> JobResult:
    """Do one job; together with the other workers where there is a ``group``.

    What is wrong with the strategy or the data is an answer (``reason``), not an exception: a trial that fails must not
    cost Tune the lane.
    """
    started = time.perf_counter()
    result = JobResult(lane=f"{ray.get_runtime_context().get_node_id()[:6]}-{os.getpid()}")
    try:
        if job.kind == JobKind.PRETRAIN:
            workspace.source_model(job.source_model)
            if is_hurried(workspace, job.source_model):
                result.note = f"{job.source_model}: in fewer steps, as the time budget asks"
        elif job.kind == JobKind.SURVEY:
            result.survey = survey(workspace, job.source_models)
        else:
            _trial(workspace, job, send, result, group or Group())
            if job.kind == JobKind.PROBE and not job.fold:
                result.forward_s = forward_seconds(workspace, job.strategy["source_model"])
    except (TrialError, UserError) as error:
        result.reason = str(error)
    except (RuntimeError, MemoryError) as error:
        if not _out_of_memory(error):
            raise
        result.reason = f"{OUT_OF_MEMORY}: {str(error).splitlines()[0]}"
    result.seconds = result.seconds or time.perf_counter() - started
    return result


def _trial(workspace: Workspace, job: LaneJob, send: Send, result: JobResult, group: Group) -> None:
    def report(metrics: dict[str, Any]) -> None:
        send({"report": EpochReport({key: float(value) for key, value in metrics.items() if key != "last"})})

    final = job.kind == JobKind.REFIT
    workspace.hold(job.strategy["source_model"])
    started = time.perf_counter()  # waiting for the source model is not what the strategy takes
    trial_job = TrialJob(Strategy.from_dict(job.strategy), job.fold, final, job.frequencies)
    trained = run_trial(workspace, trial_job, report, group)
    result.seconds = time.perf_counter() - started
    result.metrics = trained.metrics
    result.validation_index = trained.validation_index
    result.validation_probabilities = trained.validation_probabilities
    if final and group.rank == 0:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "model"
            write_checkpoint(folder, trained.model.cpu(), {})
            result.model_files = ray.put({path.name: path.read_bytes() for path in folder.iterdir()})


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or OUT_OF_MEMORY in str(error) or "can't allocate memory" in str(error)


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


class _OutgrownError(Exception):
    """The lane's process has grown beyond its limit and is to be replaced."""


@lru_cache(maxsize=1)
def _workspace(held: HeldData, settings: WorkspaceSettings) -> Workspace:
    """The process's workspace; a lane serves one search at a time."""
    return Workspace(ray.get(held.reference), settings)
