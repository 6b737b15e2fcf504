"""A search around its driver: the run that it is kept in, its model, its report, and what is said of a full disk."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from raytl import runs
from raytl.api.models import Run, export_winner, tell_figures
from raytl.core.errors import NotWrittenError, StorageWarning, UserError
from raytl.core.paths import in_use, run_argument
from raytl.machines.last_words import last_words
from raytl.runs import requests, wording
from raytl.runs.files import read_json, write_json
from raytl.runs.gains import metric_of
from raytl.runs.going_on import BEFORE
from raytl.runs.report import examples_of, write_report
from raytl.runs.run import interval
from raytl.runs.sentences import cautions
from raytl.runs.storage import MODEL, is_uri
from raytl.runs.tracking import Tracking
from raytl.runs.tracking.figures import Told
from raytl.runs.tracking.tracking import TENSORBOARD
from raytl.search.driver import search as drive
from raytl.search.plan.by_hand import PHASE
from raytl.search.planning import SearchSettings
from raytl.search.records import SearchListener, SearchOutcome, TrialRecord
from raytl.search.space.binding import BoundSpace
from raytl.sources.checkpoint import is_checkpoint
from raytl.sources.manifest import MANIFEST_FILE
from raytl.tasks import Task
from raytl.tasks.given import places
from raytl.training.strategy import Strategy

REFITS = "refits"
"""Refitted models: of use to whoever goes on with a search that did not come to its end."""
_GONE = (
    "raytl: this search was ended on the spot: by Ray, which lost the cluster's head or its own process on this "
    "machine, or by a kill, as of a system whose memory is short."
)


def conduct(
    run_writer: runs.RunWriter,
    task: Task,
    bound: BoundSpace,
    settings: SearchSettings,
    listeners: Sequence[SearchListener],
    earlier: Sequence[TrialRecord] = (),
    before: dict[str, Any] | None = None,
    first: Sequence[Strategy] = (),
    begun: float | None = None,
) -> Run:
    """Search, and leave run, model and report. An interrupt (Ctrl-C) ends the search early and is not raised.

    earlier: trials of this search from before it was interrupted. before: the outcome that opened the test split, which
    then stays shut. first: strategies to try before any other. begun: when the time budget began (monotonic clock).
    Raises UserError where no trial succeeded, and where a disk is full: it then ends with how to go on.
    """
    examples, outcome = None, None
    given = Run(run_writer.path)
    where = run_writer.where if is_uri(run_writer.where) else str(run_writer.path.resolve())
    tracking = Tracking(given.settings.get("log") or (), Told(run_writer.name, where, run_writer.path, given.settings))
    came_along = [*places(task.given or {}), str(Path.cwd())]  # source models by a relative path too
    gone = f"{_GONE} {_going_on(task, run_writer.argument)}"
    with last_words(gone), run_writer as writer, tracking, in_use(came_along):
        listener = _Everyone([writer, tracking, *listeners])
        with suppress(KeyboardInterrupt):
            _clear(writer.path)
            known = {record.strategy_key for record in earlier} | {strategy.key for strategy in first}
            requests.clear(writer.place, known)
            if before is not None:
                write_json(writer.path / BEFORE, before)
                writer.keep(BEFORE)
            standing = _came_to_its_end(writer.path / "outcome.json")
            if standing is None:
                writer.drop("outcome.json")
            warm = given.settings.get("warm_start", [])
            warmed = [Strategy.from_dict(values) for start in warm for values in start["strategies"]]
            if warmed:
                listener.on_phase("warm-start", ", ".join(start["run"] for start in warm))
            keep = _Keep(writer, task, standing)
            test = bound.known.unseen(task.test) if before is None else None
            try:
                found = drive(
                    bound, test, settings, writer.path, listener, first=[*first, *warmed], earlier=earlier, keep=keep,
                    refitted=lambda directory: writer.keep(f"{REFITS}/{directory.name}"),
                    asked=requests.listening(writer.place), begun=begun,
                )  # fmt: skip
                if standing is not None and found.interrupted:  # what was chosen before stands, and so does its model
                    raise KeyboardInterrupt
                listener.on_phase("report", "")
                if before is not None and before["best"]["strategy_key"] == found.best.strategy_key:
                    found.best.test = interval(before["best"]["test"])
                if keep.is_shipped(found):
                    found.trained_on = "all"
                elif before is not None and settings.ship == "all" and not found.interrupted:
                    listener.on_phase("refit", "the test stays shut, so that its labels are not trained on")
                writer.finish(found, before=before)
                if not found.interrupted:
                    writer.drop(REFITS)
                outcome, examples = found, examples_of(found)
            except NotWrittenError as error:
                raise UserError(f"{_sentence(error)} {_going_on(task, writer.argument)}") from error
            finally:
                if writer.is_ours():
                    _clear(writer.path)
        _tell_untried(writer, listener)
        run = Run(writer.interrupt().place)
        tracking.end(run)
        if (writer.path / TENSORBOARD).is_dir():
            writer.keep(TENSORBOARD)
        if run.outcome is not None and outcome is not None and run.has_model:
            tell_figures(run.bundle_path, run.outcome, [one.text for one in cautions(run.summary())])
            writer.keep(f"{MODEL}/{MANIFEST_FILE}")
        try:
            write_report(run, examples)
        except NotWrittenError as error:
            after = f"Then, for its report: raytl report {run_argument(writer.argument)}"
            raise UserError(f"{_sentence(error)} The run is {run.status}. {after}") from error
        writer.keep(run.report_path.name)
    if writer.unkept is not None:
        warnings.warn(writer.unkept, StorageWarning, stacklevel=3)
    return run


class _Keep:
    """Keeps a model in a run as soon as there is one, and every better one in its place.

    standing: what a search chose that came to its end and goes on: its model stays until there is another choice.
    """

    def __init__(self, writer: runs.RunWriter, task: Task, standing: dict[str, Any] | None) -> None:
        self._writer = writer
        self._task = task
        self._standing = standing
        self._folder = writer.path / MODEL

    def __call__(self, outcome: SearchOutcome, refit: Path) -> str:
        stays = self._standing is not None and (outcome.going_on or outcome.interrupted)
        if not stays and not self.is_shipped(outcome):
            self._writer.check()
            export_winner(self._folder, refit, outcome, self._task, self._writer.name)
            self._writer.keep(MODEL)
        metric = metric_of({"metric": outcome.metric, "positive": outcome.positive})
        worth = outcome.best.validation
        return "" if worth is None else f"cross-validated {metric.title} {wording.figure(worth, share=metric.share)}"

    def is_shipped(self, outcome: SearchOutcome) -> bool:
        """Whether the run has the winner's model already, trained on the labels of the test too."""
        if self._standing is None or self._standing.get("trained_on") != "all" or not is_checkpoint(self._folder):
            return False
        return bool(self._standing["best"]["strategy_key"] == outcome.best.strategy_key)


