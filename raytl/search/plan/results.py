"""What comes back of a plan's jobs: epochs as they are over, the ends of jobs, and what follows from both."""

from __future__ import annotations

from raytl.core.names import so_many
from raytl.search.jobs import JobKind, JobResult, LaneJob, Survey
from raytl.search.plan.durations import Durations
from raytl.search.plan.exploration import Exploration
from raytl.search.plan.first_model import FirstModel
from raytl.search.plan.halving import kind_of
from raytl.search.plan.head_work import HeadWork
from raytl.search.plan.ledger import Ledger
from raytl.search.plan.left_over import LeftOver
from raytl.search.plan.probing import Probing
from raytl.search.plan.refits import Refits
from raytl.search.plan.settings import Recipe
from raytl.search.plan.time_budget import TimeBudget
from raytl.search.records import SearchListener, TrialRecord

LABELS = "labels"
"""The phase under which the user is told that labels look wrong."""


class Results:
    """Takes them in, and tells those of them whom they concern.

    epochs: of a full training. survey: what the data tell, None before they were asked. hurried: by source model that
    lanes had, whether one of them had made it in fewer steps than it should have, for lack of time.
    """

    def __init__(
        self,
        ledger: Ledger,
        exploration: Exploration,
        probing: Probing,
        first_model: FirstModel,
        refits: Refits,
        durations: Durations,
        time: TimeBudget,
        left_over: LeftOver,
        head_work: HeadWork,
        recipes: Recipe,
        listener: SearchListener,
        epochs: int,
    ) -> None:
        self.survey: Survey | None = None
        self.hurried: dict[str, bool] = {}
        self._ledger = ledger
        self._exploration = exploration
        self._probing = probing
        self._first_model = first_model
        self._refits = refits
        self._durations = durations
        self._time = time
        self._left_over = left_over
        self._head_work = head_work
        self._recipes = recipes
        self._listener = listener
        self._epochs = epochs
        self._said_doubted = False

    def begin(self, survey: Survey) -> None:
        """Settle what the data tell, and with it which probes there are."""
        self.survey = survey
        self._probing.begin(self._recipes.probes(survey), survey)

    def on_epoch(self, number: int, metrics: dict[str, float]) -> bool:
        """Take in an epoch's metrics; False stops the trial."""
        record = self._ledger.report(number, metrics)
        if record is None:
            return True
        epoch, score = int(metrics["epoch"]), metrics["score"]
        if record.kind in (JobKind.SEARCH, JobKind.BASELINE) and not self._will_end_in_time(record, epoch):
            self._exploration.out_of_time(number)
            return False
        if record.kind == JobKind.SEARCH:
            return self._exploration.on_epoch(number, epoch, score)
        if record.kind == JobKind.BASELINE:
            self._exploration.halving.record(epoch, score, kind_of(record.strategy))
        return True

    def _will_end_in_time(self, record: TrialRecord, epoch: int) -> bool:
        """Whether a training can come to its end at the pace that it goes; what had never been timed may not."""
        whole_s = record.seconds / epoch * self._epochs
        if not self._time.limited or whole_s - record.seconds <= self._time.left():
            return True
        self._left_over.refuse(whole_s)
        return False

    def on_end(self, job: LaneJob, result: JobResult | None, error: str | None) -> None:
        """Take in the end of a job. result None: it was stopped early, or (with ``error``) its lane died."""
        self._head_work.ended(job, result)
        reason = error or (result.reason if result else None)
        if result is not None and reason is None and job.kind != JobKind.SURVEY:
            uri = job.source_model or job.strategy["source_model"]
            self.hurried[uri] = self.hurried.get(uri, False) or result.hurried
        if job.kind == JobKind.SURVEY:
            self._end_survey(result)
            return
        if job.kind == JobKind.REFIT:
            self._end_refit(job, reason)
            return
        if result is not None and result.note:
            self._listener.on_phase(job.kind, result.note)
        if job.kind == JobKind.PRETRAIN and reason is not None:
            self._do_without(job.source_model, reason)
        record = self._ledger.record_of(job.number)
        if record is None:
            return
        self._ledger.fill(record, result, reason, self._exploration.stopped_for(job.number))
        if job.kind in (JobKind.SEARCH, JobKind.BASELINE):
            self._exploration.look_again()
        if job.kind == JobKind.SEARCH:
            self._exploration.on_end(job.number, record)
        if job.kind == JobKind.PROBE:
            self._probing.end(job)
            self._say_doubted()
            if result is not None:
                record.forward_s, record.step_s = list(result.forward_s), result.step_s
                self._durations.probed(job, result)
        self._listener.on_trial(record)

    def _do_without(self, source_model: str, reason: str) -> None:
        """Try nothing from a source model that could not be made: each trial would try to make it again."""
        self._probing.give_up(source_model, reason)
        self._exploration.hold_back(self._probing.not_at_hand())
        self._listener.on_phase(JobKind.PRETRAIN, reason)

    def _say_doubted(self) -> None:
        """Once, when the probes are over: what their predictions, which are there anyway, say of the labels."""
        if self._said_doubted or not self._probing.is_over():
            return
        self._said_doubted = True
        count = self._probing.doubted_labels()
        if count:
            labels = so_many(count, "label looks", "labels look")
            self._listener.on_phase(LABELS, f"{labels} wrong; raytl check looks closer")

    def _end_survey(self, result: JobResult | None) -> None:
        """Where nothing could be surveyed, the domains are taken as they are."""
        space = self._exploration.sampler.space
        survey = (result.survey if result is not None else None) or Survey(tuple(sorted(space.data.joinable)))
        for note in survey.notes:
            self._listener.on_phase(JobKind.SURVEY, note)
        space.set_aside(survey.set_aside)
        self.begin(survey)

    def _end_refit(self, job: LaneJob, reason: str | None) -> None:
        self._refits.end(job, reason)
        if reason is None and self._first_model.is_one(job.number):
            self._first_model.made(job)
