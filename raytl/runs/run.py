"""The reading end of a run: what a search left on disk, whether it ended, was interrupted, or is still going."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from raytl.core.errors import UserError
from raytl.evaluation.intervals import Interval
from raytl.runs.files import plain, read_json
from raytl.runs.journal import Phase, Replay, read_journal
from raytl.runs.labels import note_of, tags_of
from raytl.runs.leaderboard import leaderboard
from raytl.runs.storage import DOCUMENT, JOURNAL, MODEL, DiskPlace, Place, is_uri
from raytl.runs.tables import history_table, read_table, trials_table
from raytl.search.jobs import JobKind
from raytl.search.records import TrialRecord, TrialStatus
from raytl.sources.heads import CONVEX
from raytl.tasks.problems import Severity

_BLOCK = 2**20  # bytes of a journal that are looked through at a time, from its end
_LEFT_OUT = "left out: "  # how what is said of a source model that a search goes without begins
_WHY_LEFT_OUT = ("weights", "licence", "adaptation")


class Run:
    """One run. Opening reads ``run.json`` only; tables are read when asked for.

    place: where it is, or its folder. path: the folder of what was read of it; where: its folder or URI as a user
    would name it; argument: as a command takes it. A run that is being written is read from its journal, and shows its
    state at the first look.
    Raises UserError where the place holds no run, or a damaged one.
    """

    def __init__(self, place: Place | Path) -> None:
        self.place: Place = DiskPlace(place) if isinstance(place, Path) else place
        self.path = self.place.folder
        self.where = self.place.shown
        self.argument = self.place.argument
        self._document = read_json(self.place.file(DOCUMENT))

    @property
    def name(self) -> str:
        """The run's name."""
        return self.place.name

    @property
    def location(self) -> str:
        """Its absolute path, or its URI."""
        return self.argument if is_uri(self.where) else str(self.path.resolve())

    @cached_property
    def status(self) -> str:
        """``running``, ``finished`` or ``interrupted`` (also where its process died without a word)."""
        status = str(self._document.get("status", "interrupted"))
        return "interrupted" if status == "running" and not self.place.is_written() else status

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that the run was started with."""
        settings: dict[str, Any] = self._document.get("settings", {})
        return settings

    @property
    def environment(self) -> dict[str, Any]:
        """Versions and hardware that it ran on."""
        environment: dict[str, Any] = self._document.get("environment", {})
        return environment

    @property
    def started(self) -> datetime:
        """When it began."""
        return _time(self._document.get("started"))

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, where the settings tell them."""
        return tuple(map(str, self.settings.get("classes", ())))

    @property
    def bundle_path(self) -> Path:
        """Where the winner's bundle is, or would be."""
        return self.place.tree(MODEL)

    @property
    def has_model(self) -> bool:
        """Whether it has a bundle."""
        return self.place.has("model/model.json")

    @property
    def report_path(self) -> Path:
        """Where the report is, or would be."""
        return self.path / "report.html"

    @property
    def metric(self) -> str:
        """Name of the metric that its figures are in, also of a run that has no outcome; older runs say accuracy."""
        return str((self.outcome or {}).get("metric") or self.settings.get("metric") or "accuracy")

    @cached_property
    def outcome(self) -> dict[str, Any] | None:
        """The document ``outcome.json``, or None where the search did not get to its end."""
        known = self.status != "running" and self.place.has("outcome.json")
        return read_json(self.place.file("outcome.json")) if known else None

    def records(self) -> list[TrialRecord]:
        """All trials as the search knew them, by number; those that nobody runs any more are ``interrupted``.

        The same objects at every call.
        """
        records = [record for _, record in sorted(self._journal.trials.items())]
        for record in records:
            if record.status is TrialStatus.RUNNING and self.status != "running":
                record.status = TrialStatus.INTERRUPTED
        return records

    def phases(self) -> list[Phase]:
        """The phases that the search went through."""
        return self._journal.phases

    def trials(self) -> pd.DataFrame:
        """One row per trial: its fields, ``strategy.<key>`` and ``metric.<name>``; as in ``trials.parquet``."""
        return self._trials.copy()

    def history(self) -> pd.DataFrame:
        """One row per trial and epoch: ``trial``, ``epoch``, ``seconds``, ``train_loss`` and the validation metrics."""
        return self._history.copy()

    def leaderboard(self) -> pd.DataFrame:
        """One row per distinct strategy, best first; see :func:`raytl.runs.leaderboard.leaderboard`."""
        return self._board.copy()

    def predictions(self) -> pd.DataFrame | None:
        """One row per test image: ``label``, ``predicted.<candidate>``, ``probability.<class index>``; None without.

        ``group`` where images belong together (of one patient, say): its number.
        """
        if self.outcome is None or not self.place.has("predictions.parquet"):
            return None
        return read_table(self.place.file("predictions.parquet")).to_pandas()  # type: ignore[no-any-return]

    @property
    def seconds(self) -> float:
        """How long the search took, or has been going; the time between its end and its going on does not count."""
        if self.status == "running":
            return seconds_of(self._document, None, lambda: datetime.now(UTC))
        return seconds_of(self._document, self.outcome, lambda: last_word(self.place.file(JOURNAL)))

    def summary(self) -> dict[str, Any]:
        """The document that ``search --json`` prints, in JSON's own types.

        For a run without an outcome the best and the baselines are told from the trials, without intervals.
        """
        board = self._board
        scores = dict(zip(board["strategy_key"], board["score"], strict=True))
        outcome = self.outcome or self._provisional_outcome()
        counts = Counter(self._trials["status"])
        document = {
            "run": self.name,
            "path": self.location,
            "status": self.status,
            "seconds": self.seconds,
            "setting": self.settings.get("setting"),
            "time_budget_s": (self.settings.get("search") or {}).get("time_budget_s"),
            "trials": {
                "count": len(self._trials),
                "by_status": {str(status): n for status, n in counts.items()},
                "trained": self._trained(),
                "trainable": self._trainable(),
                "scored": self._scored(),
                "told": bool(self.settings.get("trains", True)),
            },
            "given_up": self._given_up(),
            "learned_before": (self.settings.get("data") or {}).get("learned_before"),
            "best": _summarised(outcome["best"], scores),
            "baselines": {entry["label"]: _summarised(entry, scores) for entry in outcome["baselines"]},
            "metric": self.metric,
            "positive": outcome.get("positive"),
            "controls": outcome.get("controls", []),
            "calibration": outcome.get("calibration", {}),
            "answers": outcome.get("answers", {}),
            "on_unlabelled": outcome.get("on_unlabelled"),
            "why_not_on_unlabelled": outcome.get("why_not_on_unlabelled"),
            "agreement": outcome.get("agreement"),
            "operating_point": outcome.get("operating_point"),
            "survey": outcome.get("survey"),
            "trained_on": outcome.get("trained_on", "target"),
            "test_undefined": outcome.get("test_undefined"),
            "transfer_gain": outcome["transfer_gain"],
            "adaptation_gain": outcome["adaptation_gain"],
            "gains": outcome["gains"],
            "why": outcome["why"],
            "interrupted": self.status != "finished",
            "chosen_before": outcome.get("chosen_before"),
            "tags": tags_of(self.place),
            "note": note_of(self.place),
        }
        return dict(plain(document))

    def _trained(self) -> int:
        """Completed trials in which a network was trained: neither a head that was solved for, nor plain features."""
        table = self._trials
        if "strategy.head" not in table:
            return 0
        solved = table["strategy.head"].isin(CONVEX)
        plain = table["strategy.source_model"].str.startswith("plain:", na=False)
        return int(((table["status"] == TrialStatus.COMPLETED) & ~solved & ~plain).sum())

    def _trainable(self) -> bool:
        """Whether the search space has a network that could be trained; where it is not known, it is taken to."""
        models = ((self.settings.get("space_values") or {}).get("space") or {}).get("source_model") or [""]
        return any(not str(model).startswith("plain:") for model in ([models] if isinstance(models, str) else models))

    def _given_up(self) -> list[dict[str, Any]]:
        """Source models that nothing is known of: they were left out or not made, or no probe of them ended."""
        found: dict[str, dict[str, Any]] = {}

        def add(model: str, reason: str, left_out: str | None = None) -> None:
            told = {"reason": reason, "left_out": left_out, "weights_missing": left_out == "weights"}
            found.setdefault(model, told)

        for problem in (self.settings.get("data") or {}).get("problems", []):
            why = _why_left_out(problem) if isinstance(problem, dict) and "where" in problem else None
            if why is not None:
                add(str(problem["where"]), str(problem["message"]).removeprefix(_LEFT_OUT), why)
        table = self._trials
        if "strategy.source_model" not in table:  # nothing was begun
            table = table.assign(**{"strategy.source_model": None})
        looked = table[table["kind"] == JobKind.PROBE]
        known = set(looked.loc[looked["status"] == TrialStatus.COMPLETED, "strategy.source_model"])
        for model, reason in zip(looked["strategy.source_model"], looked["reason"], strict=True):
            if model not in known and isinstance(reason, str):
                add(str(model), reason.removeprefix(f"{model}: "))
        for model, reason in ((self.outcome or {}).get("given_up") or {}).items():
            if model not in known:
                add(str(model), reason.removeprefix(f"{model}: "))
        return [{"source_model": model, **why} for model, why in found.items()]

    def _scored(self) -> bool:
        """Whether there was anything to score trials by: labels held out, or images without labels."""
        table = self._trials
        evidence = [f"metric.{name}" for name in ("labelled", "unlabelled", "source-accuracy")]
        return bool(table[[name for name in evidence if name in table]].notna().any(axis=None))

    @cached_property
    def _trials(self) -> pd.DataFrame:
        return self._table("trials.parquet")

    @cached_property
    def _history(self) -> pd.DataFrame:
        return self._table("history.parquet")

    @cached_property
    def _board(self) -> pd.DataFrame:
        return leaderboard(self._trials, self.outcome)

    @cached_property
    def _journal(self) -> Replay:
        self.place.file(JOURNAL)
        return read_journal(self.path)

    def _table(self, name: str) -> pd.DataFrame:
        if self._document.get("status") != "running" and self.place.has(name):
            return read_table(self.place.file(name)).to_pandas()  # type: ignore[no-any-return]
        make = trials_table if name == "trials.parquet" else history_table
        return make(self.records()).to_pandas()  # type: ignore[no-any-return]

    def _provisional_outcome(self) -> dict[str, Any]:
        # A control is trained to be held against the winner: it is never chosen, and no baseline.
        board = leaderboard(self._trials[self._trials["kind"] != JobKind.CONTROL])
        scored = board[board["score"].notna() & (board["status"] == "completed")]
        strategies = {record.strategy_key: record.strategy for record in self.records()}
        best = None if scored.empty else _provisional("best", scored.iloc[0], strategies)
        baselines = [
            _provisional(str(row["baseline"]), row, strategies)
            for _, row in board[board["baseline"].notna()].iterrows()
        ]
        why = "the search has not ended" if self.status == "running" else "the search was interrupted"
        why += "; no trial was completed" if best is None else "; the best score so far"
        return {"best": best, "baselines": baselines, "why": why, "gains": {}} | dict.fromkeys(
            ["transfer_gain", "adaptation_gain"]
        )


