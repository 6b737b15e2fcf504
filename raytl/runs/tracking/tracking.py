"""A search listener that tells trackers, in a thread of its own: none of them can stop a search, or hold it up."""

from __future__ import annotations

import queue
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from raytl.core.errors import StorageWarning, UserError, nearest
from raytl.core.places import expanded
from raytl.runs.run import Run
from raytl.runs.tracking import figures
from raytl.runs.tracking.figures import Told
from raytl.search.records import TrialRecord

TENSORBOARD = "tensorboard"
"""Folder of a run, where no other is named."""
PATIENCE_S = 60.0
"""How long the end of a search waits for a tracker that is slow or does not answer."""
NEEDS = {
    "mlflow": ("mlflow", "pip install 'raytl[mlflow]'"),
    "tensorboard": ("tensorboardX", "pip install tensorboardX"),
}
"""By tracker, the module that it needs and how to get it."""


class Tracker(Protocol):
    """Somewhere to write a run to. Any of its methods may raise anything, and may take its time."""

    def trial(self, record: TrialRecord) -> None:
        """A trial began, reported an epoch or ended; told again of what it was told before."""

    def end(self, status: str, final: Mapping[str, float], summary: Mapping[str, Any]) -> None:
        """The run ended, or was interrupted."""


def read_switches(switches: Sequence[str]) -> list[str]:
    """``mlflow``, ``mlflow=URI``, ``tensorboard``, ``tensorboard=DIR``, each once and with full paths.

    Raises UserError for one that is unknown, given twice, or needs a package that is not installed.
    """
    found: dict[str, str] = {}
    for switch in switches:
        name, sign, to = switch.partition("=")
        if name not in NEEDS:
            raise UserError(f"--log {switch}: there is no tracker '{name}'{nearest(name, NEEDS)}")
        if name in found:
            raise UserError(f"--log {switch}: {name} is given twice")
        if sign and not to:
            raise UserError(f"--log {switch}: say where to after the =, or leave it out")
        module, install = NEEDS[name]
        if find_spec(module) is None:
            raise UserError(f"--log {switch}: {module} is not installed: {install}")
        if name == "tensorboard" and to:
            to = str(expanded(to).absolute())
        found[name] = f"{name}{sign}{to}"
    return list(found.values())


class Tracking:
    """Tells trackers of a search (a :class:`~raytl.search.records.SearchListener`), and of its end with :meth:`end`.

    switches: as :func:`read_switches` gives them. A tracker that raises is told no more, and a StorageWarning says
    so, once.
    """

    def __init__(self, switches: Sequence[str], told: Told) -> None:
        self._ended = False
        self._writing = [_Writing(switch, told) for switch in switches]

    def on_trial(self, record: TrialRecord) -> None:
        """Pass a trial on."""
        if not self._writing:
            return
        # The plan goes on changing its record.
        copied = replace(
            record,
            history=list(record.history),
            metrics=dict(record.metrics),
            validated=[],
            predicted=np.empty(0),
            answers=[],
        )
        self._put(lambda tracker: tracker.trial(copied))

    def on_phase(self, phase: str, detail: str) -> None:
        """Trackers have no phases."""

    def end(self, run: Run) -> None:
        """The search is over: tell its figures, and wait until all is written, or for so long at most."""
        if self._writing:
            summary = run.summary()
            self._close(run.status, figures.final(summary), summary)

    def __enter__(self) -> Tracking:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writing and not self._ended:
            why = str(error) or "the search was interrupted"
            self._close("interrupted", {}, {"best": None, "why": why, "metric": ""})

    def _close(self, status: str, final: Mapping[str, float], summary: Mapping[str, Any]) -> None:
        self._ended = True
        self._put(lambda tracker: tracker.end(status, final, summary))
        until = time.monotonic() + PATIENCE_S
        for writing in self._writing:
            writing.close(until)
        self._warn()

    def _put(self, task: Callable[[Tracker], None]) -> None:
        self._warn()
        for writing in self._writing:
            writing.tasks.put(task)

    def _warn(self) -> None:
        for writing in self._writing:
            if writing.trouble is not None and not writing.warned:
                writing.warned = True
                warnings.warn(
                    f"{writing.trouble} The search itself is not touched by it.", StorageWarning, stacklevel=2
                )


class _Writing:
    """One tracker and its thread. trouble: a sentence, once it failed."""

    def __init__(self, switch: str, told: Told) -> None:
        self.tasks: queue.SimpleQueue[Callable[[Tracker], None] | None] = queue.SimpleQueue()
        self.trouble: str | None = None
        self.warned = False
        self._switch = switch
        self._told = told
        self._thread = threading.Thread(target=self._write, name=f"tracking by {switch}", daemon=True)
        self._thread.start()

    def close(self, until: float) -> None:
        """Wait for what is still to be written. until: by the monotonic clock."""
        self.tasks.put(None)
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive() and self.trouble is None:
            self.trouble = (
                f"--log {self._switch}: it did not take everything in time, so that something is missing there."
            )

    def _write(self) -> None:
        try:
            tracker = _opened(self._switch, self._told)
            while (task := self.tasks.get()) is not None:
                task(tracker)
        except Exception as error:  # noqa: BLE001 - whatever a tracker's client raises
            lines = str(error).strip().splitlines() or [type(error).__name__]
            self.trouble = f"--log {self._switch}: nothing more is written there ({lines[0].rstrip('.')})."


def _opened(switch: str, told: Told) -> Tracker:
    name, _, to = switch.partition("=")
    if name == "mlflow":
        from raytl.runs.tracking.mlflow import MlflowTracker

        return MlflowTracker(to or None, told)
    from raytl.runs.tracking.tensorboard import TensorBoardTracker

    return TensorBoardTracker(Path(to) / told.name if to else told.folder / TENSORBOARD)
