"""A class more, or more images of one, without a search: a new head on the features that a bundle has kept."""

from __future__ import annotations

import base64
import copy
import io
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from raytl.bundles.additions import check_names, look_at
from raytl.bundles.bundle import Bundle, export_bundle
from raytl.bundles.features import read_features
from raytl.bundles.onnx_model import ONNX_FILE
from raytl.bundles.predictor import decide
from raytl.bundles.reference import MOST, Reference
from raytl.core.errors import UserError
from raytl.core.hashing import hash_file
from raytl.core.places import is_file
from raytl.evaluation import metrics
from raytl.evaluation.calibration import apply_temperature, calibration_error, confidence_temperature
from raytl.evaluation.head_probes import SolvedHead, solve_parts
from raytl.evaluation.intervals import Interval, metric_interval
from raytl.evaluation.near_probes import SolvedNear, solve_near
from raytl.judging.health import Yardstick
from raytl.judging.kept_features import KeptFeatures
from raytl.judging.old_classes import OldClasses, compare_old_classes, named
from raytl.judging.renewing import renewed_yardstick
from raytl.sources import SourceModel
from raytl.sources.heads import StagesHead
from raytl.sources.manifest import MANIFEST_FILE, Manifest, Threshold, deciding
from raytl.sources.near_heads import NearestMeanHead, NeighboursHead
from raytl.tasks.images import Images

_BEFORE = "Before classes were added: "
_NEW_EXAMPLES = 4


@dataclass(frozen=True)
class Added:
    """A class that got images.

    new: whether it was none before; images: how many; left_out: known ones among those given. found: share of the
    images that are named right by heads fitted without them; None where none could be left out. taken: how many images
    of other classes are given its name wrongly, by heads fitted without them.
    """

    name: str
    new: bool
    images: int
    left_out: int
    found: Interval | None
    taken: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**vars(self), "found": None if self.found is None else self.found.to_json()}


@dataclass(frozen=True)
class Extension:
    """What came of it.

    path: of the new bundle; labels: of it. old: how its old classes did; None where no image could be left out.
    images: old ones that the head was fitted on. frozen: whether the network was never trained on them; otherwise
    the figures are better than they would be on other images. health: whether the new bundle has a yardstick.
    notes: what else should be known, sentences.
    """

    path: Path
    labels: tuple[str, ...]
    added: tuple[Added, ...]
    old: OldClasses | None
    images: int
    frozen: bool
    health: bool
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "path": str(self.path.resolve()),
            "labels": list(self.labels),
            "added": [one.to_json() for one in self.added],
            "old": None if self.old is None else self.old.to_json(self.labels),
            "images": self.images,
            "frozen": self.frozen,
            "health": self.health,
            "notes": list(self.notes),
        }


