"""The writing end of a run: listens to a search and leaves it on disk."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from raytl.core.errors import NotWrittenError, UserError
from raytl.runs.documents import outcome_document
from raytl.runs.environment import environment
from raytl.runs.files import plain, read_json, write_json
from raytl.runs.going_on import merged
from raytl.runs.journal import Journal
from raytl.runs.lock import TakenOverError
from raytl.runs.run import Run, last_word, seconds_of
from raytl.runs.storage import DOCUMENT, JOURNAL, DiskPlace, Keeper, Place
from raytl.runs.study import FILE as STUDY
from raytl.runs.study import write_study
from raytl.runs.tables import history_table, trials_table, write_table
from raytl.search.records import SearchOutcome, TrialRecord, TrialStatus

FORMAT_VERSION = 1


class RunWriter:
    """Keeps a run on disk while it is searched (a :class:`~raytl.search.records.SearchListener`).

    Every event goes to the journal at once; :meth:`finish` or :meth:`interrupt` makes the tables of it and lets go of
    the run. As a context manager, a writer that was not finished is interrupted on the way out, whatever the reason,
    and lets go only then: what belongs to the run can be written after its end, and given to :meth:`keep`.
    keeper: the right to write the run. place: where it will be read.
    settings: JSON values; the report reads these keys where present: ``setting``
    (kind of transfer), ``classes`` (names), ``seed``, ``metric`` (its name), ``command`` (to reproduce the run),
    ``data`` (``{"counts": {role: n}, "problems": [sentence | {"severity", "where", "message"}]}``).
    resume: go on in a run that was interrupted; ``trials`` then holds what it had.
    path: the folder that it is written in; place: where others read it; where: its folder or URI as a user would name
    it; argument: as a command takes it.
    unkept: after the end, a sentence on what the storage did not take.
    Raises UserError where the disk does not take it, or another machine has taken the run over.
    """

    def __init__(self, keeper: Keeper, place: Place, settings: dict[str, Any], *, resume: bool = False) -> None:
        self.path = keeper.folder
        self.name = place.name
        self.where = place.shown
        self.argument = place.argument
        self.unkept: str | None = None
        self.place = place
        self._place = DiskPlace(self.path, place.shown)
        self._keeper = keeper
        self._mutex = threading.RLock()  # events may come from a driver thread, an interrupt from the main one
        try:
            before = read_json(self.path / DOCUMENT) if resume else {}
            spent_s = self._spent(before) if resume else 0.0
            self._document: dict[str, Any] = {
                "format_version": FORMAT_VERSION,
                "name": self.name,
                "status": "running",
                "started": before.get("started", _now()),
                "resumed": [*before.get("resumed", []), _now()] if resume else [],
                "spent_s": spent_s,
                "ended": None,
                "settings": plain(settings),
                "environment": environment(),
            }
            self._journal = Journal(self.path)
            self._write(DOCUMENT, self._document)
            keeper.journal(self._journal.size)
            keeper.catch_up()
            if before.get("status") == "running":  # its process was killed, and left no study
                self._write_study()
        except BaseException:
            keeper.release()
            raise
        self._open = True
        self._within = False

    @property
    def trials(self) -> list[TrialRecord]:
        """All trials so far, by number."""
        with self._mutex:
            return [self._journal.trials[number] for number in sorted(self._journal.trials)]

    def on_trial(self, record: TrialRecord) -> None:
        """Keep what is new in a trial. Raises UserError where the disk does not take it.

        Events after the end are left out: lanes may still report while an interrupted search winds down.
        """
        with self._mutex:
            if self._open:
                self._keeper.check()
                self._journal.trial(record)
                self._keeper.journal(self._journal.size)

    def on_phase(self, phase: str, detail: str) -> None:
        """Note that the search entered a phase."""
        with self._mutex:
            if self._open:
                self._keeper.check()
                self._journal.phase(phase, detail)
                self._keeper.journal(self._journal.size)

    def is_ours(self) -> bool:
        """Whether the run may be written still: no other machine has taken it over, and its storage is there."""
        try:
            self.check()
        except (TakenOverError, NotWrittenError):
            return False
        return True

    def check(self) -> None:
        """Raise TakenOverError where another machine has taken the run over."""
        self._keeper.check()

    def keep(self, *names: str) -> None:
        """Files or folders of the run were written by somebody else."""
        self._keeper.keep(*names)

    def drop(self, name: str) -> None:
        """Remove a file or a folder of the run."""
        self._keeper.check()
        self._keeper.drop(name)

    def finish(self, outcome: SearchOutcome, before: dict[str, Any] | None = None) -> Run:
        """Write the tables and the outcome, and let go of the run.

        before: of a search that was gone on with, the outcome that opened the test split. Raises RuntimeError for
        a run that has ended.
        """
        with self._mutex:
            if not self._open:
                raise RuntimeError(f"run '{self.name}' has ended; it cannot be finished again")
            self._keeper.check()
            try:
                for record in outcome.trials:
                    self._journal.trial(record)
                self._compact()
                if outcome.test_labels is not None:
                    write_table(self.path / "predictions.parquet", _predictions(outcome))
                    self._keeper.keep("predictions.parquet")
                document = outcome_document(outcome)
                document["seconds"] += self._document["spent_s"]
                if before is not None:
                    document = merged(document, before)
                self._write("outcome.json", document)
                if before is not None and not document["chosen_before"]["same"]:
                    self._keeper.drop("predictions.parquet")  # they are those of the winner before
                return self._end("interrupted" if outcome.interrupted else "finished")
            except NotWrittenError:
                self._keeper.drop("outcome.json")  # all figures or none: the run can be resumed
                if before is None:
                    self._keeper.drop("predictions.parquet")
                raise

    def interrupt(self) -> Run:
        """Keep what there is of a search that ended before its time, and let go of the run; twice is once."""
        with self._mutex:
            if not self._open:
                return Run(self._place)
            self._keeper.check()
            self._compact()
            return self._end("interrupted")

    def __enter__(self) -> RunWriter:
        self._within = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.interrupt()
        except (NotWrittenError, TakenOverError):
            if not isinstance(error, UserError):  # otherwise it has been told already
                raise
        finally:  # a full disk must not leave the run locked for the life of this process
            self._journal.close()
            self._let_go()

    def _compact(self) -> None:
        for record in self.trials:
            if record.status is TrialStatus.RUNNING:
                record.status = TrialStatus.INTERRUPTED
                self._journal.trial(record)
        self._keeper.journal(self._journal.size)
        write_table(self.path / "trials.parquet", trials_table(self.trials))
        write_table(self.path / "history.parquet", history_table(self.trials))
        self._keeper.keep("trials.parquet", "history.parquet")
        self._write_study()

    def _write_study(self) -> None:
        write_study(self.path, self.name, self.trials, datetime.fromisoformat(self._document["started"]))
        self._keeper.keep(STUDY)

    def _end(self, status: str) -> Run:
        self._write(DOCUMENT, self._document | {"status": status, "ended": _now()})
        self._journal.close()
        self._open = False
        if not self._within:
            self._let_go()
        return Run(self._place)

    def _spent(self, before: dict[str, Any]) -> float:
        """What earlier sessions took. before: ``run.json`` as the last of them left it."""
        path = self.path / "outcome.json"
        outcome = read_json(path) if path.exists() else None
        return seconds_of(before, outcome, lambda: last_word(self.path / JOURNAL))

    def _let_go(self) -> None:
        self.unkept = self._keeper.release() or self.unkept

    def _write(self, name: str, document: dict[str, Any]) -> None:
        write_json(self.path / name, document)
        self._keeper.keep(name)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _predictions(outcome: SearchOutcome) -> pa.Table:
    """One row per test image: its label, its group if any, what each candidate said, the winner's probabilities."""
    columns: dict[str, Any] = {"label": np.asarray(outcome.test_labels, dtype=np.int64)}
    if outcome.test_images is not None and outcome.test_images.groups is not None:
        columns["group"] = np.asarray(outcome.test_images.groups, dtype=np.int64)
    for candidate in [outcome.best, *outcome.baselines]:
        if candidate is outcome.best and (named := outcome.tested_labels()) is not None:
            columns[f"predicted.{candidate.label}"] = named.astype(np.int64)
        elif candidate.test_probabilities is not None:
            columns[f"predicted.{candidate.label}"] = candidate.test_probabilities.argmax(axis=1).astype(np.int64)
    if outcome.best.test_probabilities is not None:
        for index, share in enumerate(outcome.best.test_probabilities.T):
            columns[f"probability.{index}"] = np.ascontiguousarray(share, dtype=np.float32)
    return pa.table(columns)
