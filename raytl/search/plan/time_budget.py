"""How a time budget is shared between probing, searching, confirming, controls and refitting."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Collection, Sequence

from raytl.search.records import TrialRecord, TrialStatus
from raytl.sources.heads import CONVEX

CONFIRM_SHARE = 0.35
"""Of the budget, what confirming may take."""
CONTROL_SHARE = 0.15
"""Of the budget, what holding the winner against its controls may take."""
TEST_SHARE = 0.3
"""Of the budget, what is kept at most for opening the test split: many images take as long as they take."""
YARDSTICK_SHARE = 0.1
"""Of a search's seconds, what the yardstick of its model may take; of a budget it is kept."""
YARDSTICK_OVER_S = 10.0
"""Seconds that a yardstick takes at least with a network's features: where a time budget's share is less, nothing is
kept for it. It is made all the same in time that was not used, where there is such."""
LEAST_ROOM_S = 3.0
"""Of a time budget, that what the model is judged by is worth beginning in; less is not kept for it."""
JUDGING_SHARE = 0.2
"""Where it tells how often answers on unlabelled images are right, of a short budget; those seconds at most."""
SOLVED_AT_LEAST = 4
"""Times that a head is solved for, for a yardstick: twice to see how long it takes, and for two folds."""
YARDSTICK_LEAST_S = 6.0
"""Seconds that what the model will be judged by later may take however short the search was."""
TRAINED_SHARE, TRAINED_MOST_S = 0.5, 30.0
"""Where the model is trained for it once more and there is no time budget: of a short search it may take half as long
again, up to so many seconds. A small network on a few dozen images takes two for each fold."""
CONFIRMED = 4
"""Strategies that are tried on all folds."""
CONTROLS = 3
"""Controls that are reckoned with before the winner is known, of those that a winner may have."""


