"""From a run to all that is needed to go on with it, whether it got to its end or not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from raytl.core.errors import UserError
from raytl.core.paths import renew
from raytl.runs.files import read_json
from raytl.runs.going_on import BEFORE, More, refuse_finished
from raytl.runs.run import Run
from raytl.search.jobs import JobKind
from raytl.search.planning import UNLIMITED, SearchSettings, most_trials
from raytl.search.records import TrialStatus
from raytl.search.space.definition import SearchSpace, parse_space
from raytl.tasks import Task, make_task
from raytl.tasks.given import gone, moved, places

LEAST_S = 1.0


@dataclass(frozen=True)
class Begun:
    """A search as it was begun.

    used_s: what it has taken so far; tried: strategies of the search that ended. ended: whether it came to its end.
    before: the outcome that opened its test split, which is then not opened again; None where it is still shut.
    """

    task: Task
    space: SearchSpace
    first_settings: SearchSettings
    used_s: float
    tried: int = 0
    ended: bool = False
    before: dict[str, Any] | None = None

    def settings(
        self,
        *,
        trials: int | None,
        time_budget_s: float | None,
        lanes: int | None,
        address: str | None,
        verbose: bool,
        more: More | None = None,
    ) -> SearchSettings:
        """The settings to go on with: those it was begun with, except what is given. The time used so far is spent.

        The cluster that RAY_ADDRESS names goes before the one that it was begun on, which may be gone.
        more: than was asked for before; what ended the search then (patience, too little to gain) ends it no more.
        """
        before = self.first_settings
        if time_budget_s is None and before.time_budget_s is not None:
            time_budget_s = max(LEAST_S, before.time_budget_s - self.used_s)
        usual = self.space.settings.trials if before.time_budget_s is None else None
        found = replace(
            before,
            trials=trials or before.trials or (usual if time_budget_s is not None else None),
            time_budget_s=time_budget_s,
            lanes=lanes or before.lanes,
            address=address or os.environ.get("RAY_ADDRESS") or before.address,
            verbose=verbose,
        )
        found = found if more is None else self._with_more(found, more)
        # Another limit would make other source models under the names of those that were tried.
        kept_s = before.pretraining_s
        return replace(found, pretrain_s=found.pretraining_s if kept_s is None else kept_s)

    def _with_more(self, settings: SearchSettings, more: More) -> SearchSettings:
        wished = most_trials(self.space.settings.trials, settings.trials, settings.time_budget_s)
        timed = wished >= UNLIMITED and more.trials is not None  # by time alone: more are more than were tried
        planned = self.tried if self.ended or timed else max(self.tried, wished)
        trials = UNLIMITED if more.trials is None and self.ended else planned + (more.trials or 0)
        seconds = settings.time_budget_s
        if self.ended or more.seconds is None:
            seconds = more.seconds if self.ended else seconds
        elif seconds is not None:
            seconds += more.seconds
        return replace(settings, trials=trials, time_budget_s=seconds, patience=None, min_gain=None)


def read(run: Run, moves: Mapping[str, str] | None = None, *, more: More | None = None) -> Begun:
    """How a run was begun, with its data read again.

    moves: where the data went, old place by new one (:func:`raytl.tasks.given.moved`). more: what is asked for beyond
    what was, without which a finished run is refused. Raises UserError where the run is running, its data changed or is
    not to be had, or it lacks what is needed.
    """
    if run.status == "running":
        raise UserError(f"run '{run.name}' is running; only a search that has ended can be resumed")
    ended = run.status == "finished"
    if ended and not more:
        raise refuse_finished(run.name)
    task, settings = read_task(run, "resumed", moves), run.settings
    known = {spec.name for spec in fields(SearchSettings)}
    begun = SearchSettings(**{key: value for key, value in settings["search"].items() if key in known})
    records = [record for record in run.records() if record.kind == JobKind.SEARCH]
    tried = sum(record.status is not TrialStatus.INTERRUPTED and not record.asked for record in records)
    space = parse_space(settings["space"], settings["space_values"])
    return Begun(task, space, begun, run.seconds, tried, ended, _opened_with(run))


def _opened_with(run: Run) -> dict[str, Any] | None:
    """The outcome with which the run's test split was opened, None where nobody has seen a figure of it.

    A search that was killed between opening it and writing what it found has told nobody anything: it may open it.
    Raises UserError where the figures are lost and somebody may have seen them.
    """
    if run.settings.get("test_fingerprint") is None:
        return None
    for name in (BEFORE, "outcome.json"):
        if run.place.has(name):
            found = read_json(run.place.file(name))
            if found["best"]["test"] is not None or found.get("test_undefined"):
                return {"trials_then": len(run.records()), **found}
    if run.place.has("predictions.parquet"):
        raise UserError(f"run '{run.name}' had opened its test split; a second look would bias it. Search anew")
    return None


def read_task(run: Run, done: str, moves: Mapping[str, str] | None = None) -> Task:
    """A run's data, read again.

    done: what cannot be done without it (``resumed``). Raises UserError where it changed or is not to be had.
    """
    settings = run.settings
    if "given" not in settings:
        raise UserError(f"run '{run.name}' was begun by an older raytl and cannot be {done}. Search anew")
    if settings["given"] is None:
        raise UserError(f"run '{run.name}' got its data from memory, not by path, and cannot be {done}. Search anew")
    given = moved(settings["given"], moves or {})
    missing = gone(given)
    if missing and moves:
        was = next(iter(moves))
        raise UserError(f"run '{run.name}': its data is not in {missing[0]} either; correct --moved {was}=NEW")
    if missing:
        raise UserError(
            f"run '{run.name}': its data is not in {missing[0]} any more; where it was moved, add --moved "
            f"{missing[0]}=NEW"
        )
    for place in places(given):
        renew(place)
    task = make_task(given)
    test = task.test.fingerprint if task.test is not None else None
    if (task.data.fingerprint, test) != (settings["fingerprint"], settings["test_fingerprint"]):
        if moves:
            now = ", ".join(moves.values())
            raise UserError(f"run '{run.name}': in {now} is other data than its search was begun with. Search anew")
        raise UserError(f"run '{run.name}': its data is not what it was when the search was begun. Search anew")
    return task
