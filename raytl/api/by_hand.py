"""A strategy put together by hand: tried next by a search that goes on, or as one more by one that ended."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raytl.api.models import Run, open_run
from raytl.api.searching import resume
from raytl.core.errors import UserError
from raytl.core.paths import run_argument
from raytl.runs.requests import ask_to_try
from raytl.runs.resuming import read_task
from raytl.search.jobs import JobKind
from raytl.search.records import SearchListener, TrialRecord, TrialStatus
from raytl.search.space.binding import BoundSpace
from raytl.search.space.by_hand import complete
from raytl.search.space.definition import parse_space
from raytl.sources.heads import CONVEX
from raytl.training.strategy import Strategy


@dataclass(frozen=True)
class Attempt:
    """A strategy for a run. asked: whether the search that goes on was asked; otherwise it is yet to be extended."""

    run: Run
    strategy: Strategy
    asked: bool


def try_strategy(
    run: str | os.PathLike[str] | Run,
    assignments: Sequence[str],
    *,
    like: int | None = None,
    storage: str | os.PathLike[str] | None = None,
    moved: Mapping[str, str] | None = None,
    lanes: int | None = None,
    address: str | None = None,
    verbose: bool = False,
    listeners: Sequence[SearchListener] = (),
) -> Run:
    """Have a strategy tried that is put together by hand (``["cut=0", "head_lr=0.01"]``), beyond what was planned.

    A search that goes on is asked to try it next, and the run is returned at once; one that ended goes on by this one
    strategy, as :func:`resume` has it. like: number of a trial whose strategy it has otherwise; by default that of the
    best that was trained. moved, lanes, address, verbose, listeners: as of :func:`resume`.
    Raises UserError where the space does not have the strategy, it was tried, or the run cannot be gone on with.
    """
    attempt = ask(run, assignments, like=like, storage=storage, moved=moved)
    if attempt.asked:
        return attempt.run
    more = 1 if attempt.run.status == "finished" else None
    return resume(
        attempt.run, more_trials=more, lanes=lanes, address=address, moved=moved, verbose=verbose, listeners=listeners,
        first=[attempt.strategy],
    )  # fmt: skip


def ask(
    run: str | os.PathLike[str] | Run,
    assignments: Sequence[str],
    *,
    like: int | None = None,
    storage: str | os.PathLike[str] | None = None,
    moved: Mapping[str, str] | None = None,
) -> Attempt:
    """The first half of :func:`try_strategy`: all but extending a run that has ended."""
    opened = run if isinstance(run, Run) else open_run(os.fspath(run), storage)
    task, settings = read_task(opened, "gone on with", moved), opened.settings
    bound = BoundSpace(parse_space(settings["space"], settings["space_values"]), task.data)
    records = opened.records()
    strategy = complete(bound, assignments, _base(opened, records, like))
    known = (r for r in records if r.strategy_key == strategy.key and r.status is not TrialStatus.INTERRUPTED)
    before = next(known, None)
    if before is not None:
        score = "" if before.score is None else f", score {before.score:.3f}"
        raise UserError(f"run '{opened.name}': trial {before.number} is this very strategy ({before.status}{score})")
    if opened.status == "running":
        ask_to_try(opened, strategy.to_dict())
        return Attempt(opened, strategy, True)
    return Attempt(opened, strategy, False)


def _base(run: Run, records: Sequence[TrialRecord], like: int | None) -> dict[str, object] | None:
    if like is not None:
        found = next((record for record in records if record.number == like), None)
        if found is None:
            last = max((record.number for record in records), default=None)
            known = "it has none" if last is None else f"its trials are 0 to {last}"
            command = f"raytl runs show {run_argument(run.argument)}"
            raise UserError(f"run '{run.name}' has no trial {like}; {known}; they are shown by: {command}")
        return found.strategy
    kinds = (JobKind.SEARCH, JobKind.BASELINE)
    trained = [r for r in records if r.kind in kinds and r.score is not None and r.strategy.get("head") not in CONVEX]
    best = max(trained, key=lambda record: record.score or 0.0, default=None)
    return None if best is None else best.strategy
