"""The plan as Ray Tune sees it: a searcher that hands out jobs and a scheduler that stops them."""

from __future__ import annotations

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from raytl.search.jobs import EpochReport, JobResult, LaneJob
from raytl.search.plan import SearchPlan, Wait


class PlanSearcher(Searcher):  # type: ignore[misc]
    """Hands the plan's jobs to Tune as trials and their ends back to the plan.

    ahead: jobs handed out beyond the running ones. Tune keeps a lane's process only for a trial that already waits, so
    one must always be waiting.
    """

    def __init__(self, plan: SearchPlan, lanes: int, ahead: int) -> None:
        super().__init__()
        self.plan = plan
        self.jobs: dict[str, int] = {}
        self._limit = lanes + ahead
        self._alive: set[str] = set()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """A trial's config, None to be asked again later, FINISHED at the end."""
        if len(self._alive) >= self._limit:
            return None
        job = self.plan.next_job()
        if isinstance(job, Wait):
            return None
        if not isinstance(job, LaneJob):
            finished: str = Searcher.FINISHED
            return finished
        self.jobs[trial_id] = job.number
        self._alive.add(trial_id)
        return {"job": job.to_json()}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial ended: by itself (its last report holds the result), stopped, or with its lane."""
        if trial_id not in self._alive:
            return
        self._alive.discard(trial_id)
        report = (result or {}).get("report")
        outcome = report if isinstance(report, JobResult) and not error else None
        died = "its process died (killed, out of memory, or a bug: see --verbose)" if error else None
        self.plan.on_end(self.jobs[trial_id], outcome, died)

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher so as to restore it; the plan holds locks and open files, and the journal restores."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a run is resumed from its own journal, not from Tune's pickles."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, likewise."""


class PlanScheduler(FIFOScheduler):  # type: ignore[misc]
    """Asks the plan after each report whether the trial goes on."""

    def __init__(self, searcher: PlanSearcher) -> None:
        super().__init__()
        self._searcher = searcher

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as for the searcher."""
        return {}

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """CONTINUE or STOP."""
        report = result.get("report")
        goes_on = True
        if isinstance(report, EpochReport):
            goes_on = self._searcher.plan.on_epoch(self._searcher.jobs[trial.trial_id], report.metrics)
        decision: str = TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP
        return decision


def trial_directory(trial: Trial) -> str:
    """A short name: Tune's own holds the whole config."""
    return f"job-{trial.trial_id}"


__all__ = ["PlanScheduler", "PlanSearcher", "trial_directory"]
