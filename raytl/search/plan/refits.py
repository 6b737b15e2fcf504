"""Strategies trained once more on all labelled images: the models that are tested and served."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from raytl.search.jobs import JobKind, LaneJob
from raytl.sources.checkpoint import is_checkpoint
from raytl.training.strategy import Strategy


class Refits:
    """Which strategies were refitted, by key.

    done: where the model went. failed: why there is none. on_done: told where, once a model is there.
    """

    def __init__(self, directory: Path) -> None:
        self.done: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        self._directory = directory
        self._pending: set[str] = set()
        self.on_done: Callable[[Path], None] = lambda directory: None

    def take_over(self) -> None:
        """Take the models that an earlier search left, which was interrupted: they are of the same data and seed."""
        for found in sorted(self._directory.iterdir()) if self._directory.is_dir() else ():
            if is_checkpoint(found):
                self.done[found.name] = str(found)

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
            self.on_done(Path(job.directory))
        else:
            self.failed[key] = reason
