"""An exported model: images in, labels with confidences out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from raytl.bundles.features import FEATURES_FILE, features_bytes
from raytl.bundles.predictor import FULL, Predictor
from raytl.bundles.reference import REFERENCE_FILE, Reference, close
from raytl.bundles.yardstick import YARDSTICK_FILE, read_yardstick, yardstick_bytes
from raytl.core.errors import UserError
from raytl.judging.health import Yardstick
from raytl.judging.kept_features import KeptFeatures
from raytl.sources import SourceModel
from raytl.sources.checkpoint import checkpoint_files, load_checkpoint, write_files
from raytl.sources.learned import LEARNED_FILE, Learned, learned_bytes
from raytl.sources.manifest import MANIFEST_FILE, Manifest, Threshold, parse
from raytl.sources.passing import at_once
from raytl.sources.precision import autocast, has_half

HALF = "bfloat16"
_HALF_TOLERANCE = 0.1
"""As that of a :class:`Predictor`: five networks up to a ResNet-18 stayed below half of it on 200 images each."""


class Bundle(Predictor):
    """A saved model with labels, computed by torch. Made by :meth:`load`."""

    def __init__(self, model: SourceModel, manifest: Manifest, device: str | torch.device = "cpu") -> None:
        super().__init__(manifest, model.uri)
        # Convolutions are a quarter to a half faster so, on CPUs and GPUs; answers differ by rounding.
        self.model = model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.device = torch.device(device)
        self.on_gpu = self.device.type != "cpu"
        if self.on_gpu:
            self.tolerance = 0.2  # convolutions round their inputs to TF32's ten bits there

    def halve(self, reference: Reference | None) -> str:
        """Have the stages compute in bfloat16 from now on, where the device does and the answers stay what they were.

        reference: the bundle's own. The head computes in full precision, as it was trained to. Returns why not, in half
        a sentence; "" where it does.
        """
        if not has_half(self.device):
            return "the GPU has no bfloat16" if self.on_gpu else "there is no GPU"
        if reference is None or not reference.examples:
            return "the bundle has no reference predictions to compare it with"
        full = reference.ask(self)
        self.precision = HALF
        half = reference.ask(self)
        if (full.argmax(axis=1) == half.argmax(axis=1)).all() and close(half, full, _HALF_TOLERANCE).all():
            return ""
        self.precision = FULL
        return f"in bfloat16 it answers otherwise (by up to {np.nanmax(np.abs(half - full)):.2g} in a probability)"

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> Bundle:
        """Read a bundle. Nothing in it is executed.

        Raises UserError where it is missing, truncated, altered, newer than this raytl, or has no labels.
        """
        manifest, model = load_checkpoint(Path(path))
        bundle = cls(model, manifest, device)
        bundle.yardstick = read_yardstick(Path(path), manifest.weights.sha256, len(bundle.labels))
        return bundle

    def compute(self, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """As :meth:`probabilities`, from an array."""
        return self.probabilities(torch.from_numpy(images), batch_size)

    @torch.inference_mode()
    def probabilities(self, images: Tensor, batch_size: int = 64) -> np.ndarray:
        """Probabilities of the labels, float32 (n, k), for prepared images, uint8 (n, channels, size, size)."""
        expected = (self.manifest.channels, self.manifest.image_size, self.manifest.image_size)
        if images.dtype != torch.uint8 or images.shape[1:] != expected:
            raise ValueError(f"images must be uint8 of shape (n, {', '.join(map(str, expected))})")
        out = np.empty((len(images), len(self.labels)), dtype=np.float32)
        # Of large images fewer, whoever asked for how many.
        batch_size = min(batch_size, at_once(self.manifest.image_size, self.device))
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size].to(self.device)
            with autocast(self.device) if self.precision == HALF else nullcontext():
                seen = self.model.head_inputs(self.manifest.preprocessing.normalise(batch))
            logits = self.model.head(seen.float()).float()
            out[start : start + len(batch)] = (logits / self.manifest.temperature).softmax(1).cpu().numpy()
        return out


def export_bundle(
    directory: str | Path,
    model: SourceModel,
    *,
    metrics: Mapping[str, Any],
    provenance: Mapping[str, Any],
    temperature: float = 1.0,
    threshold: Threshold | None = None,
    examples: Sequence[Image.Image] = (),
    reference: Reference | None = None,
    yardstick: Yardstick | None = None,
    features: KeptFeatures | None = None,
    learned: Learned | None = None,
) -> Path:
    """Write ``model`` as a bundle; an earlier bundle at the place is replaced in one step.

    metrics, provenance: JSON values for people, non-finite numbers become null.
    temperature: by which logits are divided before the softmax, > 0.
    threshold: the operating point of a model of two classes. An older raytl refuses the bundle then, rather than
        deciding otherwise.
    examples: decoded images, of which up to 16 are kept in the bundle, made small, with what it answers for them.
    reference: such predictions that the model has already, kept as they are; then ``examples`` are not needed.
    yardstick: what is known of the model from labelled images. features: of its training images, so that a class can
        be added to it later. learned: which images it has learned from, for whoever starts from it.
    Raises UserError where the model has no labels, the place holds something else, or cannot be written.
    """
    directory = Path(directory)
    if model.labels is None:
        raise UserError(f"{directory}: a model without labels cannot become a bundle; train it on a task first")
    if threshold is not None and (len(model.labels) != 2 or threshold.label not in model.labels):
        known = ", ".join(model.labels)
        raise UserError(
            f"{directory}: a threshold on '{threshold.label}' needs a model of two classes, one of which is "
            f"'{threshold.label}'; this one has {known}"
        )
    extra = {"metrics": dict(metrics), "provenance": dict(provenance), "temperature": temperature}
    files = checkpoint_files(model, {**extra, "threshold": threshold})
    manifest = parse(files[MANIFEST_FILE], str(directory))
    if reference is None and examples:
        reference = Reference.record(Bundle(model, manifest, next(model.parameters()).device), examples)
    if reference is not None:
        files[REFERENCE_FILE] = reference.to_bytes()
    if yardstick is not None:
        files[YARDSTICK_FILE] = yardstick_bytes(yardstick, manifest.weights.sha256)
    if features is not None:
        files[FEATURES_FILE] = features_bytes(features, manifest.weights.sha256)
    if learned is not None:
        files[LEARNED_FILE] = learned_bytes(learned, manifest.weights.sha256)
    write_files(directory, files)
    return directory
