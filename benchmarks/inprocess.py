"""A whole search in this process: the product's plan and jobs, one after the other, without Ray.

For judging what a search comes to on machines where Ray is not, and for many searches side by side.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import raytl
from raytl.search.jobs import JobKind, LaneJob
from raytl.search.lanes.sizing import Lanes
from raytl.search.lanes.work import do_job, keep_files
from raytl.search.outcome import conclude
from raytl.search.plan.schedule import SearchPlan
from raytl.search.planning import SearchSettings, make_plan, make_workspace_settings
from raytl.search.records import SearchListener, SearchOutcome
from raytl.search.space.binding import BoundSpace
from raytl.training.workspace import Workspace


def search(
    task: raytl.Task, bound: BoundSpace, settings: SearchSettings, folder: Path, listener: SearchListener, device: str
) -> tuple[SearchOutcome, SearchPlan]:
    """The outcome of a search and its plan; refitted models go below ``folder``."""
    lanes = Lanes(1, 1.0, 1.0 if device == "cuda" else 0.0)
    workspace = Workspace(task.data, make_workspace_settings(task.data, bound.space, settings, lanes), folder / "cache")
    started = time.monotonic()
    has_test = task.test is not None
    plan = make_plan(bound, settings, workspace, lanes, folder, listener, has_test=has_test, started=started)
    while isinstance(job := plan.next_job(), LaneJob):
        _do(plan, workspace, job)
    seconds = time.monotonic() - started
    return conclude(plan, task.data, task.test, workspace, seconds, interrupted=False), plan


class _StoppedError(BaseException):
    """The plan stops the trial."""


def _do(plan: SearchPlan, workspace: Workspace, job: LaneJob) -> None:
    def send(message: dict[str, Any]) -> None:
        if not plan.on_epoch(job.number, message["report"].metrics):
            raise _StoppedError

    try:
        result = do_job(workspace, job, send)
    except _StoppedError:
        plan.on_end(job.number, None)
        return
    if job.kind == JobKind.REFIT and result.model_files is not None:
        keep_files(Path(job.directory), result.model_files)
        result.model_files = None
    plan.on_end(job.number, result)