def seconds_of(document: dict[str, Any], outcome: dict[str, Any] | None, last: Callable[[], datetime | None]) -> float:
    """How long a search took that does not run any more.

    document: ``run.json``. outcome: ``outcome.json``, which tells where it is of the last session. last: when something
    was last heard of it, None for never; its end where it was killed.
    """
    if outcome is not None and (document.get("status") == "finished" or outcome.get("interrupted")):
        return float(outcome["seconds"])
    begun = _time([document.get("started"), *document.get("resumed", [])][-1])
    ended = _time(document["ended"]) if document.get("ended") else last() or begun
    return float(document.get("spent_s", 0.0)) + max(0.0, (ended - begun).total_seconds())


def last_word(journal: Path) -> datetime | None:
    """When a journal was last written to, by what its last line says: a copy of it is younger."""
    if not journal.exists():
        return None
    size = most = journal.stat().st_size
    while most > 0:
        most = max(0, most - _BLOCK)
        with journal.open("rb") as file:
            file.seek(most)
            lines = file.read(size - most).splitlines()[1 if most else 0 :]
        for line in reversed(lines):
            with suppress(ValueError, KeyError, TypeError):  # torn
                return datetime.fromtimestamp(float(json.loads(line)["at"]), UTC)
    return datetime.fromtimestamp(journal.stat().st_mtime, UTC)


