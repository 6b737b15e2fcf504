"""An exported model: images in, labels with confidences out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from raytl.bundles.features import FEATURES_FILE, features_bytes
from raytl.bundles.reference import REFERENCE_FILE, Reference
from raytl.bundles.yardstick import YARDSTICK_FILE, read_yardstick, yardstick_bytes
from raytl.core.errors import UserError
from raytl.core.prediction import Prediction
from raytl.judging.health import Yardstick
from raytl.judging.kept_features import KeptFeatures
from raytl.sources import SourceModel
from raytl.sources.checkpoint import checkpoint_files, load_checkpoint, write_files
from raytl.sources.manifest import MANIFEST_FILE, Manifest, Threshold, parse
from raytl.tasks.decoding import decode

ImageLike = Image.Image | bytes | Path


class Bundle:
    """A saved model with labels, ready to predict. Made by :meth:`load`; safe to use from several threads.

    yardstick: what is known of it from labelled images; None where it was exported without, as older bundles were.
    """

    def __init__(self, model: SourceModel, manifest: Manifest, device: str | torch.device = "cpu") -> None:
        if manifest.labels is None:
            raise UserError(f"{model.uri}: has no labels, so it cannot predict; use it as a source model")
        self.model = model.to(device).eval()
        self.manifest = manifest
        self.labels = manifest.labels
        self.device = torch.device(device)
        self.yardstick: Yardstick | None = None

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> Bundle:
        """Read a bundle. Nothing in it is executed.

        Raises UserError where it is missing, truncated, altered, newer than this raytl, or has no labels.
        """
        manifest, model = load_checkpoint(Path(path))
        bundle = cls(model, manifest, device)
        bundle.yardstick = read_yardstick(Path(path), len(bundle.labels))
        return bundle

    def prepare(self, image: ImageLike, name: str = "image") -> np.ndarray:
        """One image as uint8 (channels, size, size).

        image: encoded bytes, the path of a file, or a decoded image (taken as upright).
        Raises UserError naming the image where it cannot be read or decoded.
        """
        if isinstance(image, Path):
            name = str(image)
            try:
                image = image.read_bytes()
            except OSError as error:
                raise UserError(f"{name}: cannot be read ({error.strerror or error}); check the path") from error
        if isinstance(image, bytes):
            image = decode(image, name)
        return self.manifest.preprocessing.to_uint8(image)

    @torch.inference_mode()
    def probabilities(self, images: Tensor, batch_size: int = 64) -> np.ndarray:
        """Probabilities of the labels, float32 (n, k), for prepared images, uint8 (n, channels, size, size)."""
        expected = (self.manifest.channels, self.manifest.image_size, self.manifest.image_size)
        if images.dtype != torch.uint8 or images.shape[1:] != expected:
            raise ValueError(f"images must be uint8 of shape (n, {', '.join(map(str, expected))})")
        out = np.empty((len(images), len(self.labels)), dtype=np.float32)
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size].to(self.device)
            logits = self.model(self.manifest.preprocessing.normalise(batch)).float()
            out[start : start + len(batch)] = (logits / self.manifest.temperature).softmax(1).cpu().numpy()
        return out

    def predict(self, images: Sequence[ImageLike], batch_size: int = 64) -> list[Prediction]:
        """One prediction per image, in order.

        Raises UserError naming the first image (``image 3`` where it has no path) that cannot be read.
        """
        predictions: list[Prediction] = []
        for start in range(0, len(images), batch_size):
            arrays = [
                self.prepare(image, f"image {start + i + 1}")
                for i, image in enumerate(images[start : start + batch_size])
            ]
            rows = self.probabilities(torch.from_numpy(np.stack(arrays)), batch_size)
            predictions += [self.prediction(row) for row in rows]
        return predictions

    def decide(self, rows: np.ndarray) -> np.ndarray:
        """The predicted label of each row of :meth:`probabilities`, (n, k), as its number, int64 (n,).

        The most probable one, unless the model has a threshold: that decides whatever the other probability is.
        """
        return decide(rows, self.labels, self.manifest.threshold)

    def prediction(self, row: np.ndarray) -> Prediction:
        """The prediction that a row of :meth:`probabilities`, shape (k,), amounts to."""
        chosen = int(self.decide(row[None])[0])
        named = {label: float(value) for label, value in zip(self.labels, row, strict=True)}
        return Prediction(self.labels[chosen], float(row[chosen]), named)


def decide(rows: np.ndarray, labels: Sequence[str], threshold: Threshold | None) -> np.ndarray:
    """The predicted label of each row of probabilities, (n, k), as its number, int64 (n,)."""
    if threshold is None:
        best: np.ndarray = rows.argmax(axis=1)
        return best
    label = labels.index(threshold.label)
    return np.where(rows[:, label] >= threshold.value, label, 1 - label)


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
) -> Path:
    """Write ``model`` as a bundle; an earlier bundle at the place is replaced in one step.

    metrics, provenance: JSON values for people, non-finite numbers become null.
    temperature: by which logits are divided before the softmax, > 0.
    threshold: the operating point of a model of two classes. An older raytl refuses the bundle then, rather than
        deciding otherwise.
    examples: decoded images, of which up to 16 are kept in the bundle, made small, with what it answers for them.
    reference: such predictions that the model has already, kept as they are; then ``examples`` are not needed.
    yardstick: what is known of the model from labelled images. features: of its training images, so that a class can
        be added to it later.
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
        files[YARDSTICK_FILE] = yardstick_bytes(yardstick)
    if features is not None:
        files[FEATURES_FILE] = features_bytes(features, manifest.weights.sha256)
    write_files(directory, files)
    return directory
