"""When probes have their turn among the other jobs of a search, and for how long."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from raytl.search.jobs import JobKind, LaneJob
from raytl.search.plan.durations import Durations
from raytl.search.plan.exploration import Exploration
from raytl.search.plan.probing import Probing
from raytl.search.plan.settings import PlanSettings
from raytl.search.plan.time_budget import TimeBudget
from raytl.search.records import TrialRecord, TrialStatus
from raytl.training.strategy import Strategy

PROBE_SHARE = 0.25
"""Of a time budget: once probes have taken so much of it, they are tried on no further folds."""
LATEST = 0.4
"""Share of a time budget after which they are not either, whatever took it."""


class ProbeTurns:
    """Asks for probes where there is time for them: at first, while the search goes on, and in what is left of it.

    numbers: of jobs, from which to take the next. records: of all trials, as they come in.
    """

    def __init__(
        self,
        probing: Probing,
        exploration: Exploration,
        time: TimeBudget,
        durations: Durations,
        settings: PlanSettings,
        records: Sequence[TrialRecord],
        numbers: Iterator[int],
    ) -> None:
        self._probing = probing
        self._exploration = exploration
        self._time = time
        self._durations = durations
        self._settings = settings
        self._records = records
        self._numbers = numbers

    def next_first(self, being_made: Collection[str]) -> LaneJob | None:
        """A probe, or a source model to make for one. being_made: models that a lane is making."""
        self.close()
        if not self._time.allows(self._probing.pretrain_s, self._records):
            self._probing.put_off()
        return self._probing.next_job(self._numbers, being_made)

    def close(self) -> None:
        """Have no probe tried on further folds once they have had their share of the time."""
        budget = self._settings.time_budget_s
        if budget is not None:
            spent = sum(record.seconds for record in self._records if record.kind == JobKind.PROBE)
            if spent > PROBE_SHARE * budget * self._settings.lanes or self._time.used() > LATEST * budget:
                self._probing.close()

    def next_late(self) -> LaneJob | None:
        """A source model whose turn has come: one joins in for every few strategies that were tried without it."""
        due = self._probing.due(self._exploration.tried) or (self._exploration.exhausted and self._probing.late())
        if not due or self._exploration.has_enough():
            return None
        if not self._time.allows(self._probing.pretrain_s, self._records):
            return None
        job = self._probing.next_late(self._numbers)
        self._exploration.hold_back(self._probing.late())
        return job

    def next_left_over(self) -> LaneJob | None:
        """Time in which nothing can be trained is of use to the choice between the probes."""
        trained = any(r.status == TrialStatus.COMPLETED and r.kind != JobKind.PROBE for r in self._records)

        def allows(strategy: Strategy) -> bool:
            seconds = self._durations.of(strategy)
            refit_s = self._time.refit_seconds(self._records) if trained else seconds
            return seconds + refit_s < self._time.left()

        return self._probing.next_left_over(self._numbers, allows)
