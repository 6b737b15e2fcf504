"""From a run that did not get to its end to all that is needed to go on with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from raytl.core.errors import UserError
from raytl.runs.run import Run
from raytl.search.planning import SearchSettings
from raytl.search.space.definition import SearchSpace, parse_space
from raytl.sources.checkpoint import is_checkpoint
from raytl.tasks import Task, make_task
from raytl.tasks.given import gone, moved

LEAST_S = 1.0


@dataclass(frozen=True)
class Begun:
    """A search as it was begun. used_s: what it has taken so far."""

    task: Task
    space: SearchSpace
    first_settings: SearchSettings
    used_s: float

    def settings(
        self,
        *,
        trials: int | None,
        time_budget_s: float | None,
        lanes: int | None,
        address: str | None,
        verbose: bool,
    ) -> SearchSettings:
        """The settings to go on with: those it was begun with, except what is given. The time used so far is spent."""
        before = self.first_settings
        if time_budget_s is None and before.time_budget_s is not None:
            time_budget_s = max(LEAST_S, before.time_budget_s - self.used_s)
        return replace(
            before,
            trials=trials or before.trials,
            time_budget_s=time_budget_s,
            lanes=lanes or before.lanes,
            address=address or before.address,
            verbose=verbose,
        )


def read(run: Run, moves: Mapping[str, str] | None = None) -> Begun:
    """How a run was begun, with its data read again.

    moves: where the data went, old place by new one (:func:`raytl.tasks.given.moved`).
    Raises UserError where the run is finished or running, its test split was opened, its data changed or is not to be
    had, or it lacks what is needed.
    """
    if run.status != "interrupted":
        raise UserError(f"run '{run.name}' is {run.status}; only an interrupted search can be resumed")
    figures = (run.outcome or {}).get("best", {}).get("test")
    if figures is not None and is_checkpoint(run.bundle_path):
        raise UserError(f"run '{run.name}' had opened its test split; a second look would bias it. Search anew")
    task, settings = read_task(run, "resumed", moves), run.settings
    known = {spec.name for spec in fields(SearchSettings)}
    begun = SearchSettings(**{key: value for key, value in settings["search"].items() if key in known})
    return Begun(task, parse_space(settings["space"], settings["space_values"]), begun, run.seconds)


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
    if missing:
        raise UserError(
            f"run '{run.name}': its data is not in {missing[0]} any more; where it was moved: raytl search --resume "
            f"{run.name} --moved {missing[0]}=NEW"
        )
    task = make_task(given)
    test = task.test.fingerprint if task.test is not None else None
    if (task.data.fingerprint, test) != (settings["fingerprint"], settings["test_fingerprint"]):
        if moves:
            now = ", ".join(moves.values())
            raise UserError(f"run '{run.name}': in {now} is other data than its search was begun with. Search anew")
        raise UserError(f"run '{run.name}': its data is not what it was when the search was begun. Search anew")
    return task
