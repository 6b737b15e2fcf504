"""The plan as Ray Tune sees it: a searcher that hands out jobs, each for one particular lane."""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.tune.search import Searcher

from raytl.core.errors import UserError
from raytl.search.jobs import EpochReport, JobKind, JobResult, LaneJob
from raytl.search.lanes.dispatch import Dispatch, Places
from raytl.search.lanes.head_lanes import HeadLanes
from raytl.search.lanes.here import Beginning
from raytl.search.lanes.sizing import counted
from raytl.search.lanes.store import is_full
from raytl.search.lanes.work import keep_files
from raytl.search.plan.schedule import SearchPlan
from raytl.search.plan.settings import Wait
from raytl.search.records import Asked

RETRIES = 2
"""Times that a job is started again after its process died, before it counts as failed."""
BY_HAND = "stopped by hand"
"""The reason of a trial that somebody asked to stop."""
START_PATIENCE_S = 30.0
"""How long a job waits for the cluster to have room for its lane, before the next lane that is free takes it."""


class PlanSearcher(Searcher):  # type: ignore[misc]
    """Hands the plan's jobs to Tune as trials, one per free lane, and their ends back to the plan.

    room: how many lanes may run now; asked before each job, so that lanes come and go with the cluster.
    A job whose process dies is handed out again at once, in a lane that is known to work if there is one. (Tune's own
    retry is not used: it gives up a trial whose idle process died just before the trial began.) A death that came
    before the job did is not counted.
    beginning: while it has the plan, the lanes' processes are started, once there is a first model whose making that
    does not hold up; what they are to do is decided when they are up.
    Where a process is ended for its memory, there is a lane less from then on, and ``notice`` is told so. Where even a
    single lane is ended again and again, whatever it does, the search stops with what it has and can be resumed.
    asked: what people want stopped; looked at before each job and after each epoch. heads: lanes without a GPU, where
    others have one; they are the first to go where memory is short.
    """

    def __init__(
        self,
        plan: SearchPlan,
        room: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
        notice: Callable[[str], None] = lambda sentence: None,
        asked: Callable[[], Asked] = Asked,
        beginning: Beginning | None = None,
        heads: HeadLanes | None = None,
    ) -> None:
        super().__init__()
        self._beginning = beginning
        self._heads = heads
        self._asked = asked
        self.plan = plan
        self._places = Places(room)
        self._notice = notice
        self._too_large = 0  # jobs in a row that a single lane had no memory for
        self._exhausted = False
        self._clock = clock
        self._trials: dict[str, Dispatch] = {}
        self._again: deque[tuple[LaneJob, int]] = deque()
        self._nothing_due = self._all_done = False
        self._said_waiting = False
        self.homeless: str | None = None
        self.failure: BaseException | None = None
        self._answer: Any = None  # to Ctrl-C, of Tune

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Keep what the plan or its listeners raise for the user: Tune would wrap it in its own traceback."""
        try:
            yield
        except UserError as error:
            self.failure = error
            raise

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """A trial's config, None to be asked again later, FINISHED at the end."""
        asked = self._asked()
        if asked.stop or self._exhausted or self._is_interrupted():
            return str(Searcher.FINISHED)
        if self._beginning is not None:
            if self._beginning.goes_on:
                return self._warm_up(trial_id, self._beginning)
            self._take_over(self._beginning)
        with self._noting():
            if asked.strategies and self.plan.by_hand.take(asked.strategies):
                self._nothing_due = False
        if self._heads is not None:
            with self._noting():
                config = self._heads.suggest(trial_id, starts=not self._all_done)
            if config is not None:
                return config
        lane = self._places.free(self._used())
        if lane is None or (self._nothing_due and not self._again):
            return None
        if self.homeless is not None and lane in self._places.warm:
            return None  # the lane is kept for the job that has waited too long for one of its own
        if self._again:
            job, deaths = self._again.popleft()
        else:
            with self._noting():
                due = self.plan.next_job()
            if not isinstance(due, LaneJob):
                self._nothing_due = True  # until another job has ended
                self._all_done = not isinstance(due, Wait)
                if self._heads is not None:
                    self._heads.nothing_due = False  # with no more to train, heads may be due that were not before
                # A job that still runs may yet die and be due again.
                runs = self._trials or (self._heads is not None and self._heads.trials)
                return str(Searcher.FINISHED) if self._all_done and not runs else None
            job, deaths = due, 0
        warm = lane in self._places.warm
        if warm:
            self._places.warm.remove(lane)
        self._trials[trial_id] = Dispatch(job, lane, deaths, self._clock(), warm)
        return {"job": job.to_json(), "lane": lane}

    def _is_interrupted(self) -> bool:
        """Whether somebody pressed Ctrl-C: Tune's answer to it then gives way to the one that was there before.

        It looks for that once there is a trial, for which it asks for ten minutes while this process begins by itself.
        """
        answer = signal.getsignal(signal.SIGINT)
        self._answer = self._answer or answer
        return answer is not self._answer

    def _warm_up(self, trial_id: str, beginning: Beginning) -> dict[str, Any] | None:
        """Have a lane's process started before there is something for it to do."""
        lane = self._places.cold(self._used()) if beginning.has_model else None
        if lane is None:
            return None
        job = LaneJob(-1 - lane, JobKind.WARM)  # the plan, which counts from 0, knows nothing of it
        self._trials[trial_id] = Dispatch(job, lane, 0, self._clock())
        return {"job": job.to_json(), "lane": lane}

    def _take_over(self, beginning: Beginning) -> None:
        self._beginning = None
        try:
            beginning.finish()
        except BaseException as error:
            self.failure = error
            raise
        if beginning.left is not None:
            self._notice(f"the GPU failed in the search's own process ({beginning.fault}): the lanes go on")
            self._again.append((beginning.left, 0))

    def _used(self) -> set[int]:
        """Lanes with a job."""
        return {dispatch.lane for dispatch in self._trials.values()}

    def needless(self) -> list[str]:
        """Trials to stop: lanes that are still starting and that nothing is left for."""
        if not self._all_done or self._again:
            return []
        heads = [] if self._heads is None else self._heads.needless()
        warming = (key for key, entry in self._trials.items() if entry.job.kind == JobKind.WARM and not entry.withdrawn)
        return [*warming, *heads]

    def _under_way(self, trial_id: str) -> Dispatch | None:
        """A trial's job and lane, of whichever kind; None where it has ended."""
        heads = {} if self._heads is None else self._heads.trials
        return self._trials.get(trial_id) or heads.get(trial_id)

    def begun(self, trial_id: str) -> None:
        """The trial's lane is up."""
        dispatch = self._under_way(trial_id)
        assert dispatch is not None
        dispatch.begun = True

    def report(self, trial_id: str, report: EpochReport) -> bool:
        """Take in an epoch; False stops the trial."""
        dispatch, asked = self._under_way(trial_id), self._asked()
        assert dispatch is not None
        with self._noting():
            goes_on = self.plan.on_epoch(dispatch.job.number, report.metrics)
            if asked.trials and self.plan.trial_of(dispatch.job.number) in asked.trials:
                dispatch.error, goes_on = BY_HAND, False
        return goes_on and not asked.stop

    def raised(self, trial_id: str, error: str) -> None:
        """Note the exception that a trial ends with; it would come again in any lane."""
        dispatch = self._under_way(trial_id)
        assert dispatch is not None
        dispatch.error = error

    def broke(self, trial_id: str, fault: str) -> None:
        """Note what a trial's GPU said when it failed: that process computes nothing more, another may do the job."""
        dispatch = self._under_way(trial_id)
        assert dispatch is not None
        dispatch.fault = fault

    def starved(self, trial_id: str) -> None:
        """Ray ended the trial's process, because its node runs out of memory: from now on a lane less."""
        dispatch = self._under_way(trial_id)
        if dispatch is None:
            return
        dispatch.starved = True
        if self._heads is not None and self._heads.close():
            with self._noting():
                self._notice("memory ran out, and Ray ended a lane: going on without those that only solve for heads")
            return
        if dispatch.node:
            return
        left = max(1, len(self._trials) - 1 + len(self._places.warm))
        if left != self._places.most:
            self._places.most = left
            with self._noting():
                self._notice(f"memory ran out, and Ray ended a lane: going on with {counted(left)}")

    def _say_waiting(self) -> None:
        if not self._said_waiting:
            self._said_waiting = True
            with self._noting():
                self._notice(
                    "waiting for a node with the CPUs or GPUs of a lane: others hold them, or it is still to come"
                )

    def rehouse(self, placed: Callable[[str], bool]) -> str | None:
        """A trial to stop, because its job can have a warm lane at once instead of one that there is no room for.

        placed: whether a trial's lane has been given its resources. With more lanes than fit the cluster, or when a
        node is lost, jobs would otherwise wait for their lanes to the end of the search.
        """
        late = self._clock() - START_PATIENCE_S
        waiting = (key for key, entry in self._trials.items() if not entry.begun and entry.since < late)
        self.homeless = next((key for key in waiting if not placed(key)), None)
        if (
            self.homeless is not None
            and not any(entry.begun for entry in self._trials.values())
            and not self._places.warm
        ):
            self._say_waiting()
        if self.homeless is None or not self._places.warm:
            return None
        found, self.homeless = self.homeless, None
        self._trials[found].withdrawn = True
        return found

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keep the job's result: the lane may leave right after it."""
        report = result.get("report")
        dispatch = self._under_way(trial_id)
        if isinstance(report, JobResult) and dispatch is not None:
            if report.starved:
                self.starved(trial_id)
            else:
                dispatch.result = report

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial ended: by itself (its last report holds the result), stopped, or with its lane."""
        dispatch, report = self._trials.pop(trial_id, None), (result or {}).get("report")
        if self._heads is not None:
            self._heads.nothing_due = False
            if trial_id in self._heads.trials:
                self._nothing_due = False
                with self._noting():
                    self._end_head(self._heads.ended(trial_id, report, error=error), error)
        if dispatch is None:
            return
        self._nothing_due = False
        with self._noting():
            self._end(dispatch, report, error)

    def _tell(self, job: LaneJob, result: JobResult | None, error: str | None) -> None:
        """The plan of the end of a job, and the beginning of a lane that is up."""
        if job.kind != JobKind.WARM:
            self.plan.on_end(job.number, result, error)
        elif self._beginning is not None:
            self._beginning.hand_over()

    def _end_head(self, dispatch: Dispatch, error: bool) -> None:
        """Of a lane for heads alone: what it did not do is for the others."""
        job, result = dispatch.job, dispatch.result
        if job.kind == JobKind.WARM:
            return
        if result is not None and not result.absent:
            if result.model_files is not None:
                fetch_files(job, result)
            self._tell(job, result, None)
        elif result is None and (dispatch.error == BY_HAND or not error):  # stopped
            if dispatch.error is not None or not self._asked().stop:
                self._tell(job, None, dispatch.error)
        else:
            self._again.append((self.plan.hand_back(job.number, dispatch.node, absent=result is not None), 0))

    def _end(self, dispatch: Dispatch, report: Any, error: bool) -> None:
        if isinstance(report, JobResult) and report.starved:
            error = True  # of the lane's worker group, though Tune's own process lives
        elif isinstance(report, JobResult):
            dispatch.result = report
        if dispatch.result is not None and self._heads is not None:
            self._heads.saw(dispatch.result.lane)
        if dispatch.result is not None and dispatch.result.model_files is not None:
            fetch_files(dispatch.job, dispatch.result)
        if dispatch.withdrawn:
            self._again.append((dispatch.job, dispatch.deaths))
        elif not error:
            self._too_large = 0
            self._places.warm.append(dispatch.lane)
            if dispatch.result is not None or dispatch.error is not None or not self._asked().stop:
                self._tell(dispatch.job, dispatch.result, dispatch.error)
        elif dispatch.result is not None:
            self._tell(dispatch.job, dispatch.result, None)
        elif dispatch.starved and self._trials:
            self._again.append((dispatch.job, dispatch.deaths))  # others ran beside it: it was not too large by itself
        elif dispatch.warm and not (dispatch.begun or dispatch.starved or dispatch.error):
            # The process was dead before the job came to it. With a node all its idle lanes go, and are found out one
            # by one; the job has done nothing to them.
            self._again.append((dispatch.job, dispatch.deaths))
        elif dispatch.error is None and dispatch.deaths < RETRIES:
            self._again.append((dispatch.job, dispatch.deaths + 1))
        elif dispatch.starved and self._too_large:
            # One job may be too large by itself; where the next one is too, others have the memory, and all would fail.
            self._exhausted = True
            self._notice(
                "memory ran out again and again with a single lane, whatever it trained: the search stops with what it "
                "has; close other programs, then go on with raytl search --resume"
            )
        else:
            self._too_large += dispatch.starved
            died = f"its process died {RETRIES + 1} times (killed, out of memory, or a bug: see --verbose)"
            if dispatch.starved:
                died = "the machine has too little memory for it: close other programs, or choose smaller models"
            self._tell(dispatch.job, None, dispatch.error or dispatch.fault or died)

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher so as to restore it; the plan holds open files, and the journal restores."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a run is resumed from its own journal, not from Tune's pickles."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, likewise."""


def fetch_files(job: LaneJob, result: JobResult) -> None:
    """Write a refit's checkpoint where the plan wants it; a lost one is a failed refit.

    Raises NotWrittenError, which ends the search.
    """
    try:
        files: dict[str, bytes] = ray.get(result.model_files)
        keep_files(Path(job.directory), files)
    except ray.exceptions.RayError as error:
        lost = f"its model was lost with the process that held it ({type(error).__name__})"
        result.reason = "its model has no room in Ray's object store on the driver's node" if is_full(error) else lost
    result.model_files = None
