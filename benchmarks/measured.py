"""A search as a user starts it, every model that it left on the way, and what these are worth on the truth.

A search is started by the public API alone. A run may drop its candidates' models at its end, so they are linked away
as they come.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from packages import lite0_uri
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from tasks import Case

import raytl
from raytl.bundles import Bundle
from raytl.core.errors import UserError
from raytl.core.machine import cores
from raytl.runs.replaying import workspace_settings
from raytl.sources import SourceModel
from raytl.tasks import LabelledImages
from raytl.training.loop import run_trial
from raytl.training.strategy import Strategy
from raytl.training.trial import TrialError, TrialJob
from raytl.training.workspace import Workspace

_LOOK_S = 0.1
BATCH = 128


@dataclass
class Searched:
    """A search that came to an end. refused: raytl's sentence, where it did not take the task.

    candidates: refitted models by the name of their folder. models: bundles that were there to use, with the second of
    the search at which each appeared; the last one is what the run ended with.
    """

    seconds: float
    task: Any = None
    run: Any = None
    refused: str | None = None
    candidates: dict[str, Path] = field(default_factory=dict)
    models: list[tuple[float, Path]] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """What the run says of itself."""
        summary: dict[str, Any] = self.run.summary()
        return summary


def space_settings(as_shipped: bool) -> list[str]:
    """Assignments that leave out the networks whose weights no package holds."""
    if as_shipped:
        return []
    small = ("pretrain:*/scratch:resnet-small", "scratch:resnet-small", "plain:pixels", "plain:gradients")
    return [f"source_model={[lite0_uri(), *small]}"]


@contextmanager
def one_ray() -> Iterator[None]:
    """One Ray for many searches, where their start is not what is measured. Needs RAYTL_HOME to be settled."""
    lite0_uri()  # Ray's processes have to find the package
    ray.init(address="local", num_cpus=cores(), include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()


def searched(case: Case, folder: Path, *, seed: int, test: bool = False, **options: Any) -> Searched:
    """Search. folder: new, for the run and its models. options: those of :func:`raytl.search`."""
    folder.mkdir(parents=True)
    started = time.perf_counter()
    with _collected(folder, started) as found:
        try:
            found.task = case.task(test=test, seed=seed)
            options = {"warm_start": False, **options}
            found.run = raytl.search(found.task, name="run", storage=folder, seed=seed, **options)
        except UserError as error:
            found.refused = str(error)
    found.seconds = time.perf_counter() - started
    if found.run is not None and found.run.status == "interrupted":
        raise KeyboardInterrupt  # which a search takes for its own end
    return found


@contextmanager
def _collected(folder: Path, started: float) -> Iterator[Searched]:
    found, done = Searched(0.0), threading.Event()

    def look() -> None:
        run = folder / "run"
        for refit in run.glob("refits/*/model.json"):
            name = refit.parent.name
            kept = folder / "candidates" / name
            if name not in found.candidates and not name.startswith(".") and _linked(refit.parent, kept):
                found.candidates[name] = kept
        with suppress(OSError):
            changed = (run / "model" / "model.json").stat().st_mtime_ns
            kept = folder / "models" / str(changed)
            if not kept.exists() and _linked(run / "model", kept):
                found.models.append((time.perf_counter() - started, kept))

    def watch() -> None:
        while not done.wait(_LOOK_S):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()
        look()


def _linked(model: Path, place: Path) -> bool:
    """Whether a folder could be linked before it went."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(model, place, copy_function=os.link)
    except (OSError, shutil.Error):
        shutil.rmtree(place, ignore_errors=True)
        return False
    return True


def probabilities(bundle: Bundle, case: Case) -> np.ndarray:
    """Of the truth's classes for its images, (n, k)."""
    answers = bundle.predict([item.open() for item in case.truth.items])
    return np.array([[answer.probabilities.get(name, 0.0) for name in case.truth.classes] for answer in answers])


