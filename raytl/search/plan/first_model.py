"""The first model: which probe is made into one, when, and when what it is worth is told again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from raytl.search.jobs import LaneJob
from raytl.search.plan.contest import Contest
from raytl.search.plan.durations import Durations
from raytl.search.plan.probing import Probing
from raytl.search.plan.refits import Refits
from raytl.training.strategy import Strategy

EARLY_S = 3.0
"""Seconds of racing between probes, or of a single one, for which the first model does not wait.

What takes plain features so long takes a network the better part of a minute, for which it does not wait either.
"""


class FirstModel:
    """Whatever happens after it, there is something to use; a better probe takes its place.

    numbers: of jobs, from which to take the next. keep: told the key of a probe once it is a model, or once what it is
    worth is known better; says what it is worth. announce: told that, of the first one.
    """

    def __init__(
        self,
        probing: Probing,
        contest: Contest,
        refits: Refits,
        durations: Durations,
        numbers: Iterator[int],
        keep: Callable[[str], str] | None,
        announce: Callable[[str], None],
    ) -> None:
        self._probing = probing
        self._contest = contest
        self._refits = refits
        self._durations = durations
        self._numbers = numbers
        self._keep = keep
        self._announce = announce
        self._jobs: set[int] = set()
        self._meantime: set[int] = set()  # of these, what is made of plain features until a network takes its place
        self._told_of: dict[str, int] = {}

    def next_early(self) -> LaneJob | None:
        """What leads after one fold, where the race between the probes will take its time.

        It will where some source model was not probed yet, which nobody knows how long takes.
        """
        front = self._probing.front(lambda probe: self._durations.of(probe) >= EARLY_S)
        if front is None:
            return self._next_in_the_meantime()
        made = self._jobs - self._meantime
        if not self._refits.wants(front) or (made and not self._probing.has_order()):
            return None
        takes_long = sum(self._durations.of(probe) for probe in self._probing.left()) >= EARLY_S
        return self.next_of(front) if takes_long or not self._probing.has_order() else None

    def _next_in_the_meantime(self) -> LaneJob | None:
        """Plain features, whose head is there, while the images of a large set pass the first network."""
        key = None if self._jobs or self._refits.done else self._probing.best_of_plain()
        if key is None or self._contest.completed(key)[0].seconds < EARLY_S:
            return None
        job = self.next_of(key)
        self._meantime |= self._jobs
        return job

    def next_of(self, key: str | None) -> LaneJob | None:
        """A probe as a model; None without one, or where it is one already."""
        if key is None or not self._refits.wants(key):
            # It may be on more folds by now than when it was made.
            if key in self._refits.done and len(self._contest.completed(key)) > self._told_of.get(key, 0):
                self._tell(key)
            return None
        job = self._refits.start(next(self._numbers), Strategy.from_dict(self._contest.strategy_of(key)))
        self._jobs.add(job.number)
        return job

    def is_one(self, number: int) -> bool:
        """Whether a job makes one."""
        return number in self._jobs

    def made(self, job: LaneJob) -> None:
        """Take in that a job has made its model."""
        self._tell(Strategy.from_dict(job.strategy).key)

    def _tell(self, key: str) -> None:
        first = not self._told_of
        self._told_of[key] = len(self._contest.completed(key))
        worth = "" if self._keep is None else self._keep(key)
        if first:
            self._announce(worth)