def extend_bundle(
    directory: str | Path,
    given: Mapping[str, Images],
    out: str | Path,
    *,
    even_if_worse: bool = False,
    device: str | torch.device = "cpu",
) -> Extension:
    """Write a bundle to ``out`` that knows the classes of another one and those of ``given``, by name.

    given: images of each class, groups of near-duplicates known; of a class that there is they are further ones.
    even_if_worse: also where the old classes lose accuracy beyond doubt.
    Raises UserError where the bundle has no features, a name or an image cannot be added, or the old classes lose.
    """
    directory = Path(directory)
    bundle = Bundle.load(directory, device)
    manifest = bundle.manifest
    kept = read_features(directory, manifest.weights.sha256, len(bundle.labels))
    if kept is None:
        raise UserError(
            f"{directory}: holds no features of its training images, so no class can be added to it; export the model "
            "again from its run, without --no-features and --no-images; where the run's own model has none (its time "
            "budget was short), search again with more time, or with the new images"
        )
    check_names(directory, bundle.labels, given)
    labels = (*bundle.labels, *(name for name in given if name not in bundle.labels))
    more, left_out = kept, {}
    pictures: list[Image.Image] = []
    for name, images in given.items():
        fresh, first = look_at(bundle, more, name, labels, images)
        left_out[name] = len(images) - len(fresh)
        more, pictures = more.joined(fresh), pictures + first
    before, solved = _solve(bundle.model, kept, len(bundle.labels)), _solve(bundle.model, more, len(labels))
    raw, temperature = solved.out_of_fold, solved.temperature
    if not kept.frozen:
        temperature = _no_surer_than(bundle.yardstick, raw, more, temperature)
    threshold = manifest.threshold if labels == bundle.labels else None
    judged = _Judged.by(apply_temperature(raw, temperature), labels, threshold)
    was = _Judged.by(apply_temperature(before.out_of_fold, before.temperature), bundle.labels, manifest.threshold)
    tested = kept.target if kept.target.any() else np.ones(len(kept), dtype=bool)
    both = tested & was.seen & judged.seen[: len(kept)]
    old = None
    if both.any():
        now = judged.chosen[: len(kept)][both]
        old = compare_old_classes(was.chosen[both], now, kept.labels[both], len(labels), kept.groups[both])
    if old is not None and old.worse and not even_if_worse:
        raise UserError(_loses(directory, old, labels))
    asked = np.concatenate([tested, np.ones(len(more) - len(kept), dtype=bool)])
    yardstick = None
    if bundle.yardstick is not None and kept.frozen:
        yardstick = renewed_yardstick(
            bundle.yardstick, more.subset(asked), judged.probabilities[asked], judged.chosen[asked]
        )
    extension = Extension(
        path=Path(out),
        labels=labels,
        added=tuple(
            _added(name, bundle.labels, labels, left_out[name], more, asked, len(kept), judged) for name in given
        ),
        old=old,
        images=len(kept),
        frozen=kept.frozen,
        health=yardstick is not None,
        notes=(*_notes(bundle, kept, threshold, yardstick), *_lost_files(directory, Path(out))),
    )
    model = copy.deepcopy(bundle.model)
    reads_stages = isinstance(model.head, StagesHead)
    if isinstance(solved, SolvedNear):
        model.head, model.labels = solved.head, labels
    elif isinstance(model.head, StagesHead):
        model.head = StagesHead(model.head.widths, len(labels), solved.members, quarters=model.head.quarters)
        model.labels = labels
    else:
        model.replace_head(len(labels), labels, "logistic")
    if isinstance(solved, SolvedHead):
        solved.put_into(model.head)
    model.to(bundle.device)
    export_bundle(
        out,
        model,
        metrics=_figures(more, judged, raw, asked & judged.seen, extension) | _cautions(manifest),
        provenance=_provenance(directory, manifest, extension),
        # The sharpness of an average is in the head itself.
        temperature=1.0 if reads_stages else temperature,
        threshold=threshold,
        examples=_examples(directory, pictures),
        yardstick=yardstick,
        features=more.bounded(),
    )
    return extension


@dataclass(frozen=True)
class _Judged:
    """Images by heads that were fitted without them.

    probabilities: (n, k), calibrated; chosen: (n,); seen: bool (n,), whether there was such a head.
    """

    probabilities: np.ndarray
    chosen: np.ndarray
    seen: np.ndarray

    @classmethod
    def by(cls, probabilities: np.ndarray, labels: tuple[str, ...], threshold: Threshold | None) -> _Judged:
        seen = np.isfinite(probabilities[:, 0])
        return cls(probabilities, decide(np.nan_to_num(probabilities), labels, threshold), seen)


def _lost_files(directory: Path, out: Path) -> Iterator[str]:
    """What lies beside the bundle and is of the old model alone."""
    if is_file(directory / ONNX_FILE):
        place = shlex.quote(str(out))
        yield f"{ONNX_FILE} is of the old classes; that of the new ones makes: raytl export {place} {place} --onnx"


def _notes(
    bundle: Bundle, kept: KeptFeatures, threshold: Threshold | None, yardstick: Yardstick | None
) -> Iterator[str]:
    """What else should be known."""
    before = bundle.manifest.threshold
    if not kept.frozen:
        yield (
            "the network below the head was trained on the old images: their accuracy is better here than on others, "
            "and the change is what counts"
        )
    strategy = bundle.manifest.provenance.get("strategy")
    if isinstance(strategy, dict) and strategy.get("adaptation") == "propagation":
        yield (
            "the old head learned from unlabelled images too, and the new one does not: the old classes were compared "
            "without these, and may have been right more often; a search with the new class learns from them again"
        )
    if isinstance(strategy, dict) and kept.frozen and strategy.get("cached_views"):
        yield (
            "the old head learned from augmented versions of its images too, and the new one does not: a search with "
            "the new class learns from them again"
        )
    if not kept.target.any():
        yield "the old classes were tested on images of the source domain: there are no others with labels"
    if before is not None and threshold is None:
        yield f"its threshold on '{before.label}' is gone, for it has more than two classes now"
    if threshold is not None:
        yield f"its threshold on '{threshold.label}' stays {deciding(threshold.value)}, chosen without the new images"
    if bundle.yardstick is not None and yardstick is None:
        yield "its estimates of accuracy, label sets and drift are not available any more"


