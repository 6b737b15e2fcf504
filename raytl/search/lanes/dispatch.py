"""Which jobs are on their way, and which lanes are free for more. No Ray in here."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from raytl.search.jobs import JobResult, LaneJob


@dataclass
class Dispatch:
    """A job on its way: its lane, how often its process died before, when it was handed out.

    warm: whether a process was to be there for it already. starved: whether its process was ended for its memory.
    fault: what the GPU said, where the process ended for that. node: name of the one that the lane is on, of a lane for
    heads alone.
    """

    job: LaneJob
    lane: int
    deaths: int = 0
    since: float = 0.0
    warm: bool = False
    begun: bool = False
    starved: bool = False
    result: JobResult | None = None
    error: str | None = None
    fault: str | None = None
    withdrawn: bool = False
    node: str = ""


class Places:
    """The lanes that are free.

    room: how many may run now; asked each time, so that lanes come and go with the cluster. warm: those whose process
    waits for a job, the one that was used last at the end. most: how many may run in any case, None for any number.
    """

    def __init__(self, room: Callable[[], int]) -> None:
        self._room = room
        self.warm: list[int] = []
        self.most: int | None = None

    def free(self, used: Collection[int]) -> int | None:
        """The warm lane that was used last, else the first cold one that there is room for. used: lanes with a job."""
        return self.warm[-1] if self.warm else self.cold(used)

    def cold(self, used: Collection[int]) -> int | None:
        """The first lane without a process that there is room for."""
        taken = {*used, *self.warm}
        if len(taken) >= (self._room() if self.most is None else min(self._room(), self.most)):
            return None
        return next(lane for lane in range(len(taken) + 1) if lane not in taken)
