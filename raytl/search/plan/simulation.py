"""A plan in virtual time: the same jobs, sampler and halving as on Ray Tune, against recorded learning curves.

No lane, no Ray and no clock on the wall, so the outcome depends on the seed alone and a search of an hour takes a
second (the idea is syne-tune's simulated backend; Salinas et al., 2022).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count

from raytl.search.jobs import JobResult, LaneJob
from raytl.search.plan.schedule import SearchPlan
from raytl.search.plan.settings import Wait


@dataclass(frozen=True)
class Curve:
    """What a job will do if nobody stops it.

    epochs: (selection score, seconds since the job's start) after epoch 1, 2, …; none for a job that reports none.
    seconds: of the whole job, 0 for those of its last epoch. reason: why it fails at its end, None where it succeeds.
    test_accuracy: of the final model; for those who compare searches, the plan never sees it. result: what it brings
    besides.
    """

    epochs: tuple[tuple[float, float], ...] = ()
    seconds: float = 0.0
    reason: str | None = None
    test_accuracy: float = float("nan")
    result: JobResult = field(default_factory=JobResult)

    @property
    def duration(self) -> float:
        """Seconds to the job's end."""
        return max(self.seconds, self.epochs[-1][1] if self.epochs else 0.0)

    def ended(self, lane: str) -> JobResult:
        """What the plan is told at the job's end."""
        return replace(self.result, seconds=self.duration, lane=lane, reason=self.reason)


Curves = Callable[[LaneJob], Curve]


@dataclass(frozen=True)
class Event:
    """Something that happened: what is ``start``, ``epoch``, ``stop`` (by the plan) or ``end`` (by itself)."""

    time_s: float
    lane: int
    job: LaneJob
    what: str
    epoch: int = 0


class VirtualClock:
    """Seconds since the start of the simulation; the plan's clock."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The present."""
        return self.now


NODE = "node"
"""The one that all lanes are on."""


def simulate(
    plan: SearchPlan, curves: Curves, clock: VirtualClock, *, lanes: int, heads: int = 0, overhead_s: float = 0.0
) -> list[Event]:
    """Run a plan to its end; returns all events in order of time.

    clock: the one that the plan was made with. heads: lanes beside them that have no GPU, numbered after them.
    overhead_s: what a lane needs before each job.
    As on Ray Tune a free lane is given the next job at once, and none is handed out beyond the lanes.
    Events of the same time come in the order in which they were scheduled.
    """
    return _Simulation(plan, curves, clock, lanes, overhead_s, heads).run()


@dataclass
class _Simulation:
    plan: SearchPlan
    curves: Curves
    clock: VirtualClock
    lanes: int
    overhead_s: float
    heads: int = 0
    events: list[Event] = field(default_factory=list)

    def run(self) -> list[Event]:
        self._order = count()
        self._due: list[tuple[float, int, int, LaneJob, Curve, int]] = []
        self._idle = list(reversed(range(self.lanes)))
        self._idle_heads = list(reversed(range(self.lanes, self.lanes + self.heads)))
        if self.heads:
            self.plan.head_work.nodes.add(NODE)
        self._asking = True
        self._fill()
        while self._due:
            self.clock.now, _, lane, job, curve, epoch = heapq.heappop(self._due)
            self._advance(lane, job, curve, epoch)
        return self.events

    def _fill(self) -> None:
        """Give every free lane a job, as long as there are jobs."""
        self._fill_heads()
        while self._idle and self._asking:
            job = self.plan.next_job()
            if isinstance(job, LaneJob):
                self._begin(self._idle.pop(), job)
            elif isinstance(job, Wait):
                break
            else:
                self._asking = False
        self._fill_heads()  # what is only left to be finished was not for them before

    def _fill_heads(self) -> None:
        while self._idle_heads and (job := self.plan.next_head(NODE)) is not None:
            self._begin(self._idle_heads.pop(), job)

    def _begin(self, lane: int, job: LaneJob) -> None:
        self._note(lane, job, "start")
        curve = self.curves(job)
        self._schedule(self.clock.now + self.overhead_s, lane, job, curve, 1)

    def _schedule(self, started: float, lane: int, job: LaneJob, curve: Curve, epoch: int) -> None:
        """Put the job's next report, or behind the last one its end, on the agenda."""
        seconds = curve.epochs[epoch - 1][1] if epoch <= len(curve.epochs) else curve.duration
        heapq.heappush(self._due, (started + seconds, next(self._order), lane, job, curve, epoch))

    def _advance(self, lane: int, job: LaneJob, curve: Curve, epoch: int) -> None:
        if epoch > len(curve.epochs):
            self._note(lane, job, "end")
            device = "cuda" if self.heads and lane < self.lanes else "cpu"
            self.plan.on_end(job.number, replace(curve.ended(f"{NODE}-{lane}"), device=device))
        else:
            score, seconds = curve.epochs[epoch - 1]
            self._note(lane, job, "epoch", epoch)
            if self.plan.on_epoch(job.number, {"epoch": float(epoch), "score": score, "seconds": seconds}):
                self._schedule(self.clock.now - seconds, lane, job, curve, epoch + 1)
                return
            self._note(lane, job, "stop", epoch)
            self.plan.on_end(job.number, None)
        (self._idle if lane < self.lanes else self._idle_heads).append(lane)
        self._fill()

    def _note(self, lane: int, job: LaneJob, what: str, epoch: int = 0) -> None:
        self.events.append(Event(self.clock.now, lane, job, what, epoch))
