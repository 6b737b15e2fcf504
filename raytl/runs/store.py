"""The run store: a folder of runs, one folder each.

A run's folder holds ``run.json`` (settings, environment, seeds, status, times), ``trials.jsonl`` (the journal),
``trials.parquet`` and ``history.parquet`` (made of the journal at the end), ``outcome.json`` (what was chosen, why, and
the gains), ``predictions.parquet`` (on the test images), ``model/`` (the winner's bundle) and ``report.html``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from raytl.core.errors import UserError, nearest
from raytl.runs.files import writing
from raytl.runs.lock import RunLock
from raytl.runs.run import Run
from raytl.runs.writer import RunWriter

__all__ = ["Run", "RunStore", "RunSummary", "RunWriter"]

_NAME = re.compile(r"\w[\w.-]{0,99}")


@dataclass(frozen=True)
class RunSummary:
    """One line of ``raytl runs list``.

    status: as :attr:`Run.status`, or ``damaged`` (then ``problem`` says how, and the figures are missing).
    score: of the best strategy; test: its figure on the test split.
    """

    name: str
    path: Path
    status: str
    started: datetime | None = None
    seconds: float | None = None
    trials: int = 0
    score: float | None = None
    test: float | None = None
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        started = self.started.isoformat() if self.started else None
        return vars(self) | {"path": str(self.path.resolve()), "started": started}


class RunStore:
    """The runs under one folder.

    storage: the folder; made when the first run is.
    """

    def __init__(self, storage: Path) -> None:
        self.storage = Path(storage).expanduser()

    def list(self) -> list[RunSummary]:
        """All runs, newest first; a damaged one is listed as such."""
        if not self.storage.is_dir():
            return []
        found = [_summary(path) for path in self.storage.iterdir() if (path / "run.json").is_file()]
        return sorted(found, key=lambda run: (run.started.timestamp() if run.started else 0.0, run.name), reverse=True)

    def open(self, name: str) -> Run:
        """The run called ``name``, or the one in the folder ``name``.

        Raises UserError that names the nearest run.
        """
        candidates = ([self.storage / name] if _NAME.fullmatch(name) else []) + [Path(name).expanduser()]
        for path in candidates:
            if (path / "run.json").is_file():
                return Run(path)
        known = [path.parent.name for path in self.storage.glob("*/run.json")]
        hint = nearest(name, known) if known else "; it holds no run yet"
        raise UserError(f"no run '{name}' in {self.storage}{hint}")

    def create(self, name: str | None, settings: dict[str, Any], *, resume: bool = False) -> RunWriter:
        """Begin a run, or with ``resume`` go on in the one called ``name``.

        name: letters, digits, dot, dash and underscore; None makes one of the date and a number.
        settings: what :class:`RunWriter` says.
        Raises UserError for a name that is taken, malformed or being written, and where the disk does not take it.
        """
        if name is None:
            return RunWriter(self._fresh_folder(), settings)
        if not _NAME.fullmatch(name):
            raise UserError(
                f"'{name}' cannot be a run's name; use up to 100 letters, digits, dots, dashes and underscores, "
                "beginning with a letter or digit"
            )
        folder = self.storage / name
        if resume:
            return RunWriter(self.open(name).path, settings, resume=True)
        if not self._make(folder):
            _refuse_taken(folder)
        return RunWriter(folder, settings)

    def _fresh_folder(self) -> Path:
        day = datetime.now().strftime("%Y-%m-%d")
        number = 1
        while not self._make(self.storage / f"{day}-{number:02d}"):
            number += 1
        return self.storage / f"{day}-{number:02d}"

    def _make(self, folder: Path) -> bool:
        with writing(folder):
            self.storage.mkdir(parents=True, exist_ok=True)
            try:
                folder.mkdir()
            except FileExistsError:
                return False
        return True


def _refuse_taken(folder: Path) -> None:
    """Raise for a folder that holds a run or anything else; one that holds nothing (a failed start) may be used."""
    if folder.is_dir() and (folder / "run.json").exists():
        RunLock(folder).release()  # says so if the run is being written
        raise UserError(f"run '{folder.name}' exists already in {folder.parent}. Give another --name, or remove it.")
    if not folder.is_dir() or any(path.name != "run.lock" for path in folder.iterdir()):
        raise UserError(f"{folder} exists and is not a run. Give another --name, or remove it.")


def _summary(path: Path) -> RunSummary:
    try:
        run = Run(path)
        summary = run.summary()
        started = run.started
    except UserError as error:
        return RunSummary(path.name, path, "damaged", problem=str(error))
    best = summary["best"] or {}
    return RunSummary(
        name=run.name,
        path=path,
        status=run.status,
        started=started,
        seconds=summary["seconds"],
        trials=summary["trials"]["count"],
        score=best.get("score"),
        test=(best.get("test_metric") or {}).get("value"),
    )
