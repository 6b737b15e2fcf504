"""The search as a sequence of jobs: pretrain, baselines, search, confirm, refit. Knows neither Ray nor the real time.

Lanes ask for the next job whenever one is free, so the phases overlap: while the last trials of the search run, free
lanes already confirm the strategies that lead so far, and refit the baselines. Only the refit of the winner waits for
all.
The same plan runs on Ray Tune and, in virtual time, on recorded learning curves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from raytl.search.jobs import TRIALS, JobKind, JobResult, LaneJob
from raytl.search.plan import standing
from raytl.search.plan.exploration import Exploration
from raytl.search.plan.halving import SuccessiveHalving
from raytl.search.plan.refits import Refits
from raytl.search.plan.time_budget import TimeBudget
from raytl.search.propose.prior import SourcePrior
from raytl.search.propose.sampler import TpeSampler
from raytl.search.records import SearchListener, TrialRecord, TrialStatus
from raytl.training.strategy import Strategy

CONFIRM_STRATEGIES = 3
PHASES = ("", *JobKind)
"""In the order in which they are told of; the first is before them all."""


@dataclass(frozen=True)
class PlanSettings:
    """How much to search.

    trials: of the search phase. folds: validation folds there are. lanes: jobs at a time. time_budget_s: for all phases
    together, None for no limit. patience: trials without a better one, min_gain: expected gain of another trial, at
    which to stop searching before that. refit_baselines: whether baselines will be compared on a test split.
    directory: where refits go. together: heads that a lane trains side by side; 1 for none.
    """

    trials: int
    folds: int
    lanes: int
    epochs: int
    directory: Path
    time_budget_s: float | None = None
    refit_baselines: bool = True
    patience: int | None = None
    min_gain: float | None = None
    together: int = 1


class Wait:
    """No job now; ask again when another one has ended."""


class SearchPlan:
    """Hands out jobs and takes in what came of them.

    clock: seconds, from any origin. started: when the time budget began, by that clock. prior: which source models to
    score, so that the sampler tries the promising ones first; None for none.
    """

    def __init__(
        self,
        settings: PlanSettings,
        sampler: TpeSampler,
        halving: SuccessiveHalving,
        baselines: dict[str, Strategy],
        pretraining: list[str],
        listener: SearchListener,
        clock: Callable[[], float],
        started: float | None = None,
        prior: SourcePrior | None = None,
    ) -> None:
        self.settings = settings
        self.records: list[TrialRecord] = []
        self.results: dict[int, JobResult] = {}
        self.baselines = baselines
        self.refits = Refits(settings.directory)
        self._listener = listener
        self._time = TimeBudget(
            settings.time_budget_s,
            clock,
            clock() if started is None else started,
            lanes=settings.lanes,
            refits=1 + (len(baselines) if settings.refit_baselines else 0),
            confirms=settings.folds > 1,
        )
        self._done = False
        self._numbers = count()
        sampler.leave_out(baselines.values())
        self._exploration = Exploration(
            sampler,
            halving,
            self._time,
            self.records,
            self._numbers,
            trials=settings.trials,
            epochs=settings.epochs,
            fold=self._first_fold(),
            patience=settings.patience,
            min_gain=settings.min_gain,
            together=settings.together,
        )
        self._jobs: dict[int, LaneJob] = {}
        self._running: set[int] = set()
        self._record_of: dict[int, TrialRecord] = {}
        self.prior = prior or SourcePrior({})
        self._unscored = list(self.prior.cuts)
        self._pretraining = list(pretraining)
        self._baselines = list(baselines.items())
        self._phase = PHASES[0]

    # --- jobs out ---------------------------------------------------------------------------------------------------

    def next_job(self, lane: int = 0) -> LaneJob | Wait | None:
        """The next job, ``Wait`` while it depends on running ones, None when all is done. lane: which one asks."""
        phases: tuple[Callable[[], LaneJob | None], ...] = (
            lambda: self._exploration.next_companion(lane),
            self._next_pretraining,
            self._next_prior,
            lambda: self._next_promising(lane),
            self._next_baseline,
            lambda: self._exploration.next_job(lane),
            self._next_confirm,
            lambda: self._exploration.next_left(self._running),
        )
        for propose in phases:
            job = propose()
            if job is not None:
                return self._start(job)
        refit = self._next_refit()
        self._done = refit is None
        return self._start(refit) if isinstance(refit, LaneJob) else refit

    def search_is_over(self) -> bool:
        """Whether no further strategy will be tried."""
        return self._exploration.is_over()

    def finished(self) -> bool:
        """Whether the last job was handed out and all came back."""
        return self._done and not self._running

    def restore(self, records: Sequence[TrialRecord]) -> None:
        """Take over the trials of a search that was interrupted, before the first job: none that ended is run again.

        records: by number, from 0 without a gap. What was under way when the search ended is tried first.
        """
        for record in records:
            if record.status in (TrialStatus.RUNNING, TrialStatus.INTERRUPTED):
                record.status = TrialStatus.INTERRUPTED
                if record.kind == JobKind.SEARCH:
                    self._exploration.sampler.try_next(Strategy.from_dict(record.strategy))
            else:
                self._learn_again(record)
            self.records.append(record)
            self._listener.on_trial(record)

    def _learn_again(self, record: TrialRecord) -> None:
        if record.kind == JobKind.BASELINE:
            self._exploration.observe(record)
            self._baselines = [entry for entry in self._baselines if entry[1].key != record.strategy_key]
        if record.kind == JobKind.SEARCH:
            self._exploration.restore(record)

    def _next_pretraining(self) -> LaneJob | None:
        if not self._pretraining:
            return None
        return LaneJob(next(self._numbers), JobKind.PRETRAIN, source_model=self._pretraining.pop(0))

    def _next_prior(self) -> LaneJob | None:
        """A source model to score. Not before the default recipe is under way, nor while the model is being made."""
        if self._baselines and len(self._baselines) == len(self.baselines):
            return None
        made = self._being_made()
        uri = next((uri for uri in self._unscored if uri not in made), None)
        if uri is None:
            return None
        self._unscored.remove(uri)
        return LaneJob(next(self._numbers), JobKind.PRIOR, source_model=uri, cuts=tuple(self.prior.cuts[uri]))

    def _being_made(self) -> set[str]:
        """Source models that a lane is pretraining now."""
        running = [self._jobs[number] for number in self._running]
        return {job.source_model for job in running if job.kind == JobKind.PRETRAIN}

    def _next_baseline(self) -> LaneJob | None:
        if not self._baselines:
            return None
        # The default recipe first; but while its source model is being made, one that need not wait.
        made = self._being_made()
        ready = (entry for entry in self._baselines if entry[1].source_model not in made)
        name, strategy = entry = next(ready, self._baselines[0])
        self._baselines.remove(entry)
        return LaneJob(next(self._numbers), JobKind.BASELINE, strategy.to_dict(), self._first_fold(), baseline=name)

    def _next_promising(self, lane: int) -> LaneJob | None:
        """The strategy that promises most, once the default recipe is under way: other baselines can wait for it."""
        default = next(iter(self.baselines), None)
        waiting = [name for name, _ in self._baselines]
        if not waiting or default in waiting or self._exploration.has_begun or not self.prior.complete():
            return None
        return self._exploration.next_job(lane)

    def _next_confirm(self) -> LaneJob | None:
        """The strategies that lead on the first fold, on the folds that they were not tried on yet; best first."""
        if self.settings.folds <= 1 or not self._time.allows_another(self.records):
            return None
        ended = [record for record in self.records if record.status != TrialStatus.INTERRUPTED]
        tried = {(record.strategy_key, record.fold) for record in ended}
        for fold in range(1, self.settings.folds):
            for key in standing.leaders(self.records, CONFIRM_STRATEGIES):
                if (key, fold) not in tried:
                    return LaneJob(next(self._numbers), JobKind.CONFIRM, self.strategy_of(key), fold)
        return None

    def _next_refit(self) -> LaneJob | Wait | None:
        if self.settings.refit_baselines:
            for name, strategy in self.baselines.items():
                if self.refits.wants(strategy.key):
                    return self.refits.start(next(self._numbers), strategy, name)
        if any(self._jobs[number].kind in TRIALS for number in self._running):
            return Wait()
        best = self.winner()
        if best is None:
            return None
        for key in (best, self.without_adaptation() if self.settings.refit_baselines else None):
            if key is not None and self.refits.wants(key):
                return self.refits.start(next(self._numbers), Strategy.from_dict(self.strategy_of(key)))
        # A refit can fail, and then the next best is due: nothing is over before the winner's has come back.
        return Wait() if self.refits.is_pending(best) else None

    def winner(self) -> str | None:
        """Key of the best strategy whose refit did not fail."""
        return next((key for key in self.ranking() if key not in self.refits.failed), None)

    def without_adaptation(self) -> str | None:
        """Key of the best strategy without an adaptation loss, where the winner has one: it is held against that."""
        best = self.winner()
        if best is None or self.strategy_of(best)["adaptation"] == "none":
            return None
        return next((key for key in self.ranking() if self.strategy_of(key)["adaptation"] == "none"), None)

    def strategy_of(self, key: str) -> dict[str, Any]:
        """The flat values of a strategy that was tried."""
        return next(record.strategy for record in self.records if record.strategy_key == key)

    def _first_fold(self) -> int | None:
        return 0 if self.settings.folds else None

    def _start(self, job: LaneJob) -> LaneJob:
        self._jobs[job.number] = job
        self._running.add(job.number)
        # A score takes a moment, and is told of when all are there; the rest of an earlier phase is not told of again.
        if job.kind != JobKind.PRIOR and PHASES.index(job.kind) > PHASES.index(self._phase):
            self._phase = job.kind
            self._listener.on_phase(job.kind, job.source_model or job.baseline or "")
        if job.kind in TRIALS:
            strategy = Strategy.from_dict(job.strategy)
            record = TrialRecord(
                len(self.records), job.kind, job.strategy, strategy.key, fold=job.fold or 0, baseline=job.baseline
            )
            record.companion = self._exploration.is_companion(job.number)
            self.records.append(record)
            self._record_of[job.number] = record
            self._listener.on_trial(record)
        return job

    # --- results in -------------------------------------------------------------------------------------------------

    def on_epoch(self, number: int, metrics: dict[str, float], *, known: bool = False) -> bool:
        """Take in an epoch's metrics; False stops the trial. known: see :meth:`Exploration.on_epoch`."""
        record = self._record_of.get(number)
        if record is None:
            return True
        epoch = int(metrics["epoch"])
        # A trial whose lane died starts again from its first epoch.
        record.history = [known for known in record.history if known["epoch"] < epoch]
        record.metrics = metrics
        record.score = metrics["score"]
        record.seconds = metrics.get("seconds", record.seconds)
        record.history.append(metrics)
        self._listener.on_trial(record)
        if record.kind == JobKind.SEARCH:
            return self._exploration.on_epoch(number, epoch, record.score, known=known)
        if record.kind == JobKind.BASELINE:
            self._exploration.halving.record(epoch, record.score)
        return True

    def on_end(self, number: int, result: JobResult | None, error: str | None = None) -> None:
        """Take in the end of a job. result None: it was stopped early, or (with ``error``) its lane died."""
        job = self._jobs[number]
        self._running.discard(number)
        reason = error or (result.reason if result else None)
        if job.kind == JobKind.PRIOR:
            self._end_prior(job.source_model, result)
            return
        if job.kind == JobKind.REFIT:
            self.refits.end(job, reason)
            return
        if result is not None and result.note:
            self._listener.on_phase(job.kind, result.note)
        record = self._record_of.get(number)
        if record is None:
            return
        if result is not None:
            record.seconds, record.lane = result.seconds, result.lane
            self.results[record.number] = result
        if reason is not None:
            record.status, record.reason, record.score = TrialStatus.FAILED, reason, None
        else:
            stopped = self._exploration.stopped_for(number)
            record.status = TrialStatus.COMPLETED if result is not None else stopped
        if job.kind == JobKind.SEARCH:
            self._exploration.on_end(number, record)
        self._listener.on_trial(record)

    def _end_prior(self, uri: str, result: JobResult | None) -> None:
        """A source model that could not be scored keeps its place behind the others; its trials will say why."""
        self.prior.scores[uri] = result.cut_scores if result is not None else []
        order = self.prior.order()
        self._exploration.sampler.prefer(order)
        if self.prior.complete():
            self._phase = JobKind.PRIOR
            self._listener.on_phase(JobKind.PRIOR, ", ".join(order))

    def interrupt(self) -> None:
        """Mark what still runs as interrupted."""
        for number in self._running:
            record = self._record_of.get(number)
            if record is not None:
                record.status = TrialStatus.INTERRUPTED
                self._listener.on_trial(record)
        self._running.clear()

    # --- the standing -----------------------------------------------------------------------------------------------

    def ranking(self) -> list[str]:
        """Strategy keys, best first."""
        return standing.ranking(self.records)

    def of_strategy(self, key: str) -> list[TrialRecord]:
        """The completed trials of a strategy, one per fold."""
        return standing.completed(self.records, key)
