"""A run as TensorBoard's event files: a folder of them for each trial, and one for the run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from raytl.runs.tracking import figures
from raytl.runs.tracking.figures import is_over
from raytl.search.records import TrialRecord

ENDED = "ended"
"""An empty file in the folder of a trial that is written whole: a resumed search tells of it again."""


class TensorBoardTracker:
    """Writes below a folder: ``trial-0007/`` with scalars by epoch, settings and last figures, ``run/`` for the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[int, SummaryWriter] = {}
        self._written: dict[int, int] = {}
        self._done: set[int] = set()

    def trial(self, record: TrialRecord) -> None:
        """Write what is new in a trial."""
        folder = self._folder / f"trial-{record.number:04d}"
        if record.number in self._done or (record.number not in self._writers and (folder / ENDED).exists()):
            return
        if record.number not in self._writers:
            self._writers[record.number] = SummaryWriter(str(folder))
        writer = self._writers[record.number]
        for epoch, values in figures.looks(record):
            if epoch > self._written.get(record.number, 0):
                self._written[record.number] = epoch
                for name, value in values.items():
                    writer.add_scalar(name, value, epoch)
        if is_over(record):
            last = figures.ended(record)
            settings = {name: _plain(value) for name, value in figures.parameters(record).items()}
            for summary in hparams(settings, last):
                writer.file_writer.add_summary(summary)
            for name, value in last.items():
                writer.add_scalar(f"end/{name}", value, 0)
            writer.add_text("status", record.reason or str(record.status))
            writer.close()
            (folder / ENDED).touch()
            del self._writers[record.number]
            self._done.add(record.number)

    def end(self, status: str, final: Mapping[str, float], summary: Mapping[str, Any]) -> None:
        """Write the figures of the run, and close what is open."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()
        with SummaryWriter(str(self._folder / "run")) as writer:
            for name, value in final.items():
                writer.add_scalar(name, value, 0)
            best = summary["best"]
            if best is not None:
                writer.add_text("best", json.dumps(best["strategy"], indent=1, default=str))
            writer.add_text("status", f"{status}: {summary['why']}")


def _plain(value: Any) -> bool | float | str:
    return value if isinstance(value, bool | int | float | str) else str(value)