def _solve(model: SourceModel, kept: KeptFeatures, classes: int) -> SolvedHead | SolvedNear:
    head = model.head
    if isinstance(head, NearestMeanHead | NeighboursHead):
        return solve_near(
            head, torch.from_numpy(kept.features), kept.labels, classes, kept.weights, kept.groups,
            balanced=kept.balanced, seed=0,
        )  # fmt: skip
    return solve_parts(
        torch.from_numpy(kept.features), kept.labels, classes, kept.weights, kept.groups,
        widths=head.widths if isinstance(head, StagesHead) else None, balanced=kept.balanced, seed=0,
        target=kept.target,
    )  # fmt: skip


def _no_surer_than(
    yardstick: Yardstick | None, probabilities: np.ndarray, kept: KeptFeatures, temperature: float
) -> float:
    """A temperature with which a trained network is on average as sure of its own images as it is right on others."""
    seen = np.isfinite(probabilities[:, 0]) & kept.target
    if yardstick is None or not seen.any():
        return temperature
    return max(temperature, confidence_temperature(probabilities[seen], yardstick.correctness.usual))


def _added(
    name: str,
    before: tuple[str, ...],
    labels: tuple[str, ...],
    left_out: int,
    kept: KeptFeatures,
    asked: np.ndarray,
    known: int,
    judged: _Judged,
) -> Added:
    """asked: bool (n,), which images say how often others are taken for it; known: how many of the images are old."""
    label = labels.index(name)
    own = (kept.labels == label) & (np.arange(len(kept)) >= known)
    rows, found = own & judged.seen, None
    if rows.any():
        right = named(judged.chosen[rows], len(labels))
        found = metric_interval(metrics.get("accuracy"), right, kept.labels[rows], kept.groups[rows])
    taken = judged.seen & asked & (kept.labels != label) & (judged.chosen == label)
    return Added(name, name not in before, int(own.sum()), left_out, found, int(taken.sum()))


def _loses(directory: Path, old: OldClasses, labels: tuple[str, ...]) -> str:
    whom = ", ".join(f"'{labels[number]}'" for number in old.suffered)
    lost = f"the old class{'es' if len(old.suffered) > 1 else ''} {whom}" if whom else "the old classes"
    return (
        f"{directory}: {lost} would lose accuracy beyond doubt (all together {old.before.value:.1%} before, "
        f"{old.after.value:.1%} after, on {old.images} images); nothing was written: give images that differ more from "
        "them, search again with all images, or take it with --even-if-worse"
    )


def _figures(
    kept: KeptFeatures, judged: _Judged, raw: np.ndarray, rows: np.ndarray, extension: Extension
) -> dict[str, Any]:
    """For the card: of all images by heads that were fitted without them. The old model's figures are not these."""
    found: dict[str, Any] = {"metric": "accuracy", "validation": None, "test": None}
    if rows.any():
        labels, chosen = kept.labels[rows], named(judged.chosen[rows], len(extension.labels))
        value = metric_interval(metrics.get("accuracy"), chosen, labels, kept.groups[rows])
        found["validation"] = value.to_json()
        before, after = (calibration_error(each[rows], labels) for each in (raw, judged.probabilities))
        found["calibration_error"] = {"before": before, "after": after}
    told = extension.to_json()
    return found | {"old_classes": told["old"], "added": told["added"], "notes": told["notes"]}


def _cautions(manifest: Manifest) -> dict[str, Any]:
    """What spoke against the old model's figures speaks against these, for all that is known."""
    told = manifest.metrics.get("cautions")
    if not isinstance(told, list) or not told:
        return {}
    return {"cautions": [_BEFORE + str(text).removeprefix(_BEFORE) for text in told]}


def _provenance(directory: Path, manifest: Manifest, extension: Extension) -> dict[str, Any]:
    earlier = manifest.provenance.get("extended")
    step = {
        "from": hash_file(directory / MANIFEST_FILE)[:12],
        "classes": {one.name: one.images for one in extension.added},
        "metrics_before": manifest.metrics,
    }
    return {**manifest.provenance, "extended": [*(earlier if isinstance(earlier, list) else []), step]}


def _examples(directory: Path, pictures: list[Image.Image]) -> list[Image.Image]:
    """For the reference predictions: of the old images and of the new; none where the bundle was exported without."""
    reference = Reference.read(directory)
    if reference is None:
        return []
    new = pictures[:: max(1, len(pictures) // _NEW_EXAMPLES)][:_NEW_EXAMPLES]
    old = [Image.open(io.BytesIO(base64.b64decode(example.image))) for example in reference.examples]
    return [*old[: MOST - len(new)], *new]
