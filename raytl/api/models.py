"""What a search left: its run, the model that it chose, and what can be done with them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raytl import runs
from raytl.bundles import Bundle, Reference, Threshold, export_bundle, reference_images
from raytl.bundles.features import read_features
from raytl.bundles.yardstick import NO_YARDSTICK, read_yardstick
from raytl.core.errors import UserError
from raytl.core.paths import default_storage, run_argument
from raytl.core.places import is_there
from raytl.evaluation.intervals import Interval
from raytl.runs.documents import outcome_document
from raytl.runs.recipe import Recipe
from raytl.runs.recipe import recipe as write_recipe
from raytl.runs.replaying import Replay
from raytl.runs.replaying import replay as replay_trial
from raytl.runs.run import interval
from raytl.search.records import SearchOutcome
from raytl.sources import Learned, learned_by, licence_of
from raytl.sources.checkpoint import load_checkpoint, write_metrics
from raytl.sources.heads import ZERO_SHOT
from raytl.sources.learned import read_learned
from raytl.sources.manifest import read_manifest
from raytl.tasks import Task
from raytl.training.pretrain import parse_pretrain

if TYPE_CHECKING:
    from raytl.serving import Endpoint

CAUTIONS = "cautions"
"""Where a card has the sentences that are to be read with its figures."""


@dataclass(frozen=True)
class Best:
    """The strategy that a search chose, and its model.

    validation, test: the run's metric with 95 % intervals, the first corrected for the choice; None where the task has
    no labels to measure it on.
    """

    strategy: dict[str, Any]
    validation: Interval | None
    test: Interval | None
    bundle_path: Path

    def load(self) -> Bundle:
        """The model, ready to predict."""
        return Bundle.load(self.bundle_path)

    def export(self, directory: str | os.PathLike[str], *, images: bool = True, features: bool = True) -> Path:
        """Copy the model's bundle to ``directory``, checked on the way. An older bundle there is replaced.

        images: whether anything goes with it from which a training image can be seen: the reference predictions, which
            hold small copies of up to 16 of them, and the features. features: whether the features of the training
            images do, which :func:`extend` needs.
        Raises UserError where the run has no model or the place holds something that is not a bundle.
        """
        return copy_bundle(self.bundle_path, directory, images=images, features=features)


class Run(runs.Run):
    """A search on disk."""

    @property
    def best(self) -> Best:
        """What the search chose. Raises UserError where it was interrupted before a model was made."""
        chosen = self.summary()["best"]
        if chosen is None or not self.has_model:
            raise UserError(
                f"run '{self.name}' has no model: the search ended before one was made. "
                f"Go on with: raytl search --resume {run_argument(self.argument)}"
            )
        return Best(
            chosen["strategy"], interval(chosen["validation_metric"]), interval(chosen["test_metric"]), self.bundle_path
        )


def open_run(name: str, storage: str | os.PathLike[str] | None = None) -> Run:
    """A run by name, folder or URI. Raises UserError that names the nearest one."""
    store = runs.RunStore(storage if storage is not None else default_storage())
    return Run(store.find(name))


def replay(
    run: str | os.PathLike[str] | Run,
    trial: int | None = None,
    *,
    moved: Mapping[str, str] | None = None,
    storage: str | os.PathLike[str] | None = None,
) -> Replay:
    """Train a trial of a run again and say whether it comes to the same numbers.

    run: its name, folder or object. trial: its number, None for the winner's first. moved: where its data is now, old
    place by new one. Raises UserError where run or trial lack what is needed, or the data changed or was not given by
    path.
    """
    return replay_trial(run if isinstance(run, Run) else open_run(os.fspath(run), storage), trial, moved)


def recipe(
    run: str | os.PathLike[str] | Run,
    trial: int | None = None,
    *,
    moved: Mapping[str, str] | None = None,
    images: str | os.PathLike[str] | None = None,
    storage: str | os.PathLike[str] | None = None,
) -> Recipe:
    """Write a trial of a run as a plain PyTorch script that trains the same without raytl.

    Arguments as of :func:`replay`. images: a folder to write those images to that are in no file of their own.
    Raises UserError like :func:`replay`, and where no script can be written with the source model.
    """
    opened = run if isinstance(run, Run) else open_run(os.fspath(run), storage)
    return write_recipe(opened, trial, moved, None if images is None else Path(images))


def deploy(
    model: str | os.PathLike[str] | Run,
    *,
    storage: str | os.PathLike[str] | None = None,
    canary: float = 0.0,
    shadow: bool = False,
    **options: Any,
) -> Endpoint:
    """Serve a bundle, or the model of a run (by name, folder or object), on Ray Serve.

    canary: share of the requests (0.05) that it is to answer on trial, beside the model that is served; shadow: it
        answers nobody, and is only compared with it.
    options: those of :func:`raytl.serving.deploy` (port, replicas, resources, new_labels, token), on trial those of
        :func:`raytl.serving.try_out` (promote_after, max_disagreement, max_slowdown, new_labels).
    """
    from raytl.serving import deploy as deploy_bundle  # Ray Serve: seconds of import that a search does not need
    from raytl.serving import try_out

    bundle = find_bundle(model, storage)
    return try_out(bundle, canary=canary, **options) if canary or shadow else deploy_bundle(bundle, **options)


def copy_bundle(bundle: Path, directory: str | os.PathLike[str], *, images: bool = True, features: bool = True) -> Path:
    """Copy a bundle as :meth:`Best.export` does, also over itself."""
    manifest, model = load_checkpoint(bundle)
    weights, classes = manifest.weights.sha256, len(manifest.labels or ())
    return export_bundle(
        Path(directory),
        model,
        metrics={name: value for name, value in manifest.metrics.items() if name != "onnx"},
        provenance=manifest.provenance,
        temperature=manifest.temperature,
        threshold=manifest.threshold,
        reference=Reference.read(bundle) if images else None,
        yardstick=read_yardstick(bundle, weights, classes),
        features=read_features(bundle, weights, classes) if images and features else None,
        learned=read_learned(bundle) if images else None,
    )


def find_bundle(model: str | os.PathLike[str] | Run, storage: str | os.PathLike[str] | None = None) -> Path:
    """The bundle's folder that a path, a run's name, its URI or a run means."""
    found = find_model(model, storage)
    return found.best.bundle_path if isinstance(found, Run) else found


def find_model(
    model: str | os.PathLike[str] | Run, storage: str | os.PathLike[str] | None = None, *, runs_first: bool = False
) -> Run | Path:
    """The run, or the folder of a bundle without one, that a path, a run's name, its URI or a run means.

    A folder that is neither run nor bundle does not stand in the way of a run of its name: images often lie in one.
    runs_first: neither does a bundle, such as the run's own that was exported under its name.
    """
    if isinstance(model, Run):
        return model
    path = Path(model)
    if is_there(path / "run.json"):
        return Run(path)
    if runs_first and path.name == str(model):
        with suppress(UserError):
            return open_run(str(model), storage)
    if is_there(path / "model.json"):
        return path
    try:
        return open_run(str(model), storage)
    except UserError:
        if is_there(path):
            return path  # what is wrong with it, a bundle's reader says best
        raise


def export_winner(directory: Path, refit: Path, outcome: SearchOutcome, task: Task, run_name: str) -> None:
    """Write the bundle of a search's winner, with what is known of it so far. refit: its checkpoint."""
    _, model = load_checkpoint(refit)
    best = outcome.best
    provenance = {
        "run": run_name,
        "task": task.data.name,
        "setting": str(task.data.setting),
        "strategy": outcome.best.strategy,
        "licence": _licence(str(outcome.best.strategy["source_model"])),
        "data": task.data.fingerprint,
        "why": outcome.why,
        "trained_on": _trained_on(outcome, task),
    }
    if outcome.no_yardstick:
        provenance[NO_YARDSTICK] = outcome.no_yardstick
    point = outcome.operating_point
    known = task.data.target if task.data.target is not None else task.data.unlabelled  # never of the sealed test
    threshold = None if point is None else Threshold(label=point.label, value=point.value)
    export_bundle(
        directory,
        model,
        metrics=_figures(outcome_document(outcome)),
        provenance=provenance,
        temperature=best.temperature,
        threshold=threshold,
        examples=reference_images(known) if known is not None else (),
        yardstick=outcome.yardstick,
        features=outcome.features,
        learned=_learned(outcome, task),
    )


