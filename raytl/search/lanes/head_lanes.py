"""Lanes without a GPU beside lanes that have one: each does heads whose features are on its node. No Ray in here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from raytl.search.jobs import JobKind, JobResult, LaneJob
from raytl.search.lanes.dispatch import Dispatch
from raytl.search.plan.schedule import SearchPlan

FIRST = 1_000_000
"""The number of the first of them; those that train are counted from 0."""
DEATHS = 3
"""Of processes on a node, in a row, after which no other one is started there."""


class HeadLanes:
    """One on each node, once a lane with a GPU is known to be there.

    plan: whose heads they do (:class:`raytl.search.plan.head_work.HeadWork`). nodes: Ray's ids of the nodes that have
    room for one, by name; asked before one is started. threads: that each computes with.

    A lane is started by a job that does nothing, and has others once it is up, so that none waits for it. What it does
    not do (its process died, or the features are not kept there) is for the lanes with GPUs.
    trials: those under way, by Tune's ids. nothing_due: whether there is nothing to do until another job has ended.
    closed: whether there are to be none any more.
    """

    def __init__(self, plan: SearchPlan, nodes: Callable[[], Mapping[str, str]], threads: int) -> None:
        self.trials: dict[str, Dispatch] = {}
        self.nothing_due = False
        self.closed = False
        self._plan = plan
        self._nodes = nodes
        self._threads = threads
        self._seen: dict[str, int] = {}
        self._ids: dict[str, str] = {}
        self._warm: list[str] = []
        self._deaths: Counter[str] = Counter()

    def saw(self, lane: str) -> None:
        """Take in that a lane with a GPU is up. lane: its name, with its node's in front."""
        node = lane.rpartition("-")[0]
        if node and node not in self._seen:
            self._seen[node] = FIRST + len(self._seen)

    def suggest(self, trial_id: str, *, starts: bool) -> dict[str, Any] | None:
        """A trial's config; None where there is nothing to do. starts: whether a lane may be started."""
        if self.closed:
            return self._begin(trial_id, self._warm[0]) | {"leaves": True} if self._warm else None
        if not self.nothing_due:
            for node in self._warm:
                job = self._plan.next_head(node)
                if job is not None:
                    return self._begin(trial_id, node, job)
            self.nothing_due = True
        cold = self._cold() if starts else None
        return None if cold is None else self._begin(trial_id, cold)

    def _cold(self) -> str | None:
        """A node that has none yet, and room for one."""
        taken = {*self._warm, *(dispatch.node for dispatch in self.trials.values())}
        free = [node for node in self._seen if node not in taken and self._deaths[node] < DEATHS]
        if not free:
            return None
        self._ids |= self._nodes()
        return next((node for node in free if node in self._ids), None)

    def _begin(self, trial_id: str, node: str, job: LaneJob | None = None) -> dict[str, Any]:
        """Hand a job to a node's lane, or have it up."""
        lane = self._seen[node]
        if job is None:
            job = LaneJob(-1 - lane, JobKind.WARM)  # of which the plan knows nothing
        if node in self._warm:
            self._warm.remove(node)
        self.trials[trial_id] = Dispatch(job, lane, node=node)
        return {"job": job.to_json(), "lane": lane, "node": self._ids[node], "threads": self._threads}

    def needless(self) -> list[str]:
        """Trials of lanes that are still starting, which are not waited for."""
        found = [key for key, entry in self.trials.items() if entry.job.kind == JobKind.WARM and not entry.withdrawn]
        for key in found:
            self.trials[key].withdrawn = True
        return found

    def close(self) -> bool:
        """Have no such lanes any more: the memory is for others. Whether there were some, which leave once they can."""
        before, self.closed = self.closed, True
        self._plan.head_work.nodes.clear()
        return not before and bool(self._warm or self.trials)

    def ended(self, trial_id: str, report: Any, *, error: bool) -> Dispatch:
        """Take in the end of a trial. error: whether the process ended with it."""
        dispatch = self.trials.pop(trial_id)
        if isinstance(report, JobResult):
            dispatch.result = report
        node = dispatch.node
        if error:
            if dispatch.result is None:  # else it left after its work
                self._deaths[node] += 1
            self._plan.head_work.nodes.discard(node)
        elif not dispatch.withdrawn:
            self._deaths[node] = 0
            self._warm.append(node)
            if not self.closed:
                self._plan.head_work.nodes.add(node)
        return dispatch