class TimeBudget:
    """Until when there may be another trial, by what trials took so far.

    seconds: for all phases together, None for no limit. clock, started: seconds from any common origin. records: of all
    trials, as they come in. lanes: jobs at a time. tested: whether there is a test split, on which baselines and
    controls are compared after a refit. folds: of the validation; control_folds: those on which the controls are held
    against the winner, all unless said. test_seconds: what opening the test split is expected to take, after all else.
    refits: of the winner, one after the other. yardstick_s: what is kept for its yardstick, between these.
    leader: key of the strategy that leads, None while none does: its controls are trained as its likeness. may_win:
    keys of the strategies of which the winner will be, all unless said. confirm_seconds: what one lane takes to try the
    leaders on the folds that they were not tried on; all of them, unless said, on all but the first.
    """

    def __init__(
        self,
        seconds: float | None,
        clock: Callable[[], float],
        started: float,
        records: Sequence[TrialRecord],
        *,
        lanes: int,
        tested: bool,
        folds: int,
        control_folds: int | None = None,
        test_seconds: Callable[[], float] = lambda: 0.0,
        refits: int = 1,
        yardstick_s: float = 0.0,
        leader: Callable[[], str | None] = lambda: None,
        may_win: Callable[[], Collection[str]] | None = None,
        confirm_seconds: Callable[[], float] | None = None,
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._started = started
        self._records = records
        self._lanes = lanes
        self._tested = tested
        self._folds = folds
        self._control_folds = folds if control_folds is None else control_folds
        self._test_seconds = test_seconds
        self._refits = refits
        self._yardstick_s = yardstick_s
        self._leader = leader
        self._may_win = may_win
        self._confirm_seconds = confirm_seconds

    @property
    def limited(self) -> bool:
        """Whether there is a limit at all."""
        return self._seconds is not None

    def used(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._started

    def left(self) -> float:
        """Seconds until the yardstick is to be made and the test split opened."""
        if self._seconds is None:
            return math.inf
        test_s = min(self._test_seconds(), TEST_SHARE * self._seconds)
        return self._seconds - self.used() - self._yardstick_seconds() - test_s

    def spare(self) -> float:
        """Seconds, once the winner was refitted, besides what the test split and the model to be shipped will take.

        What is kept for the yardstick is among them.
        """
        return self.left() + self._yardstick_seconds() - self.shipping_seconds()

    def search_is_over(self) -> bool:
        """Whether the search phase must end, so that what follows still fits."""
        if self._seconds is None:
            return False
        trial_s = usual_seconds(self._records)
        confirm_s = CONFIRM_SHARE * self._seconds
        all_s = (
            CONFIRMED * max(0, self._folds - 1) * trial_s if self._confirm_seconds is None else self._confirm_seconds()
        )
        confirm_s = min(confirm_s, all_s / self._lanes) if trial_s else confirm_s
        return self.left() <= self._control_seconds() + self.refit_seconds() + confirm_s

    def allows(self, seconds: float, *, keep_controls: bool = True, may_win: bool = False) -> bool:
        """Whether a job of so many seconds fits before what must follow it.

        keep_controls: whether controls must. may_win: whether it tries a strategy whose refit would take as long.
        """
        if self._seconds is None:
            return True
        after = max(self.refit_seconds(), self._refits * seconds if may_win else 0.0)
        if keep_controls:
            after += self._control_seconds()
        return seconds + after < self.left()

    def _control_seconds(self) -> float:
        """What holding the winner against its controls will take.

        A leader that takes longer than usual has controls that do. Those of a head are trainings: of the usual length.
        """
        assert self._seconds is not None
        trial_s = max(usual_seconds(self._records), trial_seconds(self._leaders_trials()))
        rounds = 1 if self._tested else max(1, self._control_folds)
        return min(CONTROL_SHARE * self._seconds, CONTROLS * rounds * trial_s / self._lanes)

    def _yardstick_seconds(self) -> float:
        """What is kept for the yardstick: nothing where the leader's takes longer, and will not be made."""
        if not self._yardstick_s:
            return 0.0
        trials = self._leaders_trials()
        solved = bool(trials) and trials[0].strategy.get("head") in CONVEX
        needed_s = trial_seconds(trials) * (SOLVED_AT_LEAST if solved else 1)
        return self._yardstick_s if needed_s <= self._yardstick_s else 0.0

    def _leaders_trials(self) -> list[TrialRecord]:
        leader = self._leader()
        return [record for record in self._records if record.strategy_key == leader]

    def shipping_seconds(self) -> float:
        """What is still to come once the winner was refitted: the model to be shipped, where that is another one."""
        return (self._refits - 1) * self.again_seconds()

    def refit_seconds(self) -> float:
        """What the winner's refit will take at the longest; a job in another lane may have to end before it."""
        return self._refits * self.again_seconds()

    def again_seconds(self) -> float:
        """What training the winner once more will take at the longest."""
        if self._may_win is None:
            return trial_seconds(self._records)
        keys = self._may_win()
        return trial_seconds([record for record in self._records if record.strategy_key in keys])


def yardstick_seconds(budget_s: float | None, *, judged: bool = False) -> float:
    """What is kept of a time budget for the yardstick of the model; nothing of one that is too short for it.

    judged: whether it tells how often the model is right on unlabelled images: of a minute that is worth more than
    another strategy.
    """
    share_s = YARDSTICK_SHARE * (budget_s or 0.0)
    if share_s >= YARDSTICK_OVER_S:
        return share_s
    judging_s = min(JUDGING_SHARE * (budget_s or 0.0), YARDSTICK_OVER_S) if judged else 0.0
    return judging_s if judging_s >= LEAST_ROOM_S else 0.0


def unlimited_yardstick_seconds(search_s: float, *, convex: bool) -> float:
    """What the yardstick may take where there is no time budget. search_s: that the search took; convex: of a head."""
    least_s = YARDSTICK_LEAST_S if convex else min(TRAINED_MOST_S, TRAINED_SHARE * search_s)
    return max(least_s, YARDSTICK_SHARE * search_s)


def usual_seconds(records: Sequence[TrialRecord]) -> float:
    """What a trial takes, trained ones before all: the middle one."""
    completed = [record for record in records if record.status == TrialStatus.COMPLETED]
    trained = [record for record in completed if record.kind != "probe"]
    return statistics.median(record.seconds for record in trained or completed) if completed else 0.0


def trial_seconds(records: Sequence[TrialRecord]) -> float:
    """What a full trial takes once more: the longest completed one of these."""
    return max((record.again_s for record in records if record.status == TrialStatus.COMPLETED), default=0.0)
