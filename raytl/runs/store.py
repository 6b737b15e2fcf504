"""The run store: runs by name, in a folder or at a URI.

A run holds ``run.json`` (settings, environment, seeds, status, times), ``trials.jsonl`` (the journal),
``trials.parquet`` and ``history.parquet`` (made of the journal at the end), ``outcome.json`` (what was chosen, why, and
the gains), ``predictions.parquet`` (on the test images), ``model/`` (the winner's bundle), ``report.html`` and
``optuna.journal`` (the trials as a study of Optuna's). Until the search came to its end also ``refits/`` (models
trained on all labels), with ``--log tensorboard`` also ``tensorboard/``.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from raytl.core.errors import UserError, nearest
from raytl.core.paths import storage_of
from raytl.runs.lock import TakenError
from raytl.runs.run import Run
from raytl.runs.storage import DOCUMENT, DiskPlace, Place, is_uri, open_storage
from raytl.runs.writer import RunWriter

__all__ = ["Run", "RunStore", "RunSummary", "RunWriter"]

READERS = 8
"""Runs that are read at a time: a store answers many requests in the time of one."""
_NAME = re.compile(r"\w[\w.-]{0,99}")


@dataclass(frozen=True)
class RunSummary:
    """One line of ``raytl runs list``.

    path: absolute, or a URI.
    status: as :attr:`Run.status`, or ``damaged`` (then ``problem`` says how, and the figures are missing).
    tags, note: what people put on it.
    score: of the best strategy; test: its figure on the test split, in the metric of that name.
    """

    name: str
    path: str
    status: str
    started: datetime | None = None
    seconds: float | None = None
    trials: int = 0
    score: float | None = None
    test: float | None = None
    metric: str | None = None
    problem: str | None = None
    tags: Sequence[str] = ()
    note: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        started = self.started.isoformat() if self.started else None
        return vars(self) | {"started": started, "tags": list(self.tags)}


class Known:
    """What was read of runs that ended, of one storage: such a run is read again once a file of it is another one."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Any, RunSummary]] = {}

    def summary(self, place: Place) -> RunSummary:
        """Of the run in a place. A run without an end may get one, or go on, without a file of it being another."""
        try:
            state = place.state()
        except UserError:
            return _summary(place)
        before = self._kept.get(place.name)
        if before is not None and before[0] == state:
            return before[1]
        found = _summary(place)
        if found.status == "finished":
            self._kept[place.name] = (state, found)
        return found

    def forget_all_but(self, names: Iterable[str]) -> None:
        """Runs that are gone."""
        self._kept = {name: self._kept[name] for name in names if name in self._kept}


