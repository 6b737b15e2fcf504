"""A plan that is a list of jobs, for tests of what runs plans."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import tiny

from raytl.search.jobs import JobKind, JobResult, LaneJob
from raytl.search.lanes.here import Beginning
from raytl.search.plan.schedule import SearchPlan
from raytl.training.strategy import Strategy

PLAIN = Strategy(tiny.MODEL, head_lr=0.05, backbone_ratio=1.0)


def trial(number: int, **changes: object) -> LaneJob:
    """A job that trains the plain strategy, with some settings changed."""
    return LaneJob(number, JobKind.SEARCH, replace(PLAIN, **changes).to_dict(), 0)  # type: ignore[arg-type]


def loading(number: int) -> LaneJob:
    """A job that has next to nothing to do."""
    return LaneJob(number, JobKind.PRETRAIN, source_model=tiny.MODEL)


class JobList:
    """Hands out the jobs in order and notes what came of them.

    watch: called with every epoch, (job number, epoch); False stops the trial.
    """

    def __init__(self, jobs: list[LaneJob], watch: Callable[[int, int], bool] = lambda number, epoch: True) -> None:
        self.results: dict[int, JobResult | None] = {}
        self.errors: dict[int, str | None] = {}
        self.epochs: dict[int, list[int]] = defaultdict(list)
        self.interrupted = False
        self._waiting = list(jobs)
        self._running: set[int] = set()
        self._watch = watch

    def next_job(self) -> LaneJob | None:
        if not self._waiting:
            return None
        job = self._waiting.pop(0)
        self._running.add(job.number)
        return job

    def on_epoch(self, number: int, metrics: dict[str, float]) -> bool:
        self.epochs[number].append(int(metrics["epoch"]))
        return self._watch(number, int(metrics["epoch"]))

    def on_end(self, number: int, result: JobResult | None, error: str | None = None) -> None:
        self._running.remove(number)
        self.results[number] = result
        self.errors[number] = error

    def finished(self) -> bool:
        return not self._waiting and not self._running

    def interrupt(self) -> None:
        self.interrupted = True

    def lanes(self) -> set[str]:
        """Names of the processes that did the jobs."""
        return {result.lane for result in self.results.values() if result is not None}


class Held(Beginning):
    """A beginning whose thread works until it is let go. has: whether it made a model."""

    def __init__(self, folder: Path, error: Exception | None = None) -> None:
        super().__init__(cast(SearchPlan, None), tiny.workspace(folder, tiny.data(4)))
        self.has = False
        self.let_go = threading.Event()
        self._failing = error

    @property
    def has_model(self) -> bool:
        return self.has

    def _run(self) -> None:
        assert self.let_go.wait(300)
        self._error = self._failing

    def end(self) -> None:
        self.let_go.set()
        self._thread.join()
