"""What a time budget had no room for: time left unused without a word would look like a search that is done."""

from __future__ import annotations

import math
from collections.abc import Sequence

from raytl.search.jobs import JobKind
from raytl.search.plan.time_budget import TimeBudget
from raytl.search.records import TrialRecord, TrialStatus

UNUSED = 0.2
"""Share of a time budget of which it is worth saying that it was left."""
ROOM = 3.0
"""Times that a training's time has to fit in after the probes: itself, a refit, and controls."""


class LeftOver:
    """Remembers the shortest training that there was no room for."""

    def __init__(self, time: TimeBudget, seconds: float | None, records: Sequence[TrialRecord]) -> None:
        self._time = time
        self._seconds = seconds
        self._records = records
        self._shortest = math.inf

    def refuse(self, seconds: float) -> None:
        """Note that a training of so many seconds was not begun for want of time."""
        self._shortest = min(self._shortest, seconds)

    def sentence(self) -> str:
        """Why time is left although nothing was trained, and which budget has room; empty where that is not so."""
        trained = any(r.kind != JobKind.PROBE and r.status == TrialStatus.COMPLETED for r in self._records)
        if self._seconds is None or trained or not math.isfinite(self._shortest):
            return ""
        if self._time.left() < UNUSED * self._seconds:
            return ""
        wanted = math.ceil((self._time.used() + ROOM * self._shortest) / 60)
        return (
            f"nothing was trained: the shortest training is expected to take {_spoken(self._shortest)}, with its refit "
            f"and controls more than the {_spoken(self._time.left())} that are left; --time-budget {wanted}m has room"
        )


def _spoken(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
