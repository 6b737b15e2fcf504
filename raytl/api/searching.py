"""Search, and go on with a search: from a task to a run on disk."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from raytl import runs
from raytl.api.models import Run, export_winner, open_run
from raytl.api.planning import bind
from raytl.core.errors import StorageWarning
from raytl.core.paths import default_storage
from raytl.runs import resuming
from raytl.runs.earlier import earlier_runs
from raytl.runs.extending import BEFORE, More
from raytl.runs.files import read_json, write_json
from raytl.runs.report import examples_of, write_report
from raytl.runs.run import interval
from raytl.search.driver import search as drive
from raytl.search.planning import SearchSettings
from raytl.search.propose.warm_start import embed, warm_starts
from raytl.search.records import SearchListener, TrialRecord
from raytl.search.space.binding import BoundSpace
from raytl.search.space.definition import SearchSpace
from raytl.tasks import Task
from raytl.training.strategy import Strategy


def search(
    task: Task,
    space: str | SearchSpace | BoundSpace = "vision-small",
    *,
    trials: int | None = None,
    time_budget_s: float | None = None,
    lanes: int | None = None,
    gpus_per_trial: float = 0.0,
    workers_per_trial: int = 1,
    seed: int = 0,
    patience: int | None = None,
    min_gain: float | None = None,
    cost_aware: bool = False,
    metric: str | None = None,
    at: str | None = None,
    warm_start: bool = True,
    name: str | None = None,
    storage: str | os.PathLike[str] | None = None,
    assignments: Sequence[str] = (),
    address: str | None = None,
    verbose: bool = False,
    listeners: Sequence[SearchListener] = (),
) -> Run:
    """Search for the best way to transfer, refit the winner, open the test split once, write report and bundle.

    space: name of a shipped search space, a YAML file, or a loaded one; assignments narrow it (``"cut=0"``).
    trials: strategies to try. time_budget_s: for everything. lanes: trials at a time, as many as fit by default.
    name: of the run. storage: folder or URI (``s3://bucket/runs``) of runs. address: of a Ray cluster.
    patience: stop when so many trials in a row brought nothing better. min_gain: stop when another trial is expected to
    raise the best score by less than this. cost_aware: among what TPE proposes, take what promises most per second; of
    use where some strategies take many times as long as others. metric: what is meant by good: ``accuracy``,
    ``balanced-accuracy``, ``macro-f1``, ``auroc``, ``average-precision`` or ``log-loss``; by default accuracy, or
    balanced accuracy where the largest class is three times the smallest. at: of two classes, the recall or precision
    of the rarer one that the model is to decide at (``recall=0.95``). warm_start: begin with the best strategies of
    earlier runs in the storage whose tasks are similar.
    An interrupt (Ctrl-C) ends the search early and is not raised: the run is then ``interrupted``; see :func:`resume`.
    Raises UserError where data, space and settings do not fit together, or no trial succeeded.
    """
    bound = space if isinstance(space, BoundSpace) else bind(task, space, assignments)
    settings = SearchSettings(
        trials=trials,
        time_budget_s=time_budget_s,
        lanes=lanes,
        gpus_per_trial=gpus_per_trial,
        workers_per_trial=workers_per_trial,
        seed=seed,
        patience=patience,
        address=address,
        verbose=verbose,
        min_gain=min_gain,
        cost_aware=cost_aware,
        metric=metric,
        at=at,
    )
    store = runs.RunStore(storage if storage is not None else default_storage())
    store.check()
    embedding = embed(task.data)
    starts = warm_starts(embedding, earlier_runs(store), bound) if warm_start else []
    described = _run_settings(task, bound, settings)
    described |= {"embedding": embedding, "warm_start": [start.to_json() for start in starts]}
    return _search(store.create(name, described), task, bound, settings, listeners)


def resume(
    run: str | os.PathLike[str] | Run,
    *,
    trials: int | None = None,
    time_budget_s: float | None = None,
    more_trials: int | None = None,
    more_time_s: float | None = None,
    lanes: int | None = None,
    storage: str | os.PathLike[str] | None = None,
    address: str | None = None,
    verbose: bool = False,
    listeners: Sequence[SearchListener] = (),
) -> Run:
    """Go on with a search that was interrupted or killed, or with one that ended: no trial that ended is run again.

    run: its name, folder, URI or object. Data, space and settings are the run's own. trials: of the whole search, the
    run's number by default; with 1 nothing new is tried, and the best so far is made into a model. time_budget_s: for
    what is still to do; by default the rest of the run's own budget.
    more_trials, more_time_s: beyond what the search had; without one of them a finished run is refused. A test split
    that was opened is not opened again: figures on it stay those of the strategies that they were measured of.
    Raises UserError where the run is finished or running, or its data changed or was not given by path.
    """
    opened = run if isinstance(run, Run) else open_run(os.fspath(run), storage)
    more = More(more_trials, more_time_s)
    begun = resuming.read(opened, more=more)
    settings = begun.settings(
        trials=trials, time_budget_s=time_budget_s, lanes=lanes, address=address, verbose=verbose, more=more or None
    )
    task, bound = begun.task, bind(begun.task, begun.space)
    described = opened.settings
    if more:
        spent_s = begun.used_s if settings.time_budget_s is not None else 0.0
        wanted = replace(settings, time_budget_s=spent_s + (settings.time_budget_s or 0.0) or None)
        described = described | {"search": described["search"] | asdict(wanted)}
    writer = runs.RunWriter(opened.place.write(resume=True), opened.place, described, resume=True)
    return _search(writer, task, bound, settings, listeners, earlier=writer.trials, before=begun.before)


def _search(
    run_writer: runs.RunWriter,
    task: Task,
    bound: BoundSpace,
    settings: SearchSettings,
    listeners: Sequence[SearchListener],
    earlier: Sequence[TrialRecord] = (),
    before: dict[str, Any] | None = None,
) -> Run:
    """before: the outcome that opened the test split, which then stays shut."""
    examples = None
    test = task.test if before is None else None
    with run_writer as writer:
        with suppress(KeyboardInterrupt):
            _clear(writer.path)  # what a killed search left
            if before is not None:
                write_json(writer.path / BEFORE, before)
                writer.keep(BEFORE)
            ended = _came_to_its_end(writer.path / "outcome.json")
            if not ended:
                writer.drop("outcome.json")
            listener = _Everyone([writer, *listeners])
            warm = Run(writer.path).settings.get("warm_start", [])
            first = [Strategy.from_dict(values) for start in warm for values in start["strategies"]]
            if first:
                listener.on_phase("warm-start", ", ".join(start["run"] for start in warm))
            try:
                outcome, refit = drive(bound, test, settings, writer.path, listener, first=first, earlier=earlier)
                if outcome.interrupted and ended:  # what was chosen before stands, and so does its model
                    raise KeyboardInterrupt
                listener.on_phase("report", "")
                if before is not None and before["best"]["strategy_key"] == outcome.best.strategy_key:
                    outcome.best.test = interval(before["best"]["test"])
                if refit is not None:
                    export_winner(writer.path / "model", refit, outcome, task, writer.name)
                    writer.keep("model")
                writer.finish(outcome, before=before)
                examples = examples_of(outcome)
            finally:
                _clear(writer.path)
        run = Run(writer.interrupt().place)
        write_report(run, examples)
        writer.keep(run.report_path.name)
    if writer.unkept is not None:
        warnings.warn(writer.unkept, StorageWarning, stacklevel=3)
    return run


def _came_to_its_end(file: Path) -> bool:
    """Whether an outcome is that of a search that went on to its end."""
    return file.exists() and not read_json(file)["interrupted"]


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
    for name in ("refits", "tune"):
        shutil.rmtree(folder / name, ignore_errors=True)


def _run_settings(task: Task, bound: BoundSpace, settings: SearchSettings) -> dict[str, Any]:
    data, space = task.data, bound.space
    roles = {"target": data.target, "unlabelled": data.unlabelled, **data.source_domains}
    counts = {name: len(images) for name, images in roles.items() if images is not None}
    if task.test is not None:
        counts["test"] = len(task.test)
    return {
        "task": data.name,
        "setting": str(data.setting),
        "classes": list(data.classes),
        "seed": settings.seed,
        "space": space.name,
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "search": asdict(settings),
        "space_settings": asdict(space.settings),
        "space_values": dict(space.values),
        "given": task.given,
        "fingerprint": data.fingerprint,
        "test_fingerprint": task.test.fingerprint if task.test is not None else None,
        "data": {"counts": counts, "problems": [problem.to_json() for problem in [*task.problems, *bound.problems]]},
    }
