"""Jobs done in this very process: no lane, no Ray. How a search begins while its cluster starts."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from raytl.core.errors import NotWrittenError
from raytl.core.stopping import StoppedError, stoppable
from raytl.search.jobs import JobKind, LaneJob
from raytl.search.lanes.work import do_job, keep_files
from raytl.search.plan.schedule import SearchPlan
from raytl.tasks import LabelledImages
from raytl.training.devices import gpu_fault
from raytl.training.material import ELSEWHERE
from raytl.training.strategy import Strategy
from raytl.training.workspace import Workspace


class _TrialStoppedError(BaseException):
    """The plan stops the trial."""


def do_here(plan: SearchPlan, workspace: Workspace, job: LaneJob, stop: threading.Event | None = None) -> None:
    """Do a job that the plan handed out, and tell it what came of it.

    stop: once it is set the job is given up with a StoppedError, and the plan is told nothing.
    """

    def send(message: dict[str, Any]) -> None:
        if not plan.on_epoch(job.number, message["report"].metrics):
            raise _TrialStoppedError

    try:
        with stoppable(stop):  # what it brought is kept whole
            result = do_job(workspace, job, send)
    except _TrialStoppedError:
        plan.on_end(job.number, None)
        return
    result.lane = "driver"
    if job.kind == JobKind.REFIT and result.model_files is not None:
        keep_files(Path(job.directory), result.model_files)
        result.model_files = None
    plan.on_end(job.number, result)


class Beginning:
    """The jobs of a search that train nothing, done by a thread of this process until there are lanes.

    Ray and the first lanes take ten seconds to start, and more where others use the machine; in that time there is a
    first model, and what it is worth is told by more than a fold. Once a lane is up, what was begun is finished and the
    rest is left to the lanes. Until then the plan is this thread's alone. The thread computes with as many threads as a
    lane has, so the numbers are those that a lane would give.
    """

    def __init__(self, plan: SearchPlan, workspace: Workspace) -> None:
        self._plan = plan
        self._workspace = workspace
        self._ready = threading.Event()
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        self.fault: str | None = None
        """What this process's GPU said when it failed; nothing computes on it here from then on."""
        self.left: LaneJob | None = None
        """The job that it failed in, for a lane: with a process of its own, which may have another GPU."""
        self._thread = threading.Thread(target=self._run, name="raytl-beginning", daemon=True)

    def __enter__(self) -> Beginning:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """After an error nothing more is begun, and what runs is stopped."""
        self.stop()

    @property
    def goes_on(self) -> bool:
        """Whether the thread has the plan."""
        return self._thread.is_alive()

    @property
    def has_model(self) -> bool:
        """Whether there is a first model, so that lanes may start: before, their start would be in its way."""
        return bool(self._plan.refits.done)

    def hand_over(self) -> None:
        """Begin nothing new: a lane is up."""
        self._ready.set()

    def stop(self) -> None:
        """Begin nothing more, and wait until what runs has been given up, or written where it is at that.

        The plan takes it for running until it is told that it was interrupted.
        """
        self._stopped.set()
        self._thread.join()

    def finish(self) -> None:
        """Wait for what was begun; raises what went wrong with it."""
        self.hand_over()
        self._thread.join()
        if self.fault is None:
            self._workspace.residents.release()  # the lanes are to have the device
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        job = None
        try:
            while not self._stopped.is_set():
                job = self._plan.next_quick(begin=not self._ready.is_set())
                if job is None:
                    return
                do_here(self._plan, self._workspace, job, self._stopped)
        except StoppedError:
            return
        except BaseException as error:  # noqa: BLE001, raised again in the main thread
            self.fault = gpu_fault(error)
            if self.fault is None:
                self._error = error
            else:
                self.left = job


def refit_on_all(
    workspace: Workspace, strategy: Mapping[str, Any], more: LabelledImages, directory: Path
) -> str | None:
    """Train a strategy on the target's labels and on more of them, into ``directory``.

    more: of a test that was opened; no figure may be taken from them afterwards. Why it could not be done, or None.
    """
    if workspace.data.target is None:
        return "the search used no target label, and its strategies learn from none"
    if workspace.elsewhere and not Strategy.from_dict(strategy).convex:
        return ELSEWHERE
    job = LaneJob(0, JobKind.REFIT, dict(strategy), None, directory=str(directory))
    result = do_job(with_more(workspace, more), job, lambda message: None)
    if result.reason is None and result.model_files is not None:
        try:
            keep_files(directory, result.model_files)
        except NotWrittenError as error:
            return str(error)
    return result.reason


def with_more(workspace: Workspace, more: LabelledImages) -> Workspace:
    """The same for a target with more images; it has some."""
    target = workspace.data.target
    assert target is not None
    joined = Workspace(replace(workspace.data, target=target.joined(more)), workspace.settings)
    joined.adopted = workspace.adopted
    return joined