class RunStore:
    """The runs of a storage.

    storage: a folder, made when the first run is, or a URI (``s3://bucket/runs``). Raises UserError for a URI that
    cannot be opened.
    """

    def __init__(self, storage: str | os.PathLike[str]) -> None:
        self._storage = open_storage(storage)
        self.shown = self._storage.shown

    def check(self, name: str | None = None) -> None:
        """Raise UserError where the storage cannot be written to, or no new run can be called ``name`` in it."""
        if name is not None:
            _check_name(name)
        self._storage.check()
        if name is not None and self._storage.place(name).has(DOCUMENT):
            raise self._taken(name)

    def places(self) -> Sequence[Place]:
        """Where each run is."""
        return self._storage.places()

    def list(self, known: Known | None = None) -> list[RunSummary]:
        """All runs, newest first; a damaged one is listed as such. known: from an earlier look, and for the next."""
        places = self.places()
        known = Known() if known is None else known
        with ThreadPoolExecutor(READERS) as pool:
            found = list(pool.map(known.summary, places))
        known.forget_all_but(place.name for place in places)
        return sorted(found, key=lambda run: (run.started.timestamp() if run.started else 0.0, run.name), reverse=True)

    def readable(self) -> Iterator[Run]:
        """All runs but the damaged ones, in no order."""
        with ThreadPoolExecutor(READERS) as pool:
            yield from filter(None, pool.map(_opened, self.places()))

    def find(self, name: str) -> Place:
        """Where the run called ``name`` is, or the one whose folder or URI ``name`` is.

        Raises UserError that names the nearest run.
        """
        if is_uri(name):
            storage, last = storage_of(name)
            place = open_storage(storage).place(last)
            if not place.has(DOCUMENT):
                command = f"raytl runs list --storage {shlex.quote(storage)}"
                raise UserError(f"no run at {name}; those that are there shows: {command}")
            return place
        candidates: list[Place] = [self._storage.place(name)] if _is_name(name) else []
        with suppress(RuntimeError):  # there is no such user's home
            candidates.append(DiskPlace(Path(name).expanduser()))
        for place in candidates:
            if place.has(DOCUMENT):
                return place
        known = [place.name for place in self.places()]
        hint = nearest(name, known) if known else "; it holds no run yet"
        raise UserError(f"no run '{name}' in {self.shown}{hint}")

    def delete(self, name: str) -> None:
        """Remove a run for good. Raises UserError where there is none, or a process is writing it."""
        self.find(name).delete()

    def send(self, name: str) -> str | None:
        """Send to the storage what a search on this machine could not; see :meth:`Place.send`."""
        return self._storage.place(name).send()

    def open(self, name: str) -> Run:
        """The run that :meth:`find` finds."""
        return Run(self.find(name))

    def create(self, name: str | None, settings: dict[str, Any], *, resume: bool = False) -> RunWriter:
        """Begin a run, or with ``resume`` go on in the one that :meth:`find` finds.

        name: letters, digits, dot, dash and underscore; None makes one of the date and a number.
        settings: what :class:`RunWriter` says.
        Raises UserError for a name that is taken, malformed or being written, and where the storage does not take it.
        """
        if resume and name is not None:
            place = self.find(name)
            return RunWriter(place.write(), place, settings, resume=True)
        if name is None:
            return self._fresh(settings)
        _check_name(name)
        keeper = self._storage.make(name)
        if keeper is None:
            raise self._taken(name)
        return RunWriter(keeper, self._storage.place(name), settings)

    def _taken(self, name: str) -> UserError:
        return UserError(f"run '{name}' exists already in {self.shown}. Give another --name, or remove it.")

    def _fresh(self, settings: dict[str, Any]) -> RunWriter:
        day = datetime.now().strftime("%Y-%m-%d")
        taken = {place.name for place in self.places()}
        for number in count(1):
            name = f"{day}-{number:02d}"
            if name in taken:
                continue
            with suppress(TakenError):
                keeper = self._storage.make(name)
                if keeper is not None:
                    return RunWriter(keeper, self._storage.place(name), settings)
        raise AssertionError("numbers do not end")


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise UserError(
            f"'{name}' cannot be a run's name; use up to 100 letters, digits, dots, dashes and underscores, "
            "beginning with a letter or digit"
        )


def _opened(place: Place) -> Run | None:
    try:
        run = Run(place)
        _ = run.started
    except UserError:
        return None
    return run


def location(place: Place) -> str:
    """Its absolute path, or its URI."""
    return place.argument if is_uri(place.shown) else str(place.folder.resolve())


def _is_name(text: str) -> bool:
    """Whether a run may be called so that was not begun under that name: its folder may have been copied or moved."""
    return "/" not in text and text not in ("", ".", "..") and text.isprintable()


def _summary(place: Place) -> RunSummary:
    shown = location(place)
    try:
        run = Run(place)
        summary = run.summary()
        started = run.started
    except UserError as error:
        return RunSummary(place.name, shown, "damaged", problem=str(error))
    best = summary["best"] or {}
    return RunSummary(
        name=run.name,
        path=shown,
        status=run.status,
        started=started,
        seconds=summary["seconds"],
        trials=summary["trials"]["count"],
        score=best.get("score"),
        test=(best.get("test_metric") or {}).get("value"),
        metric=summary["metric"],
        tags=summary["tags"],
        note=summary["note"],
    )
