"""Baselines: what is trained whatever the search proposes, in turn with what it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from raytl.search.jobs import JobKind, LaneJob
from raytl.search.plan.durations import Durations
from raytl.search.plan.exploration import Exploration
from raytl.search.plan.left_over import LeftOver
from raytl.search.plan.time_budget import TimeBudget
from raytl.search.records import TrialRecord, TrialStatus
from raytl.training.strategy import Strategy


class Baselines:
    """Takes them in once they are settled, and hands each out as soon as there is time for it.

    records: of all trials, as they come in. numbers: of jobs, from which to take the next. fold: that they are tried
    on. closed: whether the winner is being held against its controls already.
    """

    def __init__(
        self,
        exploration: Exploration,
        time: TimeBudget,
        durations: Durations,
        left_over: LeftOver,
        records: list[TrialRecord],
        numbers: Iterator[int],
        fold: int | None,
        closed: Callable[[], bool],
    ) -> None:
        self._exploration = exploration
        self._time = time
        self._durations = durations
        self._left_over = left_over
        self._records = records
        self._numbers = numbers
        self._fold = fold
        self._closed = closed
        self._waiting: list[tuple[str, Strategy]] | None = None

    @property
    def settled(self) -> bool:
        """Whether it is known which there are."""
        return self._waiting is not None

    def settle(self, trained: Mapping[str, Strategy]) -> None:
        """Take them in, by name; those that were tried already are not tried again."""
        tried = {record.strategy_key for record in self._records if record.status != TrialStatus.INTERRUPTED}
        self._waiting = [(name, strategy) for name, strategy in trained.items() if strategy.key not in tried]

    def next_trained(self) -> LaneJob | None:
        """Baselines and strategies of the search in turn, so that what promises most waits for no baseline."""
        given = sum(record.kind == JobKind.BASELINE for record in self._records)
        if given <= self._exploration.tried:
            return self._next() or self._exploration.next_job()
        return self._exploration.next_job() or self._next()

    def _next(self) -> LaneJob | None:
        """The next that there is time for; what there is none for may have some once others tell what they take.

        None any more once the winner is held against its controls, which are its own.
        """
        assert self._waiting is not None
        if self._closed():
            return None
        for entry in list(self._waiting):
            name, strategy = entry
            if self._allows(strategy):
                self._waiting.remove(entry)
                return LaneJob(next(self._numbers), JobKind.BASELINE, strategy.to_dict(), self._fold, baseline=name)
        return None

    def _allows(self, strategy: Strategy) -> bool:
        """Whether the time budget has room for one, by what it is expected to take.

        The first training keeps none for controls: those of a head on frozen features are trainings themselves.
        """
        if not self._time.limited:
            return True
        seconds = self._durations.of(strategy)
        trained = any(record.kind in (JobKind.BASELINE, JobKind.SEARCH) for record in self._records)
        allowed = self._time.allows(seconds, keep_controls=trained, may_win=True)
        if not allowed:
            self._left_over.refuse(seconds)
        return allowed
