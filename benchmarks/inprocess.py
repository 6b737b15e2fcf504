"""A whole search in this process: the product's plan and jobs, one after the other, without Ray.

For judging what a search comes to on machines where Ray is not, and for many searches side by side.
"""

from __future__ import annotations

import time
from pathlib import Path

import raytl
from raytl.search.jobs import LaneJob
from raytl.search.lanes.here import do_here
from raytl.search.lanes.sizing import Lanes
from raytl.search.outcome import KeepModel, conclude
from raytl.search.plan.schedule import SearchPlan
from raytl.search.planning import SearchSettings, make_plan, make_workspace_settings
from raytl.search.records import SearchListener, SearchOutcome
from raytl.search.space.binding import BoundSpace
from raytl.training.workspace import Workspace


def search(
    task: raytl.Task,
    bound: BoundSpace,
    settings: SearchSettings,
    folder: Path,
    listener: SearchListener,
    device: str,
    keep: KeepModel | None = None,
) -> tuple[SearchOutcome, SearchPlan]:
    """The outcome of a search and its plan; refitted models go below ``folder``. keep: exports the winner."""
    lanes = Lanes(1, 1.0, 1.0 if device == "cuda" else 0.0)
    workspace = Workspace(task.data, make_workspace_settings(task.data, bound.space, settings, lanes), folder / "cache")
    started = time.monotonic()
    test_images = 0 if task.test is None else len(task.test)
    plan = make_plan(bound, settings, workspace, lanes, folder, listener, test_images=test_images, started=started)
    while isinstance(job := plan.next_job(), LaneJob):
        do_here(plan, workspace, job)
    seconds = time.monotonic() - started
    return conclude(plan, task.data, task.test, workspace, seconds, interrupted=False, keep=keep), plan
