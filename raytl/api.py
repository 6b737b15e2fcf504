"""The public API: what the command line does, for notebooks and scripts.

task = raytl.Task(target="photos/")
run = raytl.search(task, space="vision-small", trials=40)
print(run.leaderboard())
run.best.export("model/")
endpoint = raytl.deploy("model/")
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raytl import runs
from raytl.bundles import Bundle, export_bundle
from raytl.core.errors import UserError
from raytl.core.paths import default_storage
from raytl.core.seeding import derive_seed
from raytl.evaluation.intervals import Interval
from raytl.runs import resuming
from raytl.runs.earlier import earlier_runs
from raytl.runs.report import ReportExamples, write_report
from raytl.runs.run import interval
from raytl.search.binding import BoundSpace
from raytl.search.cluster import Lanes, plan_lanes
from raytl.search.driver import SearchSettings, make_plan_settings, make_workspace_settings
from raytl.search.driver import search as drive
from raytl.search.prior import RankedSource, labelled_images
from raytl.search.prior import rank_sources as rank
from raytl.search.quote import PROBE_S, Quote
from raytl.search.quote import quote as make_quote
from raytl.search.records import Candidate, SearchListener, SearchOutcome, TrialRecord
from raytl.search.space import SearchSpace, load_space
from raytl.search.warm_start import embed, warm_starts
from raytl.serving import Endpoint, undeploy
from raytl.serving import deploy as deploy_bundle
from raytl.sources.checkpoint import load_checkpoint
from raytl.tasks import Task, TrainingData, read_labelled, splits
from raytl.training.strategy import Strategy
from raytl.training.workspace import Workspace

__all__ = [
    "Best",
    "Endpoint",
    "Run",
    "Task",
    "deploy",
    "open_run",
    "pretrain",
    "quote",
    "rank_sources",
    "report",
    "resume",
    "search",
    "undeploy",
]


@dataclass(frozen=True)
class Best:
    """The strategy that a search chose, and its model.

    validation, test: accuracy with 95 % intervals; None where the task has no labels to measure it on.
    """

    strategy: dict[str, Any]
    validation: Interval | None
    test: Interval | None
    bundle_path: Path

    def load(self) -> Bundle:
        """The model, ready to predict."""
        return Bundle.load(self.bundle_path)

    def export(self, directory: str | os.PathLike[str]) -> Path:
        """Copy the model's bundle to ``directory``, checked on the way. An older bundle there is replaced.

        Raises UserError where the run has no model or the place holds something that is not a bundle.
        """
        manifest, model = load_checkpoint(self.bundle_path)
        return export_bundle(
            Path(directory),
            model,
            metrics=manifest.metrics,
            provenance=manifest.provenance,
            temperature=manifest.temperature,
        )


class Run(runs.Run):
    """A search on disk."""

    @property
    def best(self) -> Best:
        """What the search chose. Raises UserError where it was interrupted before a model was made."""
        chosen = self.summary()["best"]
        if chosen is None or not (self.bundle_path / "model.json").exists():
            raise UserError(
                f"run '{self.name}' has no model: the search ended before one was made. "
                "Go on with: raytl search --resume"
            )
        return Best(
            chosen["strategy"], interval(chosen["validation_metric"]), interval(chosen["test_metric"]), self.bundle_path
        )


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
    name: of the run. storage: folder of runs; on a cluster one that all nodes see. address: of a Ray cluster.
    patience: stop when so many trials in a row brought nothing better. min_gain: stop when another trial is expected to
    raise the best score by less than this. cost_aware: among what TPE proposes, take what promises most per second; of
    use where some strategies take many times as long as others. warm_start: begin with the best strategies of earlier
    runs in the storage whose tasks are similar.
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
    )
    store = runs.RunStore(Path(storage) if storage is not None else default_storage())
    embedding = embed(task.data)
    starts = warm_starts(embedding, earlier_runs(store.storage), bound) if warm_start else []
    described = _run_settings(task, bound, settings)
    described |= {"embedding": embedding, "warm_start": [start.to_json() for start in starts]}
    return _search(store.create(name, described), task, bound, settings, listeners)


def resume(
    run: str | os.PathLike[str] | Run,
    *,
    trials: int | None = None,
    time_budget_s: float | None = None,
    lanes: int | None = None,
    storage: str | os.PathLike[str] | None = None,
    address: str | None = None,
    verbose: bool = False,
    listeners: Sequence[SearchListener] = (),
) -> Run:
    """Go on with a search that was interrupted or killed: no trial that ended is run again.

    run: its name, folder or object. Data, space and settings are the run's own. trials: of the whole search, the run's
    number by default; with 1 nothing new is tried, and the best so far is made into a model. time_budget_s: for what is
    still to do; by default the rest of the run's own budget.
    Raises UserError where the run ended, its test split was opened, or its data changed or was not given by path.
    """
    opened = run if isinstance(run, Run) else open_run(os.fspath(run), storage)
    begun = resuming.read(opened)
    settings = begun.settings(trials=trials, time_budget_s=time_budget_s, lanes=lanes, address=address, verbose=verbose)
    task, bound = begun.task, bind(begun.task, begun.space)
    writer = runs.RunStore(opened.path.parent).create(opened.name, opened.settings, resume=True)
    return _search(writer, task, bound, settings, listeners, earlier=writer.trials)


def _search(
    run_writer: runs.RunWriter,
    task: Task,
    bound: BoundSpace,
    settings: SearchSettings,
    listeners: Sequence[SearchListener],
    earlier: Sequence[TrialRecord] = (),
) -> Run:
    examples = None
    with run_writer as writer, suppress(KeyboardInterrupt):
        _clear(writer.path)  # what a killed search left
        (writer.path / "outcome.json").unlink(missing_ok=True)
        listener = _Everyone([writer, *listeners])
        warm = Run(writer.path).settings.get("warm_start", [])
        first = [Strategy.from_dict(values) for start in warm for values in start["strategies"]]
        if first:
            listener.on_phase("warm-start", ", ".join(start["run"] for start in warm))
        try:
            outcome, refit = drive(bound, task.test, settings, writer.path, listener, first=first, earlier=earlier)
            listener.on_phase("report", "")
            if refit is not None:
                _export_winner(writer.path / "model", refit, outcome, task, writer.name)
            writer.finish(outcome)
            examples = _examples(outcome)
        finally:
            _clear(writer.path)
    run = Run(writer.path)
    write_report(run, examples)
    return run


def rank_sources(
    task: Task, space: str | SearchSpace | BoundSpace = "vision-small", *, seed: int = 0
) -> list[RankedSource]:
    """Which source models, frozen up to which cut, promise most for a task: best first, without training the target.

    Source models that learn a source domain first are trained here, and kept for the search.
    Raises UserError where no labelled image has the task's classes.
    """
    bound = space if isinstance(space, BoundSpace) else bind(task, space)
    workspace, _ = _on_this_machine(bound, SearchSettings(seed=seed))
    images = labelled_images(workspace)
    if images is None:
        raise UserError(
            "no labelled image to rank source models by; pass --target, or a --source-domain with its labels"
        )
    return rank(workspace, bound, images)


def quote(
    task: Task,
    space: str | SearchSpace | BoundSpace = "vision-small",
    *,
    trials: int | None = None,
    lanes: int | None = None,
    gpus_per_trial: float = 0.0,
    seed: int = 0,
    probe_s: float = PROBE_S,
) -> Quote:
    """What :func:`search` with these arguments would take on this machine, from about ``probe_s`` seconds of probing.

    What the probe computes is kept for the search. Raises UserError where data and space do not fit together.
    """
    bound = space if isinstance(space, BoundSpace) else bind(task, space)
    settings = SearchSettings(trials=trials, lanes=lanes, gpus_per_trial=gpus_per_trial, seed=seed)
    workspace, planned = _on_this_machine(bound, settings)
    plan = make_plan_settings(bound, settings, workspace, planned, Path(), has_test=task.test is not None)
    return make_quote(workspace, bound, plan, planned, probe_s)


def _on_this_machine(bound: BoundSpace, settings: SearchSettings) -> tuple[Workspace, Lanes]:
    """What a lane of a search here would have, without starting Ray."""
    machine = (float(max(os.cpu_count() or 1, settings.lanes or 1)), float(torch.cuda.device_count()))
    lanes = plan_lanes(settings.lanes, settings.gpus_per_trial, 1, [machine])
    return Workspace(bound.data, make_workspace_settings(bound.data, bound.space, settings, lanes)), lanes


def bind(task: Task, space: str | SearchSpace, assignments: Sequence[str] = ()) -> BoundSpace:
    """What of a space applies to a task; its ``problems`` tell what does not. Fetches published weights.

    Raises UserError where they do not fit together.
    """
    return BoundSpace(load_space(space, assignments) if isinstance(space, str) else space, task.data)


def _clear(folder: Path) -> None:
    for name in ("refits", "tune"):
        shutil.rmtree(folder / name, ignore_errors=True)


def open_run(name: str, storage: str | os.PathLike[str] | None = None) -> Run:
    """A run by name or folder. Raises UserError that names the nearest one."""
    store = runs.RunStore(Path(storage) if storage is not None else default_storage())
    return Run(store.open(name).path)


def report(run: Run) -> Path:
    """Write the run's report again; without the example images, which a run does not keep."""
    return write_report(run)


