"""Strategies whose heads were trained along with another's, on their way through the search as trials of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from raytl.search.jobs import LaneJob


@dataclass(frozen=True)
class _Group:
    lane: int
    leader: int
    waiting: list[LaneJob]


class Companions:
    """Jobs that wait for the lane that trains their heads along with a leader's: it has their results, no other does.

    numbers: of all jobs that ever waited here.
    """

    def __init__(self) -> None:
        self.numbers: set[int] = set()
        self._groups: list[_Group] = []

    def add(self, lane: int, leader: LaneJob, jobs: Sequence[LaneJob]) -> None:
        """Jobs that a lane trains along with a leader, which it is given now."""
        self.numbers |= {job.number for job in jobs}
        self._groups.append(_Group(lane, leader.number, list(jobs)))

    def next_of(self, lane: int) -> LaneJob | None:
        """One that this lane has trained, now that it is free."""
        return self._pop(group for group in self._groups if group.lane == lane)

    def next_left(self, running: Iterable[int]) -> LaneJob | None:
        """One whose leader has ended, so that its lane would have taken it by now: the lane is busy, or lost.

        running: numbers of the jobs under way. Another lane has to train it again.
        """
        under_way = set(running)
        return self._pop(group for group in self._groups if group.leader not in under_way)

    def _pop(self, groups: Iterable[_Group]) -> LaneJob | None:
        group = next(iter(groups), None)
        if group is None:
            return None
        job = group.waiting.pop(0)
        if not group.waiting:
            self._groups.remove(group)
        return job