class Refits:
    """Strategies of a run trained on all that its own model was trained on, where the run kept no model of them.

    A run compares some on folds alone; whether it is right is then seen by models that it never had.
    """

    def __init__(self, found: Searched, case: Case) -> None:
        self._workspace = Workspace(found.task.data, workspace_settings(found.run))
        survey = (found.run.outcome or {}).get("survey") or {}
        self._frequencies = tuple(survey.get("frequencies", ()))
        self._truth = case.truth

    def __call__(self, strategy: Strategy) -> np.ndarray | None:
        """Predicted classes (n,) of the truth, by their place among the truth's; None where it cannot be trained."""
        job = TrialJob(strategy, None, final=True, frequencies=self._frequencies)
        try:
            model = run_trial(self._workspace, job, lambda _: None).model
        except TrialError:
            return None
        return predicted(model, self._workspace, self._truth)


@torch.inference_mode()
def predicted(model: SourceModel, workspace: Workspace, truth: LabelledImages) -> np.ndarray:
    """Predicted classes (n,) of the truth by a model of the workspace's task, by their place among the truth's."""
    model.eval()
    pixels = workspace.pixels(truth, model.preprocessing)
    said = torch.cat([model(model.preprocessing.normalise(part)) for part in pixels.split(BATCH)]).argmax(1).numpy()
    places = {name: place for place, name in enumerate(truth.classes)}
    return np.array([places.get(name, -1) for name in workspace.data.classes])[said]


# --- what they are worth ---------------------------------------------------------------------------------------------


def worth(predicted: np.ndarray, labels: np.ndarray, metric: str = "accuracy") -> float:
    """Of predicted classes (n,): ``accuracy``, or else ``balanced accuracy``."""
    if metric == "accuracy":
        return float(np.mean(predicted == labels))
    return float(balanced_accuracy_score(labels, predicted))


def paired(
    first: np.ndarray, second: np.ndarray, labels: np.ndarray, metric: str = "accuracy"
) -> tuple[float, float, float]:
    """First's worth minus second's with its 95 % interval over the truth's images, by 400 paired bootstraps."""
    rng = np.random.default_rng(0)
    gap = worth(first, labels, metric) - worth(second, labels, metric)
    weights = np.ones(len(labels))
    if metric != "accuracy":
        counts = np.bincount(labels)
        weights = len(labels) / (np.count_nonzero(counts) * counts[labels])
    gains = weights * ((first == labels).astype(float) - (second == labels))
    draws = gains[rng.integers(len(labels), size=(400, len(labels)))].mean(1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return gap, float(low), float(high)


def auroc(rows: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve; with more than two classes the mean of one against the rest."""
    if rows.shape[1] == 2:
        return float(roc_auc_score(labels, rows[:, 1]))
    areas = [roc_auc_score(labels == k, rows[:, k]) for k in np.unique(labels)]
    return float(np.mean(areas))


def calibration_error(rows: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error: gap of confidence and accuracy over bins of equal width, weighted by their images."""
    confidence, right = rows.max(1), rows.argmax(1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    inside = [place == number for number in range(bins) if (place == number).any()]
    return float(sum(bin_.mean() * abs(right[bin_].mean() - confidence[bin_].mean()) for bin_ in inside))


def stated(summary: dict[str, Any]) -> dict[str, float] | None:
    """A run's word on its model: ``value``, ``low``, ``high``; None where it says nothing, or no interval."""
    figure = (summary.get("best") or {}).get("validation_metric") or {}
    if any(figure.get(key) is None for key in ("value", "low", "high")):
        return None
    return {key: float(figure[key]) for key in ("value", "low", "high")}


def metric_of(summary: dict[str, Any]) -> str:
    """What a run says that it chose by; accuracy where it does not say."""
    return "balanced accuracy" if "balanced" in str(summary["metric"]) else "accuracy"
