"""What is done for a job, wherever the lane is: the one place that turns jobs into training. No Ray in here."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from raytl.core import stopping
from raytl.core.errors import NotWrittenError, UserError, cause
from raytl.core.stopping import OutOfTimeError
from raytl.search.jobs import EpochReport, JobKind, JobResult, LaneJob, times_forward, times_step
from raytl.search.propose.features import forward_seconds, step_seconds
from raytl.sources.checkpoint import checkpoint_files
from raytl.training.arrays import NotHereError, TooLongError
from raytl.training.devices import OUT_OF_MEMORY, gpu_fault, out_of_memory
from raytl.training.distributed import Group
from raytl.training.loop import ACCUMULATION, run_trial
from raytl.training.pretrain import is_hurried
from raytl.training.strategy import Strategy
from raytl.training.trial import TrialError, TrialJob
from raytl.training.workspace import Workspace

Send = Callable[[dict[str, Any]], None]
_LOG = logging.getLogger(__name__)
OVERTIME_S = 5.0
"""Seconds that a head may be solved for beyond its time: of a few hundred images it is there sooner."""


def do_job(workspace: Workspace, job: LaneJob, send: Send, group: Group | None = None) -> JobResult:
    """Do one job; together with the other workers where there is a ``group``.

    What is wrong with the strategy or the data is an answer (``reason``), not an exception: a trial that fails must not
    cost Tune the lane, nor a search that begins in its own process all of it. So is whatever a loss or a metric of
    one's own raises, with its traceback in the log. Raised is what says something of the process: that its GPU failed,
    or in a group that another worker may be gone.
    """
    started, group = time.perf_counter(), group or Group()
    result = JobResult(device=workspace.device.type)
    try:
        workspace.features_of = job.features_of
        # Workers that train together would have to agree: one that gives up alone would be waited for.
        workspace.gives_up = group.size == 1
        within_s = job.within_s if workspace.gives_up else None
        with workspace.cache.within(within_s), stopping.within(None if within_s is None else within_s + OVERTIME_S):
            _do(workspace, job, send, result, group)
    except TooLongError as error:
        uri = job.source_model or job.strategy["source_model"]
        result.reason, result.needs_s = f"{uri}: {error}", error.seconds
        if workspace.holds(uri):
            result.forward_s = forward_seconds(workspace, uri)
    except OutOfTimeError:
        uri = job.strategy["source_model"]
        result.needs_s = time.perf_counter() - started  # nobody knows: as long again
        result.reason = (
            f"{uri}: after {result.needs_s:.0f} s its head was not solved for, and the time budget is used up"
        )
        result.forward_s = forward_seconds(workspace, uri)
    except NotHereError:
        result.absent = True
    except (TrialError, UserError) as error:
        result.reason = str(error)
    # Whatever somebody else's component may raise: it would come again in any lane, and others need not use it.
    except Exception as error:
        if isinstance(error, RuntimeError | MemoryError) and out_of_memory(error):
            result.reason = f"{OUT_OF_MEMORY}: {cause(error)}"
        elif gpu_fault(error) is not None or (group.size > 1 and isinstance(error, RuntimeError)):
            raise
        else:
            _LOG.error("a job failed: %s", job.to_json(), exc_info=True)
            result.reason = f"{type(error).__name__}: {cause(error)}"
    result.seconds = result.seconds or time.perf_counter() - started
    return result


def _do(workspace: Workspace, job: LaneJob, send: Send, result: JobResult, group: Group) -> None:
    if job.kind == JobKind.PRETRAIN:
        workspace.source_model(job.source_model)
        result.hurried = is_hurried(workspace, job.source_model)
        if result.hurried:
            result.note = f"{job.source_model}: in fewer steps, as the time budget asks"
    elif job.kind == JobKind.WARM:
        pass
    elif job.kind == JobKind.SURVEY:
        # Of all lanes that a search ever starts one does this, and what it imports is a quarter of a lane's start.
        from raytl.search.propose.survey import survey

        result.survey = survey(workspace, job.source_models)
    else:
        _trial(workspace, job, send, result, group)
        _measure(workspace, job, result)


def _trial(workspace: Workspace, job: LaneJob, send: Send, result: JobResult, group: Group) -> None:
    def report(metrics: dict[str, Any]) -> None:
        send({"report": EpochReport({key: float(value) for key, value in metrics.items() if key != "last"})})

    final = job.kind == JobKind.REFIT
    workspace.hold(job.strategy["source_model"])
    result.hurried = is_hurried(workspace, job.strategy["source_model"])  # it may have been made here just now
    # Waiting for the source model is not what the strategy takes.
    started, made_s = time.perf_counter(), workspace.cache.made_s
    strategy = Strategy.from_dict(job.strategy)
    trial_job = TrialJob(strategy, job.fold, final, job.frequencies, job.set_aside, job.looks)
    trained = run_trial(workspace, trial_job, report, group)
    result.seconds, result.made_s = time.perf_counter() - started, workspace.cache.made_s - made_s
    result.metrics = trained.metrics
    parts = int(trained.metrics.get(ACCUMULATION, 1))
    if parts > 1:
        result.note = f"memory ran out in a step, so that its batches went through in {parts} parts, with one update"
    result.validation_index = trained.validation_index
    result.validation_probabilities = trained.validation_probabilities
    result.answers = tuple(trained.answers.tolist())
    if final and group.rank == 0:
        result.model_files = checkpoint_files(trained.model.cpu(), {})


def _measure(workspace: Workspace, job: LaneJob, result: JobResult) -> None:
    """How long an image takes, where that is asked of the job."""
    uri = job.strategy["source_model"]
    if times_forward(job.kind, job.fold):
        result.forward_s = forward_seconds(workspace, uri)
    if times_step(job.kind, job.strategy["head"], job.fold):
        result.step_s = step_seconds(workspace, uri)


def keep_files(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write a refit's checkpoint, in one step: a search that is killed and goes on takes the folder for a whole model.

    Raises NotWrittenError where the disk does not take it: no reason to choose another strategy, which would be as big.
    """
    try:
        staging = directory.with_name(f".{directory.name}")
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        for name, content in files.items():
            (staging / name).write_bytes(content)
        shutil.rmtree(directory, ignore_errors=True)
        staging.rename(directory)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise NotWrittenError(
            f"{directory}: the refitted model cannot be written ({why}). Free space or mend its permissions."
        ) from error
