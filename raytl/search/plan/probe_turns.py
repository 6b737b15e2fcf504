"""When probes have their turn among the other jobs of a search, and for how long."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from raytl.search.jobs import JobKind, LaneJob
from raytl.search.plan.contest import Contest
from raytl.search.plan.durations import Durations, slower
from raytl.search.plan.exploration import Exploration
from raytl.search.plan.head_work import Takes, anything
from raytl.search.plan.kinds import on_target_alone
from raytl.search.plan.leading_heads import leading_head
from raytl.search.plan.left_over import PassedOver
from raytl.search.plan.more_pixels import MorePixels
from raytl.search.plan.probing import Probing
from raytl.search.plan.settings import PlanSettings
from raytl.search.plan.time_budget import TimeBudget
from raytl.search.records import TrialRecord, TrialStatus
from raytl.sources.heads import ZERO_SHOT
from raytl.training.strategy import Strategy

PROBE_SHARE = 0.25
"""Of a time budget: once probes have taken so much of it, they are tried on no further folds.

What told the size at which images are seen counts neither in this nor in what follows."""
LATEST = 0.4
"""Share of a time budget after which they are not either, whatever took it."""
LEADER_SHARE = 0.15
"""Of a time budget, what the probe that leads may take on further folds all the same."""
JUDGED_BY, JUDGED_SHARE, OVER_SHARE = 6, 0.5, 0.1
"""Images by which it is judged at least, as by two nothing is known of it: where a fold more takes no more than that
share of the time that is left, or of all time more than there is. What is kept for the yardstick counts as left."""
VIEWS = 4
"""Augmented versions of each image that the probe that leads learns from as well. More bring little more."""
VIEWS_SHARE = 0.3
"""Of the time that is left, what it may take with each way to augment."""


class ProbeTurns:
    """Asks for probes where there is time for them: at first, while the search goes on, and in what is left of it.

    numbers: of jobs, from which to take the next. records: of all trials, as they come in.
    """

    def __init__(
        self,
        probing: Probing,
        contest: Contest,
        exploration: Exploration,
        time: TimeBudget,
        durations: Durations,
        settings: PlanSettings,
        records: Sequence[TrialRecord],
        numbers: Iterator[int],
    ) -> None:
        self._probing = probing
        self._contest = contest
        self._exploration = exploration
        self._time = time
        self._durations = durations
        self._settings = settings
        self._records = records
        self._numbers = numbers
        self._more_pixels = MorePixels(probing, contest, time, durations, settings, records)
        self._due: list[tuple[Strategy, int | None]] = []
        self._unseen: list[str] | None = None

    @property
    def size_passed_over(self) -> PassedOver | None:
        """At which size images were not seen for want of time; None where they were at all that promised more."""
        return self._more_pixels.passed_over()

    def next_first(self, being_made: Collection[str], takes: Takes = anything) -> LaneJob | None:
        """A probe, or a source model to make for one. being_made: models that a lane is making.

        takes: which probes the lane does that asks.
        """
        self.close()
        if not self._time.allows(self._probing.pretrain_s + self._durations.of_new_probe()):
            self._probing.put_off()
        self._pass_over()
        if self._more_pixels.is_over():
            return self._probing.next_job(being_made, takes) or self._next_of_leader(takes)
        # Making a source model takes a lane long, and of a short search most of what published weights would need.
        untried = self._probing.next_untried(begin=True, takes=takes, being_made=being_made)
        return untried or self._more_pixels.next_job() or self._probing.next_probe(being_made, takes)

    def next_head(self, being_made: Collection[str], takes: Takes) -> LaneJob | None:
        """A probe, where a lane asks that makes no source models."""
        self.close()
        self._pass_over()
        return self._probing.next_probe(being_made, takes) or self._next_of_leader(takes)

    def next_quick(self, *, begin: bool) -> LaneJob | None:
        """A probe of a source model that is at hand; begin: also of a further one, and on further folds.

        Else, once there are lanes, nothing that learns from many images: each of them is as fast, and none is to wait.
        """
        self._pass_over()
        job = self._probing.next_untried(begin=begin, takes=anything if begin else _learns_from_few)
        if job is not None or not begin:
            return job
        # Once the size is told, what waited for it comes before the race.
        job = self._more_pixels.next_job() or self._probing.next_untried(begin=begin)
        return job or self._probing.next_raced(self._has_time_for) or self._next_of_leader()

    def _next_of_leader(self, takes: Takes = anything) -> LaneJob | None:
        """The probe that leads on a fold more, where the few images that it was judged by tell nothing."""
        leader = self._probing.leader() if self._probing.has_order() else None
        images = 0 if leader is None else self._probing.judged_by(leader)
        if leader is None or not images or images * self._probing.folds_given(leader) >= JUDGED_BY:
            return None
        spare_s = self._time.spare()
        allowed_s = max(JUDGED_SHARE * spare_s, OVER_SHARE * (self._settings.time_budget_s or 0.0) + spare_s)
        if self._durations.of(leader) > allowed_s:
            return None
        return self._probing.next_fold(leader, takes)

    def _pass_over(self) -> None:
        """Do without probes that there is no time for any more, once there is one to choose."""
        if any(record.status == TrialStatus.COMPLETED for record in self._records):
            self._probing.pass_over(self._has_time_for)

    def _has_time_for(self, probe: Strategy) -> bool:
        return self._time.allows(self._durations.of(probe), keep_controls=False)

    def close(self) -> None:
        """Have no probe tried on further folds once they have had their share of the time."""
        budget = self._settings.time_budget_s
        if budget is not None:
            probes = [r for r in self._records if r.kind == JobKind.PROBE and not self._more_pixels.asked_for(r)]
            spent, used_s = sum(record.seconds for record in probes), self._time.used() - self._more_pixels.took_s
            if spent > PROBE_SHARE * budget * self._settings.lanes or used_s > LATEST * budget:
                self._probing.close(leader=self._is_cheap(self._probing.leader()))

    def _is_cheap(self, leader: Strategy | None) -> bool:
        """Whether what the leading probe is worth can be told for a small part of the time."""
        assert self._settings.time_budget_s is not None
        if leader is None:
            return False
        left = self._settings.folds - self._probing.folds_given(leader)
        seconds = left * self._durations.of(leader)
        return seconds < min(LEADER_SHARE * self._settings.time_budget_s, self._time.left() / 2)

    def next_augmented(self) -> LaneJob | None:
        """The head that leads once more, solved for on augmented views of its images too, on the folds that it had.

        By each policy that there is time for. Which one suits the task, or none, the labels have to tell.
        """
        if self._unseen is None and self._probing.best() is not None and self._more_pixels.is_over():
            self._unseen = list(self._settings.head_augmentations) if self._settings.folds > 1 else []
        while not self._due and self._unseen:
            self._due = self._on_views(leading_head(self._contest), self._unseen.pop(0))
        if self._due and not self._goes_on(self._due[0][0]):
            self._due = []
        if not self._due:
            return None
        strategy, fold = self._due.pop(0)
        return LaneJob(next(self._numbers), JobKind.PROBE, strategy.to_dict(), fold)

    def _goes_on(self, strategy: Strategy) -> bool:
        """Whether a head is to be tried on further views' folds, by what came of the first."""
        ended = [r for r in self._records if r.strategy_key == strategy.key and r.status != TrialStatus.RUNNING]
        if any(record.status == TrialStatus.FAILED for record in ended):
            return False
        seconds = len(self._due) * self._durations.of(strategy)
        return not ended or seconds <= VIEWS_SHARE * self._time.left()

    def _on_views(self, strategy: Strategy | None, policy: str) -> list[tuple[Strategy, int | None]]:
        """Of a head: what to try, and on which folds."""
        if strategy is None or strategy.head == ZERO_SHOT:
            return []
        plain = replace(strategy, augmentation="none", cached_views=0)
        viewed = replace(strategy, augmentation=policy, cached_views=VIEWS)
        tried = [r for r in self._records if r.strategy_key == plain.key and r.status == TrialStatus.COMPLETED]
        known = {r.fold for r in self._records if r.strategy_key == viewed.key and r.status != TrialStatus.INTERRUPTED}
        again_s = slower(viewed) * self._durations.of(plain)
        seconds = self._durations.of(viewed) + (len(tried) - 1) * again_s
        if known or (seconds <= VIEWS_SHARE * self._time.left() and self._time.allows(seconds)):
            return [(viewed, r.fold) for r in tried if r.fold not in known]
        return []

    def next_late(self) -> LaneJob | None:
        """A source model whose turn has come: one joins in for every few strategies that were tried without it."""
        due = self._probing.due(self._exploration.tried) or (self._exploration.exhausted and self._probing.late())
        if not due or self._exploration.has_enough():
            return None
        if not self._time.allows(self._probing.pretrain_s):
            return None
        job = self._probing.next_late()
        self._exploration.hold_back(self._probing.not_at_hand())
        return job

    def next_left_over(self, takes: Takes = anything) -> LaneJob | None:
        """Time in which nothing can be trained is of use to the choice between the probes."""
        trained = any(r.status == TrialStatus.COMPLETED and r.kind != JobKind.PROBE for r in self._records)

        def allows(strategy: Strategy) -> bool:
            seconds = self._durations.of(strategy)
            refit_s = self._time.refit_seconds() if trained else seconds
            return seconds + refit_s < self._time.left()

        return self._probing.next_left_over(allows, takes)


def _learns_from_few(kind: JobKind, strategy: Strategy, fold: int | None) -> bool:
    return on_target_alone(strategy)
