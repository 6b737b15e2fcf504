"""A bundle that is loaded, warm and checked, with the settings that it is served under."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from raytl.bundles.predictor import Predictor
from raytl.core.errors import UserError
from raytl.serving.health import certainty
from raytl.serving.requests import NamedBytes
from raytl.serving.settings import ServingSettings, bundle_version, name_of

_LOG = logging.getLogger("ray.serve")
QUICK_S = 0.005
"""For as long one thread may hold the interpreter's lock against another one anyway (``sys.getswitchinterval``)."""


@dataclass(frozen=True, eq=False)
class LiveModel:
    """A loaded and warmed-up bundle with the settings it is served under.

    quick: images that it computes within :data:`QUICK_S`.
    """

    settings: ServingSettings
    version: str
    bundle: Predictor
    quick: int = 0

    @cached_property
    def name(self) -> str:
        """What answers call the model."""
        return self.settings.model or name_of(Path(self.settings.bundle), self.bundle.manifest.provenance)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of the probabilities."""
        return self.bundle.labels

    def decode(self, image: NamedBytes, most_pixels: int | None = None) -> np.ndarray:
        """One encoded image to uint8 (channels, size, size).

        Raises UserError where it cannot be decoded, LargeImageError where it has more than ``most_pixels``.
        """
        name, data = image
        return self.bundle.prepare(data, name, most_pixels)

    def compute(self, images: np.ndarray) -> np.ndarray:
        """uint8 (n, channels, size, size) to probabilities, float32 (n, k)."""
        return self.bundle.compute(images, self.settings.max_batch_size)

    def decide(self, rows: np.ndarray) -> np.ndarray:
        """The number of the predicted label of each row of probabilities, (n, k), int64 (n,)."""
        return self.bundle.decide(rows)

    @cached_property
    def certainty(self) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        """How certain each answer is, (n,), of prepared images and what :meth:`compute` says of them."""
        return partial(certainty, self.bundle)

    def describe(self) -> dict[str, Any]:
        """The manifest with the name and version that the model is served under, and how it computes."""
        known = {"model": self.name, "version": self.version, "precision": self.bundle.precision}
        manifest = self.bundle.manifest
        return known | manifest.model_dump(mode="json") | {"preprocessing": manifest.preprocessing.to_json()}


def load(settings: ServingSettings, device: str = "cpu") -> LiveModel:
    """A bundle on torch, as :func:`warmed`."""
    return warmed(settings, partial(_on_torch, device=device))


def warmed(settings: ServingSettings, read: Callable[[Path], Predictor]) -> LiveModel:
    """Load a bundle, classify one black image with it, so that the first request meets a warm model, and check it.

    read: loads it from its folder. Raises UserError where the bundle cannot be loaded, is not of the version asked for,
    answers nonsense, or fails its own reference predictions.
    """
    path = Path(settings.bundle)
    version = bundle_version(path)
    if settings.version and settings.version != version:
        raise UserError(f"{path}: the bundle was changed after it was deployed; deploy it again")
    live = LiveModel(settings, version, read(path))
    manifest = live.bundle.manifest
    shape = (1, manifest.channels, manifest.image_size, manifest.image_size)
    probabilities = live.compute(np.zeros(shape, dtype=np.uint8))
    if probabilities.shape != (1, len(live.labels)) or not np.isfinite(probabilities).all():
        raise UserError(f"{path}: the model does not answer with a probability per label; export the bundle again")
    reference = live.bundle.reference(path)
    if reference is not None:
        reference.check(live.bundle, str(path))
    return replace(live, quick=_quick(live))


def _quick(live: LiveModel) -> int:
    """See :class:`LiveModel`: a power of two; 0 of a model that leaves the work to a GPU, for that is waited for."""
    manifest, most = live.bundle.manifest, live.settings.max_batch_size
    fitting, count = 0, 1
    while not live.bundle.on_gpu and count <= most:
        shape = (count, manifest.channels, manifest.image_size, manifest.image_size)
        if _least_s(live, np.zeros(shape, dtype=np.uint8)) > QUICK_S:
            break
        fitting, count = count, 2 * count
    return fitting


def _least_s(live: LiveModel, images: np.ndarray) -> float:
    """Seconds for these images at the best of a few times: others are at work on the machine, too."""
    least = math.inf
    for _ in range(5):
        start = time.perf_counter()
        live.compute(images)
        least = min(least, time.perf_counter() - start)
        if not QUICK_S < least < 20 * QUICK_S:  # nothing would be another answer
            break
    return least


def _on_torch(path: Path, device: str) -> Predictor:
    # Here and not at the top: the runtime without torch has no such module.
    from raytl.bundles.bundle import Bundle

    bundle = Bundle.load(path, device=device)
    if bundle.on_gpu:
        why_not = bundle.halve(bundle.reference(path))
        told = f"{bundle.precision} ({why_not})" if why_not else bundle.precision
        _LOG.info("%s: computes in %s", path, told)
    return bundle
