"""A run's trials as an Optuna study beside it, for Optuna's own tools: ``optuna-dashboard RUN/optuna.journal``.

Made of the journal when a search ends or is interrupted, and of one that was killed when it goes on; the search itself
goes on from the run's journal alone.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from raytl.runs.files import replacing
from raytl.search.records import TrialRecord, TrialStatus

FILE = "optuna.journal"
_LOGARITHMIC = ("head_lr", "weight_decay", "adaptation.weight", "regulariser.weight")


def write_study(folder: Path, name: str, records: Sequence[TrialRecord], started: datetime) -> None:
    """Write the study of a run, in place of an earlier one. What was neither completed nor stopped has failed.

    started: the run's beginning, from which its trials' times count: what lay between an interruption and going on is
    left out.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import BaseJournalBackend

    class Lines(BaseJournalBackend):  # type: ignore[misc]
        """What a journal file holds, line by line; Optuna's own backend locks and syncs the file for each of them."""

        def __init__(self) -> None:
            self.lines: list[dict[str, Any]] = []

        def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
            return self.lines[log_number_from:]

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            self.lines += logs

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    kept = Lines()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            storage = JournalStorage(kept)
            study = optuna.create_study(storage=storage, study_name=name, direction="maximize")
            study.set_metric_names(["score"])
            distributions = _distributions(records)
            study.add_trials([_frozen(record, distributions, started) for record in records])
    finally:
        optuna.logging.set_verbosity(before)
    with replacing(folder / FILE) as file:
        file.write("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in kept.lines).encode())


def _frozen(record: TrialRecord, distributions: dict[str, Any], started: datetime) -> Any:
    import optuna

    states = {TrialStatus.COMPLETED: "COMPLETE", TrialStatus.PRUNED: "PRUNED"}
    state = optuna.trial.TrialState[states.get(record.status, "FAIL")]
    looks = {int(look["epoch"]): look["score"] for look in record.history if math.isfinite(look.get("score", math.nan))}
    if state == optuna.trial.TrialState.COMPLETE and (record.score is None or not math.isfinite(record.score)):
        state = optuna.trial.TrialState.FAIL
    told = {"number in the run": record.number, "kind": record.kind, "fold": record.fold, "seconds": record.seconds}
    told |= {name: value for name in ("baseline", "reason", "lane") if (value := getattr(record, name))}
    params = {key: value for key, value in record.strategy.items() if key in distributions}
    trial = optuna.trial.create_trial(
        state=state,
        value=record.score if state == optuna.trial.TrialState.COMPLETE else None,
        params=params,
        distributions={key: distributions[key] for key in params},
        intermediate_values=looks,
        user_attrs=told,
    )
    if record.ended is not None:
        local = started.astimezone().replace(tzinfo=None)  # as Optuna writes times
        trial.datetime_complete = local + timedelta(seconds=record.ended)
        trial.datetime_start = trial.datetime_complete - timedelta(seconds=record.seconds)
    return trial


def _distributions(records: Sequence[TrialRecord]) -> dict[str, Any]:
    """A distribution for every setting that differs between trials, as wide as what was tried."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    tried: dict[str, list[Any]] = {}
    for record in records:
        for key, value in record.strategy.items():
            tried.setdefault(key, [])
            if value not in tried[key]:
                tried[key].append(value)
    found: dict[str, Any] = {}
    for key, values in tried.items():
        if len(values) < 2:
            continue
        if all(isinstance(value, float) for value in values):
            low, high = min(values), max(values)
            found[key] = FloatDistribution(low, high, log=key in _LOGARITHMIC and low > 0)
        else:
            found[key] = CategoricalDistribution(sorted(values, key=str))
    return found
