"""A run in MLflow: one run of the experiment ``raytl``, with a nested run for each trial."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from raytl.runs.tracking import figures
from raytl.runs.tracking.figures import Told, is_over
from raytl.search.records import TrialRecord, TrialStatus

EXPERIMENT = "raytl"
PARENT = "mlflow.parentRunId"
WHERE, TRIAL = "raytl.run", "raytl.trial"
AT_ONCE = 100
"""Parameters and tags that MLflow takes in a request; of metrics ten times as many."""
LONGEST = 500
"""Characters of a parameter."""
_ENDINGS = {TrialStatus.FAILED: "FAILED", TrialStatus.PRUNED: "KILLED", TrialStatus.INTERRUPTED: "KILLED"}


class MlflowTracker:
    """Writes to a tracking server or database. uri: None for MLflow's own default (``MLFLOW_TRACKING_URI``).

    A search that goes on finds its run again by the tag ``raytl.run``.
    """

    def __init__(self, uri: str | None, told: Told) -> None:
        self._client = MlflowClient(tracking_uri=uri)
        experiment = self._client.get_experiment_by_name(EXPERIMENT)
        self._experiment = experiment.experiment_id if experiment else self._client.create_experiment(EXPERIMENT)
        self._written: dict[int, int] = {}
        where = told.where.replace("'", "%27")  # which would end the filter
        before = self._found(f"tags.`{WHERE}` = '{where}'")
        if before:
            self._run = str(before[0].info.run_id)
            self._client.update_run(self._run, status="RUNNING")
            nested = self._found(f"tags.`{PARENT}` = '{self._run}'")
        else:
            self._run = self._begin(told.name, {WHERE: where}, _settings(told))
            nested = []
        self._trials = {int(run.data.tags[TRIAL]): str(run.info.run_id) for run in nested}
        self._done = {int(run.data.tags[TRIAL]) for run in nested if run.info.status != "RUNNING"}

    def trial(self, record: TrialRecord) -> None:
        """Write what is new in a trial."""
        number = record.number
        if number in self._done:
            return
        if number not in self._trials:
            name = f"trial {number} ({record.baseline or record.kind})"
            self._trials[number] = self._begin(
                name, {PARENT: self._run, TRIAL: str(number)}, figures.parameters(record)
            )
        for epoch, values in figures.looks(record):
            if epoch > self._written.get(number, 0):
                self._written[number] = epoch
                self._log(self._trials[number], values, epoch)
        if is_over(record):
            self._done.add(number)
            self._log(self._trials[number], {f"end/{name}": value for name, value in figures.ended(record).items()}, 0)
            self._client.set_tag(self._trials[number], "raytl.status", record.reason or str(record.status))
            self._client.set_terminated(self._trials[number], _ENDINGS.get(record.status, "FINISHED"))

    def end(self, status: str, final: Mapping[str, float], summary: Mapping[str, Any]) -> None:
        """Write the figures of the run."""
        self._log(self._run, final, 0)
        best = summary["best"]
        tags = {"raytl.why": summary["why"], "raytl.metric": summary["metric"]}
        if best is not None:
            tags |= {f"best.{name}": str(value) for name, value in best["strategy"].items()}
        self._client.log_batch(self._run, tags=[RunTag(name, value) for name, value in tags.items()][:AT_ONCE])
        self._client.set_terminated(self._run, "FINISHED" if status == "finished" else "KILLED")

    def _begin(self, name: str, tags: Mapping[str, str], params: Mapping[str, Any]) -> str:
        run = self._client.create_run(self._experiment, run_name=name, tags=dict(tags))
        given = [Param(key, str(value)[:LONGEST]) for key, value in params.items()]
        for start in range(0, len(given), AT_ONCE):
            self._client.log_batch(run.info.run_id, params=given[start : start + AT_ONCE])
        return str(run.info.run_id)

    def _log(self, run: str, values: Mapping[str, float], step: int) -> None:
        now = int(1000 * time.time())
        metrics = [Metric(name, value, now, step) for name, value in values.items()]
        if metrics:
            self._client.log_batch(run, metrics=metrics)

    def _found(self, which: str) -> list[Any]:
        found, token = [], None
        while True:
            page = self._client.search_runs([self._experiment], filter_string=which, max_results=1000, page_token=token)
            found += page
            token = page.token
            if not token:
                return found


def _settings(told: Told) -> dict[str, Any]:
    """What a search was asked for, and on what."""
    search = {f"search.{name}": value for name, value in told.settings.get("search", {}).items() if value is not None}
    names = ("task", "setting", "space", "seed", "fingerprint", "command")
    return {name: told.settings[name] for name in names if told.settings.get(name) is not None} | search
