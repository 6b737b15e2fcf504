"""The journal of a run: every event of the search, appended as it happens, so that a killed process loses hardly any.

One JSON object per line. ``{"phase": …, "detail": …}`` marks a phase; ``{"trial": n, "set": {…}, "epochs": […]}``
carries what changed in a trial since its previous line: fields to set, epochs to append. Replaying the lines in order
gives back the records, which is all that a resumed search needs.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from raytl.core.errors import UserError
from raytl.core.hashing import hash_bytes
from raytl.runs.files import plain, writing
from raytl.runs.storage.places import JOURNAL as FILE
from raytl.search.records import TrialRecord, TrialStatus


@dataclass(frozen=True)
class Phase:
    """A phase that the search entered. at: seconds since the epoch."""

    phase: str
    detail: str
    at: float


@dataclass
class Replay:
    """What a journal holds. size: bytes up to the end of its last whole line."""

    trials: dict[int, TrialRecord] = field(default_factory=dict)
    phases: list[Phase] = field(default_factory=list)
    size: int = 0


class Journal:
    """The writing end. A line torn by an earlier crash or a full disk is cut off before the next is written.

    size: bytes up to the end of the last line.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        replay = read_journal(folder)
        self.trials = replay.trials
        self._seen = {number: _snapshot(record) for number, record in replay.trials.items()}
        self.size = replay.size
        with writing(self._path):
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            if self.size or self._path.stat().st_size:
                os.ftruncate(self._file, self.size)

    def phase(self, phase: str, detail: str) -> None:
        """Note a phase."""
        self._append({"phase": phase, "detail": detail, "at": time.time()})

    def trial(self, record: TrialRecord) -> None:
        """Note what is new in a trial; nothing new writes nothing."""
        state = _snapshot(record)
        previous = self._seen.get(record.number)
        line: dict[str, Any] = {"trial": record.number, "at": time.time()}
        if previous is None or not _same(previous["history"], state["history"][: len(previous["history"])]):
            previous = {"history": []}  # new, or begun again after its lane died: told from the start
            line["begun"] = True
        changes = {
            key: getattr(record, key).tolist() if isinstance(value, _Written) else value
            for key, value in state.items()
            if key != "history" and not _same(previous.get(key, ...), value)
        }
        epochs = state["history"][len(previous["history"]) :]
        if changes or epochs:
            self._append(line | {"set": changes, "epochs": epochs})
        self._seen[record.number] = state
        self.trials[record.number] = record

    def close(self) -> None:
        """Close the file; a closed journal takes no more events."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _append(self, line: dict[str, Any]) -> None:
        data = json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode(errors="backslashreplace") + b"\n"
        with writing(self._path):
            try:
                written = 0
                while written < len(data):
                    written += os.write(self._file, data[written:])
            except OSError:
                if written:
                    os.ftruncate(self._file, self.size)
                raise
        self.size += len(data)


def read_journal(folder: Path) -> Replay:
    """Replay the journal of a run folder; an absent one is empty.

    A torn last line (the process died while writing it) is left out. Raises UserError for damage anywhere else.
    """
    path = folder / FILE
    replay = Replay()
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return replay
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        try:
            if not line.endswith(b"\n"):
                break
            _apply(replay, json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if replay.size + len(line) < len(content):
                raise UserError(
                    f"{path} line {number}: is damaged; remove the lines from there on to read the rest"
                ) from error
            break
        replay.size += len(line)
    return replay


_FIELDS = {spec.name for spec in fields(TrialRecord)} - {"number", "history"}


def _apply(replay: Replay, line: dict[str, Any]) -> None:
    if "phase" in line:
        replay.phases.append(Phase(line["phase"], line["detail"], line["at"]))
        return
    values = {key: value for key, value in line["set"].items() if key in _FIELDS}
    if "status" in values:
        values["status"] = TrialStatus(values["status"])
    if "predicted" in values:
        values["predicted"] = np.asarray(values["predicted"], dtype=np.float64)
    number = int(line["trial"])
    if line.get("begun"):
        replay.trials[number] = TrialRecord(number=number, **values)
    record = replay.trials[number]
    for key, value in values.items():
        setattr(record, key, value)
    record.history.extend(line["epochs"])


@dataclass(frozen=True)
class _Written:
    """An array that was written, as far as another can be told from it: of thousands of images a copy is large."""

    shape: tuple[int, ...]
    content: str


def _snapshot(record: TrialRecord) -> dict[str, Any]:
    """A copy of a record in plain values, so that later changes by the search can be told from what was written."""
    values = {spec.name: getattr(record, spec.name) for spec in fields(record) if spec.name != "number"}
    return {
        name: _Written(value.shape, hash_bytes(value.tobytes()))
        if isinstance(value, np.ndarray)
        else plain(value, finite=False)
        for name, value in values.items()
    }


def _same(left: Any, right: Any) -> bool:
    return repr(left) == repr(right)  # unlike ==, tells 1 from True and finds NaN equal to itself
