"""Search, and go on with a search: from a task to a run on disk."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from raytl import runs
from raytl.api.conducting import conduct
from raytl.api.models import Run, open_run
from raytl.api.planning import bind
from raytl.core.errors import NotWrittenError, UserError, nearest
from raytl.core.paths import default_storage, note_run
from raytl.evaluation import metrics
from raytl.jobs.launch import JOB_CONFIG
from raytl.judging.operating import parse_goal
from raytl.runs import resuming
from raytl.runs.earlier import earlier_runs
from raytl.runs.going_on import More
from raytl.runs.tracking import read_switches
from raytl.search.lanes.cluster import check_address
from raytl.search.planning import SearchSettings, check_goal, chosen_metric
from raytl.search.propose.warm_start import embed, warm_starts
from raytl.search.records import SearchListener
from raytl.search.space.binding import BoundSpace
from raytl.search.space.definition import SearchSpace
from raytl.tasks import Task
from raytl.training.strategy import Strategy

SHIPPED = ("tested", "all")


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
    ship: str = "tested",
    warm_start: bool = True,
    log: Sequence[str] = (),
    name: str | None = None,
    storage: str | os.PathLike[str] | None = None,
    assignments: Sequence[str] = (),
    address: str | None = None,
    verbose: bool = False,
    listeners: Sequence[SearchListener] = (),
    begun: float | None = None,
) -> Run:
    """Search for the best way to transfer, refit the winner, open the test split once, write report and bundle.

    space: name of a shipped search space, a YAML file, or a loaded one; assignments narrow it (``"cut=0"``).
    trials: strategies to try. time_budget_s: for everything, from ``begun`` on, a moment of ``time.monotonic()``: this
    call by default, or one from before the data was read. lanes: trials at a time, as many as fit by default.
    name: of the run. storage: folder or URI (``s3://bucket/runs``) of runs. address: of a Ray cluster.
    patience: stop when so many trials in a row brought nothing better. min_gain: stop when another trial is expected to
    raise the best score by less than this. cost_aware: among what TPE proposes, take what promises most per second; of
    use where some strategies take many times as long as others. metric: what is meant by good: ``accuracy``,
    ``balanced-accuracy``, ``macro-f1``, ``auroc``, ``average-precision`` or ``log-loss``; by default accuracy, or
    balanced accuracy where the largest class is three times the smallest. at: of two classes, the recall or precision
    of the rarer one (``recall=0.95``), or of the one that is named (``scratched:recall=0.95``), that the model is to
    decide at. ship: the model that was ``tested``, or one trained on ``all`` labels once the test was opened, the
    test's own included. warm_start: begin with the best strategies of earlier runs in the storage whose tasks are
    similar.
    log: trackers that are told as well: ``mlflow`` or ``mlflow=URI``, ``tensorboard`` (in the run) or
    ``tensorboard=DIR``; one that fails is warned of once and costs nothing else.
    An interrupt (Ctrl-C) ends the search early and is not raised: the run is then ``interrupted``; see :func:`resume`.
    Raises UserError where data, space and settings do not fit together, or no trial succeeded.
    """
    begun = time.monotonic() if begun is None else begun
    trackers = check_wishes(name=name, storage=storage, metric=metric, at=at, ship=ship, log=log, address=address)
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
        ship=ship,
    )
    check_goal(task.data, settings)
    store = runs.RunStore(storage if storage is not None else default_storage())
    embedding = embed(task.data)
    starts = warm_starts(embedding, earlier_runs(store), bound) if warm_start else []
    described = _run_settings(task, bound, settings)
    described |= {"embedding": embedding, "warm_start": [start.to_json() for start in starts], "log": trackers}
    writer = store.create(name, described)
    note_run(writer.where)
    try:
        return conduct(writer, task, bound, settings, listeners, begun=begun)
    except UserError as error:
        full = isinstance(error, NotWrittenError) or isinstance(error.__cause__, NotWrittenError)
        if not writer.trials and not full:  # what could not begin as it was asked for cannot be gone on with either
            with suppress(UserError):  # another machine has it
                writer.place.delete()
        raise


def check_wishes(
    *,
    name: str | None = None,
    storage: str | os.PathLike[str] | None = None,
    metric: str | None = None,
    at: str | None = None,
    ship: str = "tested",
    log: Sequence[str] = (),
    address: str | None = None,
) -> list[str]:
    """Look at what a search is asked for besides its data, which may take minutes to read.

    Arguments as of :func:`search`. Returns the trackers as they are kept. Raises UserError as :func:`search` would.
    """
    if ship not in SHIPPED:
        raise UserError(f"ship '{ship}': one of {', '.join(SHIPPED)}{nearest(ship, SHIPPED)}")
    if metric is not None:
        metrics.get(metric)
    if at is not None:
        parse_goal(at)
    trackers = read_switches(log)
    check_address(address)
    runs.RunStore(storage if storage is not None else default_storage()).check(name)
    return trackers


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
    moved: Mapping[str, str] | None = None,
    log: Sequence[str] | None = None,
    verbose: bool = False,
    listeners: Sequence[SearchListener] = (),
    first: Sequence[Strategy] = (),
    begun: float | None = None,
) -> Run:
    """Go on with a search that was interrupted or killed, or with one that ended: no trial that ended is run again.

    run: its name, folder, URI or object. Data, space and settings are the run's own. trials: of the whole search, the
    run's number by default; with 1 nothing new is tried, and the best so far is made into a model. time_budget_s: for
    what is still to do; by default the rest of the run's own budget.
    more_trials, more_time_s: beyond what the search had; without one of them a finished run is refused. A test split
    that was opened is not opened again: figures on it stay those of the strategies that they were measured of.
    moved: where its data is now, old place by new one; it is verified to be the same. log: as of :func:`search`; None
    for the run's own trackers.
    first: strategies to try before any other. begun: as of :func:`search`.
    Raises UserError where the run is finished or running, or its data changed or was not given by path.
    """
    begun = time.monotonic() if begun is None else begun
    opened = run if isinstance(run, Run) else open_run(os.fspath(run), storage)
    trackers = read_switches(opened.settings.get("log") or () if log is None else log)
    _check_cluster(opened, address)
    more = More(more_trials, more_time_s)
    search_so_far = resuming.read(opened, moved, more=more)
    settings = search_so_far.settings(
        trials=trials, time_budget_s=time_budget_s, lanes=lanes, address=address, verbose=verbose, more=more or None
    )
    task, bound = search_so_far.task, bind(search_so_far.task, search_so_far.space)
    # What it went by stays, whatever another version takes where none is named: its figures are in that.
    settings = replace(settings, metric=settings.metric or opened.settings.get("metric"))
    metric = chosen_metric(task.data, settings)
    described = opened.settings | {"given": task.given, "metric": metric, "log": trackers, "trains": bound.can_train}
    if more:
        spent_s = search_so_far.used_s if settings.time_budget_s is not None else 0.0
        wanted = replace(settings, time_budget_s=spent_s + (settings.time_budget_s or 0.0) or None)
        described |= {"search": described["search"] | asdict(wanted)}
    writer = runs.RunWriter(opened.place.write(), opened.place, described, resume=True)
    return conduct(
        writer, task, bound, settings, listeners,
        earlier=writer.trials, before=search_so_far.before, first=first, begun=begun,
    )  # fmt: skip


def _check_cluster(run: Run, address: str | None) -> None:
    """Raise UserError where a run cannot go on on the cluster that is given, or else on the one that it began on."""
    began = run.settings.get("search", {}).get("address")
    if address or os.environ.get("RAY_ADDRESS") or not began:
        check_address(address)
        return
    try:
        check_address(began)
    except UserError as error:
        raise UserError(
            f"{error}; run '{run.name}' was begun there, and goes on elsewhere with --address HOST:PORT, or on this "
            "machine alone with --address local"
        ) from None


def _run_settings(task: Task, bound: BoundSpace, settings: SearchSettings) -> dict[str, Any]:
    data, space = task.data, bound.space
    roles = {"target": data.target, "unlabelled": data.unlabelled, **data.source_domains}
    counts = {name: len(images) for name, images in roles.items() if images is not None}
    opened = bound.known.unseen(task.test)
    if opened is not None:
        counts["test"] = len(opened)
    return {
        "task": data.name,
        "setting": str(data.setting),
        "classes": list(data.classes),
        "seed": settings.seed,
        "metric": chosen_metric(data, settings),
        "space": space.name,
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "job": JOB_CONFIG in os.environ,
        "search": asdict(settings),
        "space_settings": asdict(space.settings),
        "space_values": dict(space.values),
        "trains": bound.can_train,
        "given": task.given,
        "fingerprint": data.fingerprint,
        "test_fingerprint": task.test.fingerprint if task.test is not None else None,
        "opened_fingerprint": opened.fingerprint if opened is not None else None,
        "data": {
            "counts": counts,
            "problems": [problem.to_json() for problem in [*task.problems, *bound.problems]],
            "learned_before": {"by": dict(bound.known.validated), "of": bound.known.images},
        },
    }
