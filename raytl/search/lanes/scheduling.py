"""What stops the plan's jobs and looks after their lanes, as Ray Tune sees it: a scheduler and callbacks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ray.tune import Callback, PlacementGroupFactory
from ray.tune.experiment import Trial
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from raytl.search.jobs import EpochReport
from raytl.search.lanes.starving import survive
from raytl.search.lanes.tuning import PlanSearcher

# torch's own class, and what CUDA's libraries say; after either no call to the GPU succeeds in that process. Lines of
# advice follow in the traceback.
_FAULT = re.compile(r"(torch\.AcceleratorError|RuntimeError): (CUDA|HIP) error")


class PlanScheduler(FIFOScheduler):  # type: ignore[misc]
    """Asks the plan after each report whether the trial goes on, and looks after the lanes."""

    def __init__(self, searcher: PlanSearcher) -> None:
        super().__init__()
        self._searcher = searcher
        self._kept: set[PlacementGroupFactory] = set()
        self._surviving = False

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as for the searcher."""
        return {}

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Let Tune keep the lane's process until the end; of itself it keeps at most one that no trial waits for."""
        trial.init_local_path()  # of what is stopped before it has a process, Tune's results ask for the folder too
        if not self._surviving:
            self._surviving = True
            survive(tune_controller, self._searcher.starved)
        resources = trial.placement_group_factory
        if resources not in self._kept:
            self._kept.add(resources)
            tune_controller._actor_cache.increase_max(resources)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Leave the choice to Tune, which starts what waits; the inherited method walks through all trials."""

        def placed(trial_id: str) -> bool:
            actor = tune_controller._trial_to_actor.get(tune_controller.get_trial(trial_id))
            return bool(actor is not None and tune_controller._actor_manager.is_actor_started(actor))

        for needless in self._searcher.needless():
            tune_controller.stop_trial(tune_controller.get_trial(needless))
        stopped = self._searcher.rehouse(placed)
        if stopped is not None:
            tune_controller.stop_trial(tune_controller.get_trial(stopped))
        return None

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """CONTINUE or STOP."""
        report = result.get("report")
        goes_on = self._searcher.report(trial.trial_id, report) if isinstance(report, EpochReport) else True
        decision: str = TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP
        return decision

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Tell the searcher of an exception; a process that died leaves no traceback of its task.

        What a GPU says says nothing of the job, which may have met one that failed, or another's mistake on it.
        """
        lines = Path(trial.error_file).read_text().strip().splitlines()
        fault = next((line for line in lines if _FAULT.match(line)), None)
        if fault is not None:
            self._searcher.broke(trial.trial_id, fault)
        elif any("ray::" in line for line in lines):
            self._searcher.raised(trial.trial_id, lines[-1].strip())


class LaneWatch(Callback):  # type: ignore[misc]
    """Tells the searcher which trials have a running lane."""

    def __init__(self, searcher: PlanSearcher) -> None:
        self._searcher = searcher

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """The trial's lane is up."""
        self._searcher.begun(trial.trial_id)


class Silent(TrialProgressCallback):  # type: ignore[misc]
    """In the place of Ray's own, which tells of a trial that was stopped before it began, however quiet it is to be."""

    def _print(self, msg: str) -> None:
        """Nothing: the plan's listeners tell what there is to tell."""


def trial_directory(trial: Trial) -> str:
    """A short name: Tune's own holds the whole config."""
    return f"job-{trial.trial_id}"