def interval(document: dict[str, Any] | None) -> Interval | None:
    """An interval back from its plain values; None for None or for one without figures."""
    if document is None or any(document.get(key) is None for key in ("value", "low", "high")):
        return None
    return Interval(float(document["value"]), float(document["low"]), float(document["high"]))


def _summarised(candidate: dict[str, Any] | None, scores: dict[str, float]) -> dict[str, Any] | None:
    if candidate is None:
        return None
    return {
        "trial": min(candidate["trials"], default=None),
        "strategy": candidate["strategy"],
        "score": scores.get(candidate["strategy_key"]),
        "validation_metric": candidate["validation"],
        "validated": candidate.get("validated", 0),
        "test_metric": candidate["test"],
    }


def _provisional(label: str, row: pd.Series, strategies: dict[str, dict[str, Any]]) -> dict[str, Any]:
    accuracy = row["validation"]
    key = str(row["strategy_key"])
    return {
        "label": label,
        "strategy": strategies.get(key, {}),
        "strategy_key": key,
        "trials": [int(row["trial"])],
        "validation": None if pd.isna(accuracy) else {"value": float(accuracy), "low": None, "high": None},
        "test": None,
    }


def _time(text: Any) -> datetime:
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        raise UserError(f"run.json: {text!r} is not a time; the run cannot be read") from None


def _why_left_out(problem: dict[str, Any]) -> str | None:
    """Why a search goes without the source model that a problem is of; None where it says something else.

    ``weights`` that could not be had, a ``licence`` that is not known to allow what was asked for, or no ``adaptation``
    that does anything to it. Runs of before say it in words alone, and so of losses that a task has nothing for.
    """
    message = str(problem.get("message"))
    if "kind" in problem:
        return problem["kind"] if problem["kind"] in _WHY_LEFT_OUT else None
    if problem.get("severity") != Severity.WARNING or not message.startswith(_LEFT_OUT):
        return None
    if "is not known to allow commercial use" in message:
        return "licence"
    return "adaptation" if message.startswith(f"{_LEFT_OUT}no adaptation") else "weights"