def deploy(
    model: str | os.PathLike[str] | Run, *, storage: str | os.PathLike[str] | None = None, **options: Any
) -> Endpoint:
    """Serve a bundle, or the model of a run (by name, folder or object), on Ray Serve.

    options: those of :func:`raytl.serving.deploy` (port, replicas, resources).
    """
    return deploy_bundle(find_bundle(model, storage), **options)


def find_bundle(model: str | os.PathLike[str] | Run, storage: str | os.PathLike[str] | None = None) -> Path:
    """The bundle's folder that a path, a run's name or a run means.

    A folder that is neither run nor bundle does not stand in the way of a run of its name: images often lie in one.
    """
    if isinstance(model, Run):
        return model.best.bundle_path
    path = Path(model)
    if (path / "run.json").exists():
        return Run(path).best.bundle_path
    if (path / "model.json").exists():
        return path
    try:
        return open_run(str(model), storage).best.bundle_path
    except UserError:
        if path.exists():
            return path  # what is wrong with it, a bundle's reader says best
        raise


def pretrain(
    data: str | os.PathLike[str],
    architecture: str,
    out: str | os.PathLike[str],
    *,
    steps: int = 1000,
    batch_size: int = 64,
    learning_rate: float = 0.05,
    image_size: int | None = None,
    augmentation: str = "shift",
    seed: int = 0,
    progress: Any = None,
) -> tuple[Path, float]:
    """Train a source model on labelled images and write it as a bundle; returns its folder and held-out accuracy.

    architecture: URI of the network to start from (``scratch:cnn-small``, ``torchvision:resnet18``).
    """
    from raytl import sources
    from raytl.training.pretrain import train_source_model
    from raytl.training.workspace import PretrainSettings, WorkspaceSettings

    read = read_labelled(str(data))
    images = read.images
    if len(images.classes) < 2:
        raise UserError(f"{data}: has one class, '{images.classes[0]}'; a classifier needs at least two")
    held = TrainingData(images.name, images.classes, images, None, {}, read.channels)
    workspace = Workspace(held, WorkspaceSettings(seed=seed, image_size=image_size))
    settings = PretrainSettings(steps, batch_size, learning_rate, augmentation=augmentation)
    start = sources.load(architecture, channels=read.channels, image_size=image_size, seed=seed)
    train, held_out = splits.holdout(images.labels, images.groups, 0.15, derive_seed(seed, "pretrain"))
    model, accuracy, _ = train_source_model(
        workspace, start, images, train, held_out, settings, seed, progress or (lambda step, loss: None)
    )
    provenance = {"data": str(data), "images": len(train), "seed": seed, **asdict(settings)}
    metrics = {"accuracy": None if np.isnan(accuracy) else accuracy}
    return export_bundle(Path(out), model.cpu(), metrics=metrics, provenance=provenance), accuracy


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


