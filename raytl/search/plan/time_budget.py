"""How a time budget is shared between searching, confirming and refitting."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from raytl.search.records import TrialRecord, TrialStatus

CONFIRM_SHARE = 0.25
"""Of the budget, what confirming may take."""


class TimeBudget:
    """Until when there may be another trial, by what trials took so far.

    seconds: for all phases together, None for no limit. clock, started: seconds from any common origin. lanes: jobs at
    a time. refits: how many models will be trained at the end. confirms: whether leaders are tried on further folds.
    """

    def __init__(
        self,
        seconds: float | None,
        clock: Callable[[], float],
        started: float,
        *,
        lanes: int,
        refits: int,
        confirms: bool,
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._started = started
        self._lanes = lanes
        self._refits = refits
        self._confirms = confirms

    def search_is_over(self, records: Sequence[TrialRecord]) -> bool:
        """Whether the search phase must end, so that confirming and refitting still fit."""
        if self._seconds is None:
            return False
        confirm = CONFIRM_SHARE * self._seconds if self._confirms else 0.0
        return self._clock() >= self._started + self._seconds - self._refit_seconds(records) - confirm

    def allows_another(self, records: Sequence[TrialRecord]) -> bool:
        """Whether one more whole trial fits before the refits."""
        if self._seconds is None:
            return True
        needed = _trial_seconds(records) + self._refit_seconds(records)
        return self._clock() + needed < self._started + self._seconds

    def _refit_seconds(self, records: Sequence[TrialRecord]) -> float:
        """What the refits will take: the baselines what they took before, the winner and its rival the longest."""
        longest = _trial_seconds(records)
        known = [record.seconds for record in records if record.baseline and record.status == TrialStatus.COMPLETED]
        known = known[: self._refits - 1]
        return max(longest, (sum(known) + (self._refits - len(known) + 1) * longest) / self._lanes)


def _trial_seconds(records: Sequence[TrialRecord]) -> float:
    """What a full trial takes: the longest completed one, since refits are of the winner, not of the average."""
    done = [record.seconds for record in records if record.status == TrialStatus.COMPLETED]
    return max(done, default=0.0)
