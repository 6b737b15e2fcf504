"""A class more, or more images of one, without a search: a new head on the features that a bundle has kept."""

from __future__ import annotations

import base64
import io
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
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
from raytl.bundles.solving import (
    FEW,
    FEW_A_CLASS,
    Moved,
    few_of_the_domain,
    moved,
    pool_of,
    solve,
    temperature_beside,
    with_head,
)
from raytl.core.errors import UserError
from raytl.core.hashing import hash_file
from raytl.core.places import is_file
from raytl.evaluation import metrics
from raytl.evaluation.calibration import apply_temperature, calibration_error, confidence_temperature
from raytl.evaluation.intervals import Interval, metric_interval
from raytl.judging.health import Yardstick
from raytl.judging.kept_features import KeptFeatures
from raytl.judging.old_classes import OldClasses, compare_old_classes, named
from raytl.judging.renewing import renewed_yardstick
from raytl.sources import Learned
from raytl.sources.heads import CONVEX, StagesHead
from raytl.sources.learned import read_learned
from raytl.sources.manifest import MANIFEST_FILE, Manifest, Threshold, deciding
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
    the figures are better than they would be on other images. moved: what became of images without labels; None where
    none are kept. health: whether the new bundle has a yardstick. notes: what else should be known, sentences.
    """

    path: Path
    labels: tuple[str, ...]
    added: tuple[Added, ...]
    old: OldClasses | None
    images: int
    frozen: bool
    moved: Moved | None
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
            "moved": None if self.moved is None else vars(self.moved),
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
    even_if_worse: also where the old classes lose accuracy beyond doubt, or it could not be seen whether they do.
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
    pool = pool_of(bundle.model, manifest.temperature, kept, more.features[len(kept) :])
    given_rows = np.arange(len(more)) >= len(kept)
    few = few_of_the_domain(replace(more, target=more.target | given_rows), len(bundle.labels))
    elsewhere = not kept.target.all()  # the old classes were learned from another domain as well
    if elsewhere and few and len(pool) < FEW and not even_if_worse:
        raise UserError(_in_the_dark(directory))
    learns = elsewhere and (few or (not kept.frozen and _adaptation(manifest) != "none"))
    before = solve(bundle.model, kept, bundle.labels, pool, learn=learns)
    solved = solve(bundle.model, more, labels, pool, learn=learns)
    raw, temperature = solved.out_of_fold, solved.temperature
    gone = moved(pool, solved.unlabelled, [labels.index(name) for name in given]) if len(pool) else None
    # Where labelled images of the domain are witnesses, so many may show the class: it was seen in the traffic.
    unseen = elsewhere and (few or not kept.frozen)
    if unseen and gone is not None and gone.too_many and not even_if_worse:
        raise UserError(_moves(directory, gone, list(given)))
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
    asked = np.concatenate([tested, given_rows[len(kept) :]])
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
        moved=gone,
        health=yardstick is not None,
        notes=(
            *_notes(bundle, kept, threshold, yardstick, learns and len(pool) > 0),
            *_lost_files(directory, Path(out)),
        ),
    )
    model = with_head(bundle.model, labels, solved.head).to(bundle.device)
    added = Learned.of(item.digest for images in given.values() for item in images.items)
    export_bundle(
        out,
        model,
        metrics=_figures(more, judged, raw, asked & judged.seen, extension) | _cautions(manifest),
        provenance=_provenance(directory, manifest, extension),
        temperature=temperature_beside(model, temperature),
        threshold=threshold,
        examples=_examples(directory, pictures),
        yardstick=yardstick,
        features=replace(more.bounded(), unlabelled=pool.features),
        learned=added.joined(read_learned(directory)),
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
    bundle: Bundle, kept: KeptFeatures, threshold: Threshold | None, yardstick: Yardstick | None, learned: bool
) -> Iterator[str]:
    """What else should be known. learned: whether the new head learned from images without labels."""
    before = bundle.manifest.threshold
    if not kept.frozen:
        yield (
            "the network below the head was trained on the old images: their accuracy is better here than on others, "
            "and the change is what counts"
        )
    strategy = bundle.manifest.provenance.get("strategy")
    if learned:
        yield (
            "the new head learned what the old model answered for images without labels, right or wrong: it is as sure "
            "as the old one was of them, and no figure above says how often either is right on such; where many of "
            "them show a class that is added, they hold it back: give them as its images too"
        )
    elif _adaptation(bundle.manifest) != "none":
        yield (
            "the old head learned from unlabelled images too, and the new one does not: the old classes were compared "
            "without these, and may have been right more often; a search with the new class learns from them again"
        )
    if isinstance(strategy, dict) and kept.frozen and _saw_views(strategy):
        yield (
            "the old head learned from augmented versions of its images too, and the new one does not: a search with "
            "the new class learns from them again"
        )
    head = bundle.model.head
    if isinstance(head, StagesHead) and head.members > 1 and not kept.target.any():
        yield (
            "in the old head each source domain had layers of its own, in the new one all have the same; the old "
            "classes were compared so as well, and may have been right more often"
        )
    if not kept.target.any():
        yield "the old classes were tested on images of the source domain: there are no others with labels"
    if before is not None and threshold is None:
        yield f"its threshold on '{before.label}' is gone, for it has more than two classes now"
    if threshold is not None:
        yield f"its threshold on '{threshold.label}' stays {deciding(threshold.value)}, chosen without the new images"
    if bundle.yardstick is not None and yardstick is None:
        yield "its estimates of accuracy, label sets and drift are not available any more"


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


def _adaptation(manifest: Manifest) -> str:
    """The name of the loss that the model was adapted with, or ``none``."""
    strategy = manifest.provenance.get("strategy")
    return str(strategy.get("adaptation", "none")) if isinstance(strategy, dict) else "none"


def _saw_views(strategy: dict[str, Any]) -> bool:
    """Whether a head learned from augmented versions of images; one that is solved for sees those made beforehand."""
    return bool(strategy.get("cached_views")) or (
        strategy.get("augmentation", "none") != "none" and strategy.get("head") not in CONVEX
    )


def _in_the_dark(directory: Path) -> str:
    return (
        f"{directory}: learned its classes from another domain and has kept hardly any images of its own, "
        "so a new head may take what that domain looks like for the class, and what the old classes lose there would "
        f"not be seen; nothing was written: give {FEW_A_CLASS} images of each of them from there too (--class NAME "
        "DIR), search again with the new images, or take it with --even-if-worse"
    )


def _moves(directory: Path, gone: Moved, given: list[str]) -> str:
    whom = " or ".join(f"'{name}'" for name in given)
    return (
        f"{directory}: of {gone.images} images without labels that it held for other classes, {gone.moved} would be "
        f"{whom} ({gone.moved / gone.images:.0%}; up to {gone.most:.0%} may well be); nothing was written: give images "
        "of the old classes from the same domain too (--class NAME DIR), search again with the new images, or take it "
        "with --even-if-worse where so many do show it"
    )


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
