"""Who does what: the jobs of a plan that were given out, those that still run, and the records of the trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from raytl.core.names import so_many
from raytl.search.jobs import TRIALS, JobKind, JobResult, LaneJob, Survey
from raytl.search.plan.time_budget import TimeBudget
from raytl.search.records import SearchListener, TrialRecord, TrialStatus
from raytl.training.strategy import Strategy

EARLIER = "earlier"
"""The phase in which is said what of an earlier search does not count."""
OTHER = "made by an earlier raytl, in which this was another strategy"
"""Why a trial that ended is tried anew."""

TOLD = (JobKind.SURVEY, JobKind.PRETRAIN, JobKind.PROBE, JobKind.BASELINE, JobKind.SEARCH, JobKind.CONFIRM)
PHASES = ("", *TOLD, JobKind.CONTROL, JobKind.REFIT)
"""In the order in which they are told of; the first is before them all."""
PLACES = 6
"""Decimal places of what a trial said that are kept."""


class Ledger:
    """Keeps the records, as jobs begin, report and end; decides nothing.

    records: of all trials, as they come in.
    """

    def __init__(self, records: list[TrialRecord], listener: SearchListener, time: TimeBudget) -> None:
        self._records = records
        self._listener = listener
        self._time = time
        self._jobs: dict[int, LaneJob] = {}
        self._running: set[int] = set()
        self._record_of: dict[int, TrialRecord] = {}
        self._before = 0.0  # seconds that an earlier search took, whose trials this one goes on with
        self._phase = PHASES[0]

    def restore(self, records: Sequence[TrialRecord]) -> None:
        """Take over the trials of a search that was interrupted: what was under way in it is interrupted too.

        So is one whose strategy is another one by now, as a head that read other features: it is tried anew, for what
        came of it is not to be mixed with what comes now.
        """
        for record in records:
            if record.status == TrialStatus.RUNNING:
                record.status = TrialStatus.INTERRUPTED
            elif Strategy.from_dict(record.strategy).key != record.strategy_key:
                record.status, record.reason = TrialStatus.INTERRUPTED, OTHER
            self._records.append(record)
            self._listener.on_trial(record)
        self._before = max((record.ended or 0.0 for record in records), default=0.0)
        others = sum(record.reason == OTHER for record in records)
        if others:
            trials = so_many(others, "trial is", "trials are")
            self._listener.on_phase(
                EARLIER, f"{trials} of an earlier raytl, in which the strategies were others: tried anew"
            )

    # --- what runs --------------------------------------------------------------------------------------------------

    def running(self) -> list[LaneJob]:
        """The jobs that were given out and have not ended."""
        return [self._jobs[number] for number in self._running]

    def running_kinds(self) -> set[JobKind]:
        """What they are for."""
        return {job.kind for job in self.running()}

    def running_models(self) -> set[str]:
        """Source models that a lane is pretraining now."""
        return {job.source_model for job in self.running() if job.kind == JobKind.PRETRAIN}

    def record_of(self, number: int) -> TrialRecord | None:
        """Of the trial that a job is; None of a job that is none."""
        return self._record_of.get(number)

    # --- beginnings and ends ----------------------------------------------------------------------------------------

    def start(self, job: LaneJob, survey: Survey | None, *, told: bool) -> LaneJob:
        """Enter a job, and give it what all jobs of its kind need to know.

        survey: None while there is none. told: whether it may be the beginning of a phase that the user is told of.
        """
        if survey is not None and job.kind in (*TRIALS, JobKind.REFIT):  # refits look at what trials looked at
            job = replace(job, frequencies=survey.frequencies, set_aside=tuple(sorted(survey.set_aside)))
        if job.kind == JobKind.REFIT:
            key = Strategy.from_dict(job.strategy).key
            tried = [r for r in self._records if r.strategy_key == key and r.status == TrialStatus.COMPLETED]
            job = replace(job, looks=not tried or any(len(record.answers) for record in tried))
        made = any(record.status == TrialStatus.COMPLETED for record in self._records)
        if job.kind in (JobKind.PRETRAIN, *TRIALS) and self._time.limited and made:
            job = replace(job, within_s=max(0.0, self._time.left() - self._time.refit_seconds()))
        self._jobs[job.number] = job
        self._running.add(job.number)
        # The rest of an earlier phase is not told of again.
        if told and PHASES.index(job.kind) > PHASES.index(self._phase):
            self._phase = job.kind
            self._listener.on_phase(job.kind, job.source_model or job.baseline or "")
        if job.kind in TRIALS:
            strategy = Strategy.from_dict(job.strategy)
            record = TrialRecord(
                len(self._records), job.kind, job.strategy, strategy.key, fold=job.fold or 0, baseline=job.baseline,
                asked=job.asked,
            )  # fmt: skip
            self._records.append(record)
            self._record_of[job.number] = record
            self._listener.on_trial(record)
        return job

    def report(self, number: int, metrics: dict[str, float]) -> TrialRecord | None:
        """Enter an epoch's metrics; the trial's record, None of a job that is none."""
        record = self._record_of.get(number)
        if record is None:
            return None
        epoch = int(metrics["epoch"])
        # A trial whose lane died starts again from its first epoch.
        record.history = [known for known in record.history if known["epoch"] < epoch]
        record.metrics = metrics
        record.score = metrics["score"]
        record.seconds = metrics.get("seconds", record.seconds)
        record.history.append(metrics)
        self._listener.on_trial(record)
        return record

    def close(self, number: int) -> LaneJob:
        """The job, which runs no longer."""
        self._running.discard(number)
        return self._jobs[number]

    def hand_back(self, number: int) -> LaneJob:
        """A job that goes on elsewhere, where what it needs is made."""
        self._jobs[number] = replace(self._jobs[number], features_of="")
        return self._jobs[number]

    def fill(self, record: TrialRecord, result: JobResult | None, reason: str | None, stopped: TrialStatus) -> None:
        """Enter what a trial brought. reason: why it failed, if it did; stopped: what it is where it has no result.

        The listener is told later, once all that the trial tells is known.
        """
        if result is not None:
            record.seconds, record.made_s, record.lane = result.seconds, result.made_s, result.lane
            record.answers = [round(share, PLACES) for share in result.answers]
            if result.validation_index is not None and result.validation_probabilities is not None:
                record.validated = [int(index) for index in result.validation_index]
                record.predicted = rounded(result.validation_probabilities)
        record.ended = self._before + self._time.used()
        if reason is not None:
            # With more time it may come to its end.
            given_up = result is not None and result.needs_s
            record.status = TrialStatus.INTERRUPTED if given_up else TrialStatus.FAILED
            record.reason, record.score = reason, None
        else:
            record.status = TrialStatus.COMPLETED if result is not None else stopped

    def interrupt(self) -> None:
        """Mark what still runs as interrupted."""
        for number in self._running:
            record = self._record_of.get(number)
            if record is not None:
                record.status = TrialStatus.INTERRUPTED
                self._listener.on_trial(record)
        self._running.clear()


def rounded(probabilities: np.ndarray) -> np.ndarray:
    """As they are kept: (v, k), float64 and read-only, to the bit what a text of so many places gives back."""
    kept = np.round(probabilities.astype(np.float64), PLACES)
    kept.setflags(write=False)
    return kept
