"""The search phase of a plan: which strategies to try, when to stop one, when to stop trying."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from raytl.search.jobs import JobKind, LaneJob, Survey
from raytl.search.plan.halving import SuccessiveHalving, kind_of
from raytl.search.plan.settings import PlanSettings
from raytl.search.plan.stopping import expected_gain
from raytl.search.plan.time_budget import CONFIRMED, TimeBudget, trial_seconds
from raytl.search.propose.sampler import Handle, SpaceExhaustedError, TpeSampler
from raytl.search.records import TrialRecord, TrialStatus
from raytl.training.strategy import Strategy

DEAR = 40
"""Strategies in a row that there is no time for, after which the search for one that there is is given up."""
PROPOSED = 4
"""Of them, by what the sampler has learned, as are those that are recommended; the others are drawn. What there is time
for is then a question of chance more than of merit, and a proposal takes a hundred times longer."""
FAILING = 20
"""Strategies in a row that failed, after which no further one is tried: with time alone to end a search there would be
hundreds, each as its predecessor."""


class Exploration:
    """Proposes strategies and learns from what they score.

    records: all trials of the plan, as it goes on. numbers: of jobs, from which to take the next. seconds: that
    training a strategy is expected to take. refuse: told these of one that there is no time for. tried: strategies that
    were given out. exhausted: whether none is left of the source models that joined in.
    """

    def __init__(
        self,
        settings: PlanSettings,
        sampler: TpeSampler,
        halving: SuccessiveHalving,
        time: TimeBudget,
        records: list[TrialRecord],
        numbers: Iterator[int],
        *,
        seconds: Callable[[Strategy], float],
        refuse: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self.sampler = sampler
        self.halving = halving
        self._time = time
        self._records = records
        self._numbers = numbers
        self._settings = settings
        self._trials = settings.trials
        self._seconds = seconds
        self._refuse = refuse
        self._begun = False
        self._handles: dict[int, Handle] = {}
        self._furthest: dict[int, int] = {}
        self._out_of_time: set[int] = set()
        self.tried = 0
        self.exhausted = False
        self._too_dear = False
        self._refused: list[Strategy] = []
        self._passed_over: list[tuple[float, Strategy]] = []
        self._since_best = 0
        self._failing = 0
        self._best_score = float("-inf")

    # --- strategies out ---------------------------------------------------------------------------------------------

    def begin(
        self,
        order: Sequence[str],
        survey: Survey,
        *,
        leave_out: Sequence[Strategy],
        ahead: Sequence[Strategy],
        probes: Sequence[TrialRecord],
        hold_back: Sequence[str],
    ) -> None:
        """Begin to propose, now that it is known what promises most.

        order: of the source models, best first. leave_out: strategies that are tried anyway. ahead: to be proposed
        before all others. probes: what is known already. hold_back: source models that did not join in yet.
        """
        self._begun = True
        self.sampler.leave_out(leave_out)
        self.sampler.prefer(order, survey.domains)
        self.sampler.hold_back(hold_back)
        for strategy in ahead:
            self.sampler.try_next(strategy)
        for record in probes:
            strategy = Strategy.from_dict(record.strategy)
            if record.score is not None and self.sampler.contains(strategy):
                self.sampler.tell(self.sampler.adopt(strategy), score=record.score)

    def next_job(self) -> LaneJob | None:
        """A new strategy."""
        if not self._begun or self.is_over():
            return None
        try:
            found = self._affordable()
        except SpaceExhaustedError:
            self.exhausted = True
            return None
        if found is None:
            self._too_dear = True
            return None
        return self._job(*found)

    def _job(self, handle: Handle, strategy: Strategy) -> LaneJob:
        self.tried += 1
        number = next(self._numbers)
        self._handles[number] = handle
        return LaneJob(number, JobKind.SEARCH, strategy.to_dict(), self._settings.first_fold)

    def _affordable(self) -> tuple[Handle, Strategy] | None:
        """The next strategy that there is time to train, and once more should it win; None where none is in sight."""
        if not self._time.limited:
            return self.sampler.ask()
        for attempt in range(DEAR):
            found = self._proposed() if attempt < PROPOSED or self.sampler.has_first_now else self._drawn()
            if found is not None:
                return found
        return None

    def _proposed(self) -> tuple[Handle, Strategy] | None:
        """What the sampler proposes, where there is time for it."""
        handle, strategy = self.sampler.ask()
        if self._fits(strategy):
            return handle, strategy
        self.sampler.tell(handle, score=None)
        self._refuse(self._seconds(strategy))
        if len(self._refused) < DEAR:  # the first ones before all, which are recommended
            self._refused.append(strategy)
        else:
            self._passed_over.append((self._seconds(strategy), strategy))
        return None

    def _drawn(self) -> tuple[Handle, Strategy] | None:
        """One at random, where there is time for it."""
        strategy = self.sampler.draw()
        if self._fits(strategy):
            return self.sampler.adopt(strategy), strategy
        self._refuse(self._seconds(strategy))
        self._passed_over.append((self._seconds(strategy), strategy))
        return None

    def _fits(self, strategy: Strategy) -> bool:
        return self._time.allows(2 * self._seconds(strategy))

    @property
    def begun(self) -> bool:
        """Whether it is known what promises most, and strategies are proposed."""
        return self._begun

    def job_of(self, strategy: Strategy) -> LaneJob:
        """A strategy of the space that was asked for, beyond those that are to be tried."""
        handle = self.sampler.adopt(strategy)
        self._refused = [other for other in self._refused if other != strategy]
        self._passed_over = [(seconds, other) for seconds, other in self._passed_over if other != strategy]
        self._trials += 1
        return replace(self._job(handle, strategy), asked=True)

    def hold_back(self, source_models: Sequence[str]) -> None:
        """Propose nothing from these source models, which did not join in yet; and again from the others."""
        self.sampler.hold_back(source_models)
        self.exhausted = False

    def is_over(self) -> bool:
        """Whether no further strategy will be tried: none is left, or there have been enough."""
        return self.exhausted or self._too_dear or self.has_enough()

    def has_enough(self) -> bool:
        """Whether no further one is worth it: enough trials, all failing, no patience, too little to gain, no time."""
        if self.tried >= self._trials or self._failing >= FAILING:
            return True
        patience = self._settings.patience
        if patience is not None and self._since_best >= patience:
            return True
        if self._gains_too_little():
            return True
        return self.tried > 0 and self._time.search_is_over()

    def _gains_too_little(self) -> bool:
        """Whether another trial is expected to bring too little; not before every source model had its trial."""
        min_gain = self._settings.min_gain
        if min_gain is None or self.sampler.has_first:
            return False
        fold = self._settings.first_fold or 0  # a strategy on five folds is one, not five
        first = (r for r in self._records if r.fold == fold)
        ended = [r for r in first if r.kind not in (JobKind.CONFIRM, JobKind.CONTROL) and r.score is not None]
        full = [r.score for r in ended if r.status == TrialStatus.COMPLETED and r.score is not None]
        return expected_gain(full, len(ended)) < min_gain

    # --- scores in --------------------------------------------------------------------------------------------------

    def on_epoch(self, number: int, epoch: int, score: float) -> bool:
        """Take in a score; False stops the trial."""
        if epoch <= self._furthest.get(number, 0):
            return True  # a trial that was started again: what it had reached was reported and decided on before
        self._furthest[number] = epoch
        self.sampler.report(self._handles[number], epoch, score)
        if epoch >= self._settings.epochs:
            return True
        kind = kind_of(self._handles[number].strategy.to_dict())
        if not self.halving.goes_on(epoch, score, kind) and not self._is_among_leaders(score):
            return False
        if not self._time.search_is_over():
            return True
        if self._leads(score) and self._time.allows(trial_seconds(self._records)):
            return True
        self._out_of_time.add(number)
        return False

    def out_of_time(self, number: int) -> None:
        """Note that a trial is stopped because it could not come to its end."""
        self._out_of_time.add(number)

    def _is_among_leaders(self, score: float) -> bool:
        """Whether a trial beats one of the strategies that lead now, in the middle of training.

        Halving holds a trial against those of its kind, on few images: the second of three is stopped, though it may be
        ahead of all but one of any kind.
        """
        leaders = sorted(self._ended(), reverse=True)[:CONFIRMED]
        return len(leaders) == CONFIRMED and score > leaders[-1]

    def _leads(self, score: float) -> bool:
        """Whether a trial beats every completed one: cut off for time, it would be lost as the winner."""
        return all(score > other for other in self._ended())

    def _ended(self) -> list[float]:
        """Scores of strategies that came to their end on the fold that all are tried on: another may be easier."""
        ended = {
            record.strategy_key: record.score
            for record in self._records
            if record.status == TrialStatus.COMPLETED and record.kind != JobKind.CONTROL and record.score is not None
            if record.fold == (self._settings.first_fold or 0)
        }
        return list(ended.values())

    def stopped_for(self, number: int) -> TrialStatus:
        """Why a trial was stopped."""
        return TrialStatus.INTERRUPTED if number in self._out_of_time else TrialStatus.PRUNED

    def on_end(self, number: int, record: TrialRecord) -> None:
        """Take in the end of a trial."""
        self._tell(self._handles.pop(number), record)
        self._failing = self._failing + 1 if record.status == TrialStatus.FAILED else 0
        self._count_patience(record)

    def restore(self, record: TrialRecord) -> None:
        """Learn what a trial would have taught had it ended in this search."""
        strategy = Strategy.from_dict(record.strategy)
        self.observe(record)
        if self.sampler.contains(strategy):  # the space may have lost a source model since
            handle = self.sampler.adopt(strategy)
            for metrics in record.history:
                self.sampler.report(handle, int(metrics["epoch"]), metrics["score"])
            self._tell(handle, record)
        self.tried += 1
        self._trials += record.asked
        self._count_patience(record)

    def look_again(self) -> None:
        """What trials take is known better now: what seemed to take too long may not."""
        self._too_dear = False
        fitting = [strategy for strategy in self._refused if self._fits(strategy)]
        for strategy in fitting:
            self._refused.remove(strategy)
            self.sampler.give_again(strategy)
        # Of the many others, which are proposed like any once more, the shortest one speaks for all.
        shortest = min(self._passed_over, key=lambda refused: refused[0], default=None)
        others = shortest is not None and self._fits(shortest[1])
        if others:
            self.sampler.let_come_again(strategy for _, strategy in self._passed_over)
            self._passed_over = []
        self.exhausted = self.exhausted and not fitting and not others

    def observe(self, record: TrialRecord) -> None:
        """Let the whole history of a trial from elsewhere count at the rungs."""
        for metrics in record.history:
            self.halving.record(int(metrics["epoch"]), metrics["score"], kind_of(record.strategy))

    def _tell(self, handle: Handle, record: TrialRecord) -> None:
        if record.history:
            last = record.history[-1]
            self.sampler.took(handle, last.get("seconds", record.seconds) / last["epoch"])
        self.sampler.tell(handle, score=record.score, pruned=record.status != TrialStatus.COMPLETED)

    def _count_patience(self, record: TrialRecord) -> None:
        if record.score is not None and record.score > self._best_score:
            self._best_score = record.score
            self._since_best = 0
        else:
            self._since_best += 1
