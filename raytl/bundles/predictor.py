"""What a bundle answers, whatever computes it: torch, or a runtime without it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from raytl.bundles.reference import Reference
from raytl.core.errors import UserError
from raytl.core.prediction import Prediction
from raytl.sources.manifest import Manifest, Threshold
from raytl.tasks.decoding import decode
from raytl.tasks.eight_bits import to_l_or_rgb

if TYPE_CHECKING:
    from raytl.judging.health import Yardstick

ImageLike = Image.Image | bytes | Path
FULL = "float32"


class Predictor(ABC):
    """A model with labels, ready to predict; safe to use from several threads.

    yardstick: what is known of it from labelled images; None where it was exported without, as older bundles were.
    on_gpu: whether :meth:`compute` leaves the work to a GPU. precision: in which it computes. tolerance: by which the
    logarithm of a probability may differ between machines and libraries, for each unit of one more than its size. So a
    model that is sure of everything is held to its second choice too.
    Raises UserError for a manifest without labels. where: what to call the model in that sentence.
    """

    on_gpu = False
    precision = FULL
    tolerance = 0.01  # other processors and memory layouts stay well below

    def __init__(self, manifest: Manifest, where: str) -> None:
        if manifest.labels is None:
            raise UserError(f"{where}: has no labels, so it cannot predict; use it as a source model")
        self.manifest = manifest
        self.labels = manifest.labels
        self.yardstick: Yardstick | None = None

    @abstractmethod
    def compute(self, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """Probabilities of the labels, float32 (n, k), for prepared images, uint8 (n, channels, size, size)."""

    def reference(self, folder: Path) -> Reference | None:
        """What its folder says that it answers, None where that says nothing. Raises UserError."""
        return Reference.read(folder)

    def prepare(self, image: ImageLike, name: str = "image", most_pixels: int | None = None) -> np.ndarray:
        """One image as uint8 (channels, size, size).

        image: encoded bytes, the path of a file, or a decoded image (taken as upright).
        Raises UserError naming the image where it cannot be read or decoded, and LargeImageError where it was not
        because it would have more than ``most_pixels`` in memory.
        """
        if isinstance(image, Path):
            name = str(image)
            try:
                image = image.read_bytes()
            except OSError as error:
                raise UserError(f"{name}: cannot be read ({error.strerror or error}); check the path") from error
        if isinstance(image, bytes):
            image = decode(image, name, most_pixels)
        return self.manifest.preprocessing.to_uint8(to_l_or_rgb(image))

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
            rows = self.compute(np.stack(arrays), batch_size)
            predictions += [self.prediction(row) for row in rows]
        return predictions

    def decide(self, rows: np.ndarray) -> np.ndarray:
        """The predicted label of each row of :meth:`compute`, (n, k), as its number, int64 (n,).

        The most probable one, unless the model has a threshold: that decides whatever the other probability is.
        """
        return decide(rows, self.labels, self.manifest.threshold)

    def prediction(self, row: np.ndarray) -> Prediction:
        """The prediction that a row of :meth:`compute`, shape (k,), amounts to."""
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
