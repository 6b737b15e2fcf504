"""The search as a sequence of jobs, from what is cheap and certain to what is dear and promises more.

Survey, probes (convex heads on every source model's features), a first model, baselines, search, confirmation,
controls, refits. Knows neither Ray nor the real time. Lanes ask for the next job whenever one is free, so the phases
overlap: while the last trials of the search run, free lanes already confirm the strategies that lead so far. The same
plan runs on Ray Tune and, in virtual time, on recorded learning curves.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from itertools import count

from raytl.judging.choice import Choice
from raytl.search.jobs import JobKind, JobResult, LaneJob, Survey
from raytl.search.plan.baselines import Baselines
from raytl.search.plan.by_hand import ByHand
from raytl.search.plan.closing import Closing
from raytl.search.plan.contest import Contest
from raytl.search.plan.durations import Durations
from raytl.search.plan.exploration import Exploration
from raytl.search.plan.first_model import FirstModel
from raytl.search.plan.halving import SuccessiveHalving
from raytl.search.plan.head_work import HeadWork, Takes, anything
from raytl.search.plan.ledger import Ledger
from raytl.search.plan.left_over import LeftOver
from raytl.search.plan.probe_turns import ProbeTurns
from raytl.search.plan.probing import Probing
from raytl.search.plan.refits import Refits
from raytl.search.plan.results import Results
from raytl.search.plan.said import Labels
from raytl.search.plan.settings import PlanSettings, Recipe, Wait
from raytl.search.plan.time_budget import CONFIRMED, TimeBudget, usual_seconds
from raytl.search.propose.recipes import Control
from raytl.search.propose.sampler import TpeSampler
from raytl.search.records import SearchListener, TrialRecord, TrialStatus
from raytl.training.strategy import Strategy

FIRST_MODEL = "first-model"
TIME = "time"
"""The phase under which the user is told why time is left."""


class SearchPlan:
    """Hands out jobs and takes in what came of them.

    recipes: the strategies that are tried in any case. pretraining: source models to be made first, by URI.
    clock: seconds, from any origin. started: when the time budget began, by that clock. labels: what strategies are
    judged by, None where the target has none. on_first_model: told the key of the best probe once it is a model, and of
    a better one again; says what it is worth.
    """

    def __init__(
        self,
        settings: PlanSettings,
        sampler: TpeSampler,
        halving: SuccessiveHalving,
        recipes: Recipe,
        pretraining: Sequence[str],
        listener: SearchListener,
        clock: Callable[[], float],
        started: float | None = None,
        labels: Labels | None = None,
        on_first_model: Callable[[str], str] | None = None,
    ) -> None:
        self.settings = settings
        self.records: list[TrialRecord] = []
        self.contest = Contest(self.records, labels)
        self.refits = Refits(settings.directory)
        self.head_work = HeadWork(few=settings.few)
        self._recipes = recipes
        self._listener = listener
        self._time = TimeBudget(
            settings.time_budget_s,
            clock,
            clock() if started is None else started,
            self.records,
            lanes=settings.lanes,
            tested=settings.tested,
            folds=settings.folds,
            control_folds=min(settings.folds, settings.folds_once),
            test_seconds=self._test_seconds,
            refits=settings.refits,
            yardstick_s=settings.yardstick_s,
            leader=lambda: next(iter(self.contest.leaders(1)), None),
            may_win=self._may_win,
            confirm_seconds=self._confirm_seconds,
        )
        self._ledger = Ledger(self.records, listener, self._time)
        self._numbers = count()
        self._durations = Durations(self.records, settings.epochs, settings.passes)
        self._left_over = LeftOver(self._time, settings.time_budget_s, settings.apart_s)
        self._exploration = Exploration(
            settings, sampler, halving, self._time, self.records, self._numbers,
            seconds=self._durations.of, refuse=self._left_over.refuse,
        )  # fmt: skip
        self._probing = Probing(
            self.contest, pretraining, settings.folds, self._numbers,
            pretrain_s=settings.pretrain_s, has_sizes=settings.has_sizes,
        )  # fmt: skip
        self._turns = ProbeTurns(
            self._probing, self.contest, self._exploration, self._time, self._durations, settings, self.records,
            self._numbers,
        )  # fmt: skip
        self._first_model = FirstModel(
            self._probing, self.contest, self.refits, self._durations, self._numbers,
            on_first_model, self._announce_first_model,
        )  # fmt: skip
        self._closing = Closing(
            settings, self.contest, self.refits, self._time, self._probing, recipes, self._numbers, self._durations.of
        )
        self._baselines = Baselines(
            self._exploration, self._time, self._durations, self._left_over, self.records, self._numbers,
            settings.first_fold, self._is_closing,
        )  # fmt: skip
        self.by_hand = ByHand(
            self._exploration, self.records, listener,
            lambda strategy: self._time.allows(self._durations.of(strategy), may_win=True), self._is_closing,
        )  # fmt: skip
        self._results = Results(
            self._ledger, self._exploration, self._probing, self._first_model, self.refits, self._durations, self._time,
            self._left_over, self.head_work, recipes, listener, settings.epochs,
        )  # fmt: skip
        self._restored: list[TrialRecord] = []
        self._none_to_train = False
        self._done = False
        if not settings.surveys:
            self._results.begin(Survey())

    # --- jobs out ---------------------------------------------------------------------------------------------------

    def next_job(self) -> LaneJob | Wait | None:
        """The next job, ``Wait`` while it depends on running ones, None when all is done.

        Where there are lanes for heads alone, others have these only where nothing else is due.
        """
        if self.survey is None:
            return self._next_survey()
        survey = self.survey
        job = self._next(self.head_work.leaves) if self.head_work.nodes else None
        if not isinstance(job, LaneJob):
            job = _first(
                lambda: self._next(anything),
                lambda: self._closing.next_control(self._ledger.running_kinds(), survey),
                lambda: self._closing.next_refit(self._ledger.running_kinds(), survey),
            )
        if job is None and not self._done:
            self._done = True
            self._say_left_over()
        return self._start(job) if isinstance(job, LaneJob) else job

    def _next(self, takes: Takes) -> LaneJob | Wait | None:
        """The next job before the winner is known."""
        return _first(
            self._next_first_model,
            lambda: self._turns.next_first(self._ledger.running_models(), takes),
            self._turns.next_augmented,
            self._begin_search,
            self.by_hand.next_job,
            self._turns.next_late,
            self._next_trained,
            lambda: self._turns.next_left_over(takes),
            lambda: self._closing.next_confirm(takes),
        )

    def next_head(self, node: str) -> LaneJob | None:
        """The next job for a lane of a node that has no GPU, where others have one; None while there is none.

        As long as there are trainings to begin, only probes: what comes after depends on what these come to.
        """
        survey, takes = self.survey, partial(self.head_work.suits, node)
        if survey is None:
            return None
        job = _first(
            lambda: self._next_first_model(takes),
            lambda: self._turns.next_head(self._ledger.running_models(), takes),
        )
        if job is None and self._none_to_train:
            job = _first(
                lambda: self._turns.next_left_over(takes),
                lambda: self._closing.next_confirm(takes),
            )
        if job is None and self.controls:  # of the winner, which others have to settle
            job = self._closing.next_control(self._ledger.running_kinds(), survey, takes)
        if not isinstance(job, LaneJob):
            return None
        return self._start(replace(job, features_of=self.head_work.device_of(node, Strategy.from_dict(job.strategy))))

    def hand_back(self, number: int, node: str, *, absent: bool) -> LaneJob:
        """A job that a lane of a node without a GPU did not do, as others are to do it.

        absent: whether the features that it was to read are not kept there.
        """
        job = self._ledger.hand_back(number)
        if absent:
            self.head_work.absent(job, node)
        return job

    def _say_left_over(self) -> None:
        """Once the last job came back: until then the time is in use."""
        if self.finished():
            for sentence in self._left_over.sentences(self._probing.late(), self._turns.size_passed_over):
                self._listener.on_phase(TIME, sentence)

    def image_seconds(self, count: int, source_model: str) -> float:
        """Seconds in which so many images pass a source model, about; 0 while nothing is known."""
        return self._durations.of_images(count, [source_model])

    def spare_seconds(self) -> float:
        """Seconds of the time budget that nothing to come needs once the winner was refitted; infinite without one.

        Opening the test split and the model to be shipped are to come; what the model is judged by is not counted.
        """
        return self._time.spare()

    def finished(self) -> bool:
        """Whether the last job was handed out and all came back."""
        return self._done and not self._ledger.running()

    def _next_survey(self) -> LaneJob | Wait:
        if JobKind.SURVEY in self._ledger.running_kinds():
            return Wait()
        models = tuple(self._exploration.sampler.space.source_models)
        return self._start(LaneJob(next(self._numbers), JobKind.SURVEY, source_models=models))

    def next_quick(self, *, begin: bool = True) -> LaneJob | None:
        """The next job that trains nothing and needs nothing but what is at hand; None where there is none.

        The survey, probes of source models that need not be made, and the best of these as a model. Meant to be done
        one by one before there are lanes, when no time can go into anything else. begin: whether probes of a further
        source model may be begun, and probes on further folds.
        """
        if self.survey is None:
            survey = self._next_survey()
            return survey if isinstance(survey, LaneJob) else None
        job = self._first_model.next_early() or self._turns.next_quick(begin=begin)
        if job is None and not self._probing.waiting():
            # Once time is over what leads is made a model here: a lane that still starts would be waited for.
            late = self.winner() if begin and self.records else None
            job = self._first_model.next_of(self._probing.best_so_far() or late)
        return None if job is None else self._start(job)

    def _next_first_model(self, takes: Takes = anything) -> LaneJob | None:
        return self._first_model.next_early(takes) or self._first_model.next_of(self._probing.best(), takes)

    def _announce_first_model(self, worth: str) -> None:
        when = f"{self._time.used():.0f} s after the data was read"
        self._listener.on_phase(FIRST_MODEL, f"{when}, {worth}" if worth else when)

    def _test_seconds(self) -> float:
        """What opening the test split is expected to take, and what the model to be shipped has pass its network."""
        keys, shipped = self.refits.done, self.contest.leaders(1) if self.settings.shipped_images else []
        networks = {record.strategy["source_model"] for record in self.records if record.strategy_key in keys}
        winner = {record.strategy["source_model"] for record in self.records if record.strategy_key in shipped}
        opening_s = self._durations.of_images(self.settings.test_images, networks)
        return opening_s + self._durations.of_images(self.settings.shipped_images, winner)

    def _may_win(self) -> Collection[str]:
        """Keys of what leads; what is behind those that are tried on further folds is not to be refitted."""
        leaders, best = self.contest.leaders(CONFIRMED), self._probing.best()
        if not leaders:
            return {record.strategy_key for record in self.records}
        return leaders if best is None else [*leaders, best]

    def _confirm_seconds(self) -> float:
        """What the folds that leaders were not tried on will take one lane, and those of one more that joins them."""
        tried = [self.contest.completed(key) for key in self.contest.leaders(CONFIRMED)]
        left = [max(0, self.settings.folds - len(trials)) * trials[0].again_s for trials in tried]
        return sum(left) + max(0, self.settings.folds - 1) * usual_seconds(self.records)

    def _next_trained(self) -> LaneJob | None:
        job = self._baselines.next_trained()
        self._none_to_train = job is None
        return job

    def _begin_search(self) -> Wait | None:
        """Settle what depends on the survey and the probes: the baselines, and what is proposed first."""
        if self._baselines.settled:
            return None
        if not self._probing.has_order():
            return Wait()
        assert self.survey is not None
        order = self._probing.order()
        trained = self._recipes.baselines(order, self.survey) if self.settings.trains else {}
        self._closing.baselines = trained | self._recipes.classical(order, self.survey)
        self._baselines.settle(trained)
        self._exploration.begin(
            order,
            self.survey,
            leave_out=list(self.baselines.values()),
            ahead=self._recipes.joined(self.survey, order),
            probes=[record for record in self.records if record.kind == JobKind.PROBE and record.fold == 0],
            hold_back=self._probing.not_at_hand(),
        )
        for record in self._restored:
            self._exploration.restore(record)
        return None

    # --- going on with an earlier search ----------------------------------------------------------------------------

    def restore(self, records: Sequence[TrialRecord]) -> None:
        """Take over the trials of a search that was interrupted, before the first job: none that ended is run again.

        records: by number, from 0 without a gap. What was under way when the search ended is tried first.
        """
        self._ledger.restore(records)
        for record in records:
            if record.status == TrialStatus.INTERRUPTED:
                if record.kind == JobKind.SEARCH:
                    self._exploration.sampler.try_next(Strategy.from_dict(record.strategy))
            elif record.kind == JobKind.BASELINE:
                self._exploration.observe(record)
            elif record.kind == JobKind.SEARCH:
                self._restored.append(record)
            self._durations.restore(record)
        self._probing.take_over()
        if records:
            self.refits.take_over()

    # --- the standing -----------------------------------------------------------------------------------------------

    @property
    def survey(self) -> Survey | None:
        """What the data tell; None before they were asked."""
        return self._results.survey

    @property
    def baselines(self) -> dict[str, Strategy]:
        """By name, once they are settled."""
        return self._closing.baselines

    @property
    def controls(self) -> list[Control]:
        """Of the winner, once it is known."""
        return self._closing.controls

    @property
    def given_up(self) -> dict[str, str]:
        """Source models that could not be made, by their URI, and why."""
        return self._probing.given_up

    @property
    def hurried(self) -> dict[str, bool]:
        """Of source models that lanes had, whether they were made in fewer steps than they should have been."""
        return self._results.hurried

    def expected_seconds(self, strategy: Strategy) -> float:
        """What training a strategy is expected to take; 0 while nothing is known."""
        return self._durations.of(strategy)

    def choice(self) -> Choice | None:
        """The winner among the strategies whose refit did not fail, and on what grounds."""
        return self._closing.choice()

    def winner(self) -> str | None:
        """Key of the best strategy whose refit did not fail."""
        found = self.choice()
        return None if found is None else found.key

    def trial_of(self, job: int) -> int | None:
        """Number of the trial that a job is; None of a job that is none."""
        record = self._ledger.record_of(job)
        return None if record is None else record.number

    def _is_closing(self) -> bool:
        """Whether the winner is held against its controls."""
        return bool(self.controls)

    def _start(self, job: LaneJob) -> LaneJob:
        # A first model is told of when it is there.
        return self._ledger.start(job, self.survey, told=not self._first_model.is_one(job.number))

    # --- results in -------------------------------------------------------------------------------------------------

    def on_epoch(self, number: int, metrics: dict[str, float]) -> bool:
        """Take in an epoch's metrics; False stops the trial."""
        return self._results.on_epoch(number, metrics)

    def on_end(self, number: int, result: JobResult | None, error: str | None = None) -> None:
        """Take in the end of a job. result None: it was stopped early, or (with ``error``) its lane died."""
        job = self._ledger.close(number)
        self._say_left_over()
        self._results.on_end(job, result, error)

    def interrupt(self) -> None:
        """Mark what still runs as interrupted."""
        self._ledger.interrupt()


def _first(*proposers: Callable[[], LaneJob | Wait | None]) -> LaneJob | Wait | None:
    """What the first of them proposes that proposes anything."""
    return next((job for propose in proposers if (job := propose()) is not None), None)