def _export_winner(directory: Path, refit: Path, outcome: SearchOutcome, task: Task, run_name: str) -> None:
    _, model = load_checkpoint(refit)
    metrics = {"validation_accuracy": _json(outcome.best.validation), "test_accuracy": _json(outcome.best.test)}
    metrics["gains"] = {name: gain.to_json() for name, gain in outcome.gains.items()}
    provenance = {
        "run": run_name,
        "task": task.data.name,
        "setting": str(task.data.setting),
        "strategy": outcome.best.strategy,
        "data": task.data.fingerprint,
        "why": outcome.why,
    }
    export_bundle(directory, model, metrics=metrics, provenance=provenance)


def _json(value: Interval | None) -> Any:
    return value.to_json() if value is not None else None


def _examples(outcome: SearchOutcome) -> ReportExamples | None:
    best: Candidate = outcome.best
    if outcome.test_images is None or best.test_probabilities is None:
        return None
    images = outcome.test_images
    predicted = best.test_probabilities.argmax(1)
    return ReportExamples(
        _Opened(images.items),
        images.labels.tolist(),
        predicted.tolist(),
        images.classes,
        best.test_probabilities.max(1).tolist(),
    )


class _Opened(Sequence[Any]):
    """Opens images when asked for them: the report shows some dozens of perhaps thousands."""

    def __init__(self, items: Sequence[Any]) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        return self._items[index].open()
