"""A bundle's ONNX files, measured on images that the model was not trained on, and what came of it in its card.

The card is the bundle's ``model.json``: under ``metrics.onnx`` stands what each file answers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from raytl.bundles.bundle import Bundle
from raytl.bundles.int8 import quantised
from raytl.bundles.onnx import export_onnx
from raytl.bundles.onnx_model import INT8_FILE, METADATA, ONNX_FILE, OnnxModel
from raytl.bundles.predictor import Predictor
from raytl.bundles.reference import Reference
from raytl.core.errors import NotWrittenError, UserError
from raytl.sources.checkpoint import write_metrics
from raytl.tasks.images import Images, LabelledImages

TOLERANCE = 0.01
"""Share of images by which 8 bits may be right less often; one image, where that is more."""
_CALIBRATING = 128
_BATCH = 64


@dataclass(frozen=True)
class Measured:
    """What the files of a bundle answer on some images.

    on: ``test``, the run's test images, or ``reference``, the bundle's reference images, of which no labels are known.
    why: why not on the test images. accuracy: by file, None on reference images. same: by file, the share of images for
    which it names the label that the bundle itself names.
    """

    on: str
    images: int
    why: str | None
    accuracy: dict[str, float] | None
    same: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dict(vars(self))

    def lost(self, file: str) -> float:
        """Share of images that a file costs: fewer right ones, or other labels where nobody knows which are right."""
        if self.accuracy is None:
            return 1 - self.same[file]
        return self.accuracy["bundle"] - self.accuracy[file]


@dataclass(frozen=True)
class Shipped:
    """difference: of a probability of ``model.onnx`` from the bundle's, at most. measured: None without any images.

    int8: how the file of 8 bits was made, its size in bytes, whether it was kept, and why not; None where it was not
    asked for.
    """

    difference: float
    measured: Measured | None
    int8: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        measured = None if self.measured is None else self.measured.to_json()
        return {"difference": self.difference, "measured": measured, "int8": self.int8}


def ship_onnx(
    folder: Path,
    test: LabelledImages | None,
    known: Images | None = None,
    *,
    why: str | None = None,
    reference: Reference | None = None,
    int8: bool = False,
) -> Shipped:
    """Write a bundle's ONNX file into its folder, one of 8 bits beside it, measure them, and put that into the card.

    test: labelled images that the model was not trained on, or None; why: why there are none. known: images of its
    training, which 8 bits are calibrated with; reference: predictions to take in their place, by default the bundle's.
    The file of 8 bits is kept only if it is right at most :data:`TOLERANCE` less often than the bundle.
    Raises UserError like :func:`export_onnx`; a file of 8 bits that is not kept raises nothing, ``int8`` says why.
    """
    difference = export_onnx(folder)
    bundle, reference = Bundle.load(folder), reference or Reference.read(folder)
    models: dict[str, Predictor] = {"bundle": bundle, ONNX_FILE: OnnxModel.load(folder)}
    told: dict[str, Any] | None = None
    if int8:
        pixels = _pixels(bundle, known, reference)
        try:
            if not len(pixels):
                raise UserError("no image is at hand to calibrate and to measure 8 bits with")
            data, method = quantised(folder / ONNX_FILE, pixels, portable=Reference.read(folder) is None)
            data = _with_answers(data, folder)
            _write(folder, data)
            told = {"kept": True, "why_not": None, "method": method, "size_bytes": len(data)}
            models[INT8_FILE] = OnnxModel.load(folder, INT8_FILE)
        except NotWrittenError:
            raise
        except UserError as error:
            told = {"kept": False, "why_not": str(error), "method": None, "size_bytes": None}
    measured = _measure(models, test, reference, why)
    if told is not None and told["kept"]:
        told = _judged(told, measured)
        if not told["kept"]:
            (folder / INT8_FILE).unlink()
    shipped = Shipped(difference, measured, told)
    write_metrics(folder, {**bundle.manifest.metrics, "onnx": shipped.to_json()})
    return shipped


def _judged(told: dict[str, Any], measured: Measured | None) -> dict[str, Any]:
    if measured is None:
        return {**told, "kept": False, "why_not": "no image is at hand to measure 8 bits with"}
    lost, most = measured.lost(INT8_FILE), max(TOLERANCE, 1 / measured.images)
    if lost <= most + 1e-9:
        return told
    what = "names the bundle's label for" if measured.accuracy is None else "is right on"
    why = f"with 8 bits it {what} {lost:.1%} fewer of {measured.images} {measured.on} images; {most:.1%} may be lost"
    return {**told, "kept": False, "why_not": why}


def _measure(
    models: dict[str, Predictor], test: LabelledImages | None, reference: Reference | None, why: str | None
) -> Measured | None:
    bundle = models["bundle"]
    if test is not None and len(test):
        chosen: dict[str, list[np.ndarray]] = {name: [] for name in models}
        for start in range(0, len(test), _BATCH):
            items = test.items[start : start + _BATCH]
            pixels = np.stack([bundle.prepare(item.open(), item.name) for item in items])
            for name, model in models.items():
                chosen[name].append(model.decide(model.compute(pixels, _BATCH)))
        labels = test.with_classes(bundle.labels).labels
        answers = {name: np.concatenate(parts) for name, parts in chosen.items()}
        right = {name: float((found == labels).mean()) for name, found in answers.items()}
        return Measured("test", len(test), None, right, _same(answers))
    if reference is None or not reference.examples:
        return None
    order = [reference.labels.index(label) for label in bundle.labels]
    answers = {name: model.decide(reference.ask(model)[:, order]) for name, model in models.items()}
    return Measured("reference", len(reference.examples), why, None, _same(answers))


def _same(answers: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float((found == answers["bundle"]).mean()) for name, found in answers.items() if name != "bundle"}


def _pixels(bundle: Bundle, known: Images | None, reference: Reference | None) -> np.ndarray:
    """Up to 128 images to calibrate with, evenly spread: data usually lies in the order of its classes."""
    if known is not None and len(known):
        count = min(_CALIBRATING, len(known))
        items = [known.items[number * len(known) // count] for number in range(count)]
        return np.stack([bundle.prepare(item.open(), item.name) for item in items])
    return reference.pixels(bundle) if reference is not None and reference.examples else np.empty((0,))


def _with_answers(data: bytes, folder: Path) -> bytes:
    """The file with what ``model.onnx`` says of itself, and with what it answers to the bundle's reference images."""
    import onnx

    told = json.loads({p.key: p.value for p in onnx.load(folder / ONNX_FILE).metadata_props}[METADATA])
    model = onnx.load_from_string(data)
    onnx.helper.set_model_props(model, {METADATA: json.dumps(told)})
    reference = Reference.read(folder)
    if reference is not None:
        _write(folder, model.SerializeToString())
        answers = reference.ask(OnnxModel.load(folder, INT8_FILE))
        onnx.helper.set_model_props(model, {METADATA: json.dumps({**told, "answers": answers.tolist()})})
    return bytes(model.SerializeToString())


def _write(folder: Path, data: bytes) -> None:
    try:
        staging = folder / f".{INT8_FILE}"
        staging.write_bytes(data)
        staging.replace(folder / INT8_FILE)
    except OSError as error:
        raise NotWrittenError(f"{folder}: cannot be written ({error.strerror}); make room") from error