def _tell_untried(writer: runs.RunWriter, listener: SearchListener) -> None:
    """Say which strategies were asked for and not tried: in the last moments of a search there is no time for one."""
    with suppress(UserError):  # a storage that does not answer has kept them all the same
        left = requests.untried(writer.place, {record.strategy_key for record in writer.trials})
        if left:
            words = "; ".join(f"{strategy.source_model}, cut {strategy.cut}" for strategy in left.values())
            listener.on_phase(PHASE, f"asked for by hand and not tried: {words}; kept for when the search goes on")


def _came_to_its_end(file: Path) -> dict[str, Any] | None:
    """The outcome of a search that went on to its end, None for another or none."""
    found = read_json(file) if file.exists() else None
    return None if found is None or found["interrupted"] else found


def _going_on(task: Task, where: str) -> str:
    if task.given is None:
        return "Its data was given from memory: what was tried is kept, but the search cannot be resumed."
    return f"Then go on, with all that was tried so far: raytl search --resume {run_argument(where)}"


def _sentence(error: UserError) -> str:
    return f"{str(error).rstrip('.')}."


class _Everyone:
    """Tells several listeners."""

    def __init__(self, listeners: Sequence[SearchListener]) -> None:
        self._listeners = listeners

    def on_trial(self, record: TrialRecord) -> None:
        for listener in self._listeners:
            listener.on_trial(record)

    def on_phase(self, phase: str, detail: str) -> None:
        for listener in self._listeners:
            listener.on_phase(phase, detail)


def _clear(folder: Path) -> None:
    shutil.rmtree(folder / "tune", ignore_errors=True)
