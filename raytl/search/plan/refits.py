"""Strategies trained once more on all labelled images: the models that are tested and served."""

from __future__ import annotations

from pathlib import Path

from raytl.search.jobs import JobKind, LaneJob
from raytl.training.strategy import Strategy


class Refits:
    """Which strategies were refitted, by key.

    done: where the model went. failed: why there is none.
    """

    def __init__(self, directory: Path) -> None:
        self.done: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        self._directory = directory
        self._pending: set[str] = set()

    def wants(self, key: str) -> bool:
        """Whether a strategy has been given no refit yet."""
        return key not in self.done and key not in self._pending and key not in self.failed

    def is_pending(self, key: str) -> bool:
        """Whether a refit was handed out and has not come back."""
        return key in self._pending

    def start(self, number: int, strategy: Strategy, baseline: str | None = None) -> LaneJob:
        """The job that refits a strategy. baseline: whose name it has, if any."""
        self._pending.add(strategy.key)
        directory = str(self._directory / strategy.key)
        return LaneJob(number, JobKind.REFIT, strategy.to_dict(), None, baseline, directory=directory)

    def end(self, job: LaneJob, reason: str | None) -> None:
        """Take in the end of a refit. reason: why it failed, None where it did not."""
        key = Strategy.from_dict(job.strategy).key
        self._pending.discard(key)
        if reason is None:
            self.done[key] = job.directory
        else:
            self.failed[key] = reason
