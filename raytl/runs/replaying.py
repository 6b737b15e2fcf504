"""A recorded trial trained once more: whether it comes to the same numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from raytl.core.errors import UserError
from raytl.runs.environment import changed, environment
from raytl.runs.resuming import read_task
from raytl.runs.run import Run
from raytl.search.records import TrialRecord
from raytl.training.loop import run_trial
from raytl.training.strategy import Strategy
from raytl.training.trial import TrialError, TrialJob
from raytl.training.workspace import Workspace, WorkspaceSettings

_CLOCK = "seconds"
"""The one metric that is never the same."""


@dataclass(frozen=True)
class Difference:
    """The first figure that came out differently; ``now`` is None where the trial did not get that far."""

    epoch: int
    metric: str
    then: float
    now: float | None


@dataclass(frozen=True)
class Replay:
    """A trial then and now.

    epochs: how many were compared, on every recorded figure but the time. score, score_now: after the last of them.
    difference: None where all are the same to the last bit. changed: what this machine and its versions have otherwise,
    by name, then and now.
    """

    run: str
    trial: int
    epochs: int
    score: float | None
    score_now: float | None
    difference: Difference | None
    changed: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    @property
    def same(self) -> bool:
        """Whether it came to the same numbers."""
        return self.difference is None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        values = {**vars(self), "same": self.same}
        values["difference"] = vars(self.difference) if self.difference is not None else None
        values["changed"] = {name: {"then": then, "now": now} for name, (then, now) in self.changed.items()}
        return values


class _EnoughError(Exception):
    """All epochs that the trial had then are done."""


def replay(run: Run, number: int | None = None, moves: Mapping[str, str] | None = None) -> Replay:
    """Train a trial of a run again, in this process, as many epochs as it had, and hold the figures against each other.

    number: of the trial, None for the winner's first. moves: where its data is now, old places by new ones.
    Raises UserError where the run or the trial is not there, lacks what is needed (an older raytl's, one trained by
    several workers), or its data changed or was not given by path.
    """
    record = recorded_trial(run, number)
    workspace = Workspace(read_task(run, "replayed", moves).data, workspace_settings(run))
    fold = record.fold if workspace.folds else None
    now: list[dict[str, float]] = []

    def report(metrics: dict[str, Any]) -> None:
        now.append(metrics)
        if len(now) == len(record.history):
            raise _EnoughError

    with suppress(_EnoughError, TrialError):
        run_trial(workspace, recorded_job(run, record, fold), report)
    return Replay(
        run.name,
        record.number,
        len(record.history),
        record.history[-1].get("score"),
        now[-1].get("score") if now else None,
        next(_differences(record.history, now), None),
        changed(run.environment, environment()),
    )


def recorded_job(run: Run, record: TrialRecord, fold: int | None) -> TrialJob:
    """What a lane was told to train, with what the run's survey found."""
    survey = (run.outcome or {}).get("survey") or {}
    return TrialJob(
        Strategy.from_dict(record.strategy),
        fold,
        frequencies=tuple(survey.get("frequencies", ())),
        set_aside=tuple(sorted(survey.get("set_aside", ()))),
        looks=any("unlabelled" in look for look in record.history),
    )


def recorded_trial(run: Run, number: int | None) -> TrialRecord:
    """A trial that trained at least an epoch; None for the winner's first. Raises UserError."""
    records = {record.number: record for record in run.records()}
    if number is None:
        if run.outcome is None:
            raise UserError(f"run '{run.name}' chose nothing yet; name one of its trials by number")
        number = min(run.outcome["best"]["trials"])
    if number not in records:
        known = f"its trials are 0 to {max(records)}" if records else "it has none"
        raise UserError(f"run '{run.name}' has no trial {number}; {known}")
    record = records[number]
    if not record.history:
        raise UserError(f"run '{run.name}': trial {number} ended before its first epoch; there is nothing to compare")
    if Strategy.from_dict(record.strategy).key != record.strategy_key:
        raise UserError(
            f"run '{run.name}': trial {number} was made by an older raytl, in which its strategy was another one (its "
            "head read other features); it cannot be had again: search anew"
        )
    return record


def workspace_settings(run: Run) -> WorkspaceSettings:
    """What a run's lanes were told. Raises UserError where that is not known, or one process is not enough."""
    known = (run.outcome or {}).get("workspace")
    if known is None:
        raise UserError(f"run '{run.name}' does not say how its lanes were set up: unfinished, or an older raytl's")
    if run.settings["search"].get("workers_per_trial", 1) > 1:
        raise UserError(f"run '{run.name}': several workers trained each of its trials; one cannot train them again")
    return WorkspaceSettings.from_json(known)


def _differences(then: list[dict[str, float]], now: list[dict[str, float]]) -> Iterator[Difference]:
    """In order. Figures are compared bit for bit; NaN is itself."""
    for index, known in enumerate(then):
        found = now[index] if index < len(now) else {}
        for metric, value in known.items():
            other = found.get(metric)
            if metric != _CLOCK and other != value and not (other is not None and other != other and value != value):
                yield Difference(int(known["epoch"]), metric, value, other)