def _trained_on(outcome: SearchOutcome, task: Task) -> str:
    """Whose labels the winner has seen, for people."""
    if outcome.best.strategy.get("head") == ZERO_SHOT:
        return "no labels: its head is made of the classes' names"
    if outcome.trained_on == "all":
        return "all labels, those of the test included; test figures are of the same strategy without them"
    domain, target = outcome.best.strategy.get("source_domain"), "the target's labels"
    if domain is None:
        return target
    own = task.data.target is not None and outcome.best.strategy.get("target_labels", True)
    several = len(task.data.domains_of(domain)) > 1
    others = f"labels of the source domain{'s' if several else ''} {domain}"
    return f"{target} and {others}" if own else f"{others}; none of the target"


def _learned(outcome: SearchOutcome, task: Task) -> Learned:
    """The labelled images that the winner, and what it began with, has learned from; none is told too few."""
    strategy, data = outcome.best.strategy, task.data
    pretrained = parse_pretrain(str(strategy["source_model"]))
    start = str(strategy["source_model"]) if pretrained is None else pretrained[1]
    domains = {*data.domains_of(strategy.get("source_domain") or ""), None if pretrained is None else pretrained[0]}
    roles = [] if data.target is None else [data.target]
    roles += [images for name, images in data.source_domains.items() if name in domains]
    digests = [item.digest for images in roles for item in images.items]
    if outcome.trained_on == "all" and outcome.test_images is not None:
        digests += [item.digest for item in outcome.test_images.items]
    before = learned_by(start)
    return Learned.of(digests) if before is None else Learned.of(digests).joined(before)


def _licence(source_model: str) -> str:
    """Of the published weights that a winner began with."""
    pretrained = parse_pretrain(source_model)
    return licence_of(source_model if pretrained is None else pretrained[1])


def tell_figures(directory: Path, outcome: dict[str, Any], cautions: Sequence[str] = ()) -> None:
    """Put the figures of a search's end, those of the test among them, into its winner's bundle.

    outcome: as the run keeps it, so that of a search that went on the card says what the report does. cautions:
    sentences of the report that are to be read with these figures.
    """
    write_metrics(directory, _figures(outcome) | {CAUTIONS: list(cautions)})


def cautions_of(bundle: Path) -> list[str]:
    """What its search said is to be read with a bundle's figures; none of a bundle of before, which does not say."""
    told = read_manifest(bundle).metrics.get(CAUTIONS)
    return [str(one) for one in told] if isinstance(told, list) else []


def _figures(outcome: dict[str, Any]) -> dict[str, Any]:
    """What a card tells. outcome: as the run keeps it."""
    compared = [control for control in outcome["controls"] if control["value"] is not None]
    told = ("verdict", "measured_on", "value", "low", "high", "p", "level")
    return {
        "metric": outcome["metric"],
        "validation": outcome["best"]["validation"],
        "test": outcome["best"]["test"],
        "gains": outcome["gains"],
        "controls": {control["name"]: {name: control[name] for name in told} for control in compared},
        "calibration_error": outcome["calibration"],
    }
