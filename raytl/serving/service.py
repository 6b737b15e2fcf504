"""One served model in one process: decoding in threads, batches on the network, models swapped between requests."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raytl.bundles import Bundle
from raytl.core.errors import UserError
from raytl.serving.batching import Batcher
from raytl.serving.capture import Capture
from raytl.serving.decoding import Decoder
from raytl.serving.health import Board, Monitor, certainty
from raytl.serving.requests import NamedBytes
from raytl.serving.settings import ServingSettings, bundle_version


@dataclass(frozen=True, eq=False)
class LiveModel:
    """A loaded and warmed-up bundle with the settings it is served under."""

    settings: ServingSettings
    version: str
    bundle: Bundle

    @cached_property
    def name(self) -> str:
        """What answers call the model."""
        return self.settings.model or Path(self.settings.bundle).resolve().name

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of the probabilities."""
        return self.bundle.labels

    def decode(self, image: NamedBytes) -> np.ndarray:
        """One encoded image to uint8 (channels, size, size). Raises UserError where it cannot be decoded."""
        name, data = image
        return self.bundle.prepare(data, name)

    def compute(self, images: np.ndarray) -> np.ndarray:
        """uint8 (n, channels, size, size) to probabilities, float32 (n, k)."""
        return self.bundle.probabilities(torch.from_numpy(images), self.settings.max_batch_size)

    def describe(self) -> dict[str, Any]:
        """The manifest with the name and version that the model is served under."""
        return {"model": self.name, "version": self.version, **self.bundle.manifest.model_dump(mode="json")}


def load(settings: ServingSettings, device: str = "cpu") -> LiveModel:
    """Load a bundle and classify one black image with it, so that the first request meets a warm model.

    Raises UserError where the bundle cannot be loaded, is not of the version asked for, or answers nonsense.
    """
    path = Path(settings.bundle)
    version = bundle_version(path)
    if settings.version and settings.version != version:
        raise UserError(f"{path}: the bundle was changed after it was deployed; deploy it again")
    live = LiveModel(settings, version, Bundle.load(path, device=device))
    # Convolutions are a quarter faster so, on CPUs and GPUs; answers differ by rounding.
    live.bundle.model.to(memory_format=torch.channels_last)
    manifest = live.bundle.manifest
    shape = (1, manifest.channels, manifest.image_size, manifest.image_size)
    probabilities = live.compute(np.zeros(shape, dtype=np.uint8))
    if probabilities.shape != (1, len(live.labels)) or not np.isfinite(probabilities).all():
        raise UserError(f"{path}: the model does not answer with a probability per label; export the bundle again")
    return live


class Service:
    """Classifies encoded images with the live model. Belongs to one event loop."""

    def __init__(self, device: str = "cpu", board: Board | None = None) -> None:
        self._device = device
        self.monitor = Monitor(board)
        self.capture: Capture | None = None
        self._live: LiveModel | None = None
        self._batcher = Batcher()
        self._decoder = Decoder()
        self.refused = ""

    @property
    def live(self) -> LiveModel:
        """The model that answers now."""
        if self._live is None:
            raise RuntimeError("no model was loaded")
        return self._live

    async def apply(self, settings: ServingSettings) -> None:
        """Serve under these settings, loading the bundle off the event loop; requests go on meanwhile.

        Raises UserError where the first bundle cannot be loaded. A later one that cannot is recorded in ``refused``
        and the previous model stays, because Serve would stop a replica whose reconfiguration raises.
        """
        try:
            live = await asyncio.get_running_loop().run_in_executor(None, load, settings, self._device)
        except UserError as error:
            if self._live is None:
                raise
            self.refused = str(error)
            return
        self._live, self.refused = live, ""
        self._capture_as(settings)

    async def classify(self, live: LiveModel, images: Sequence[NamedBytes]) -> np.ndarray:
        """Probabilities, float32 (n, k), in the order of the images.

        Raises RequestError naming the first image that cannot be decoded (422), or where they are too large together
        (413).
        """
        arrays = await self._decoder.decode(live.decode, images, live.settings.max_pixels)
        rows = await self._batcher.submit(live.compute, arrays, live.settings.max_batch_size)
        self.monitor.note(live.version, live.bundle, arrays, rows)
        if self.capture is not None:
            self.capture.note([data for _, data in images], partial(certainty, live.bundle, arrays, rows))
        return rows

    async def health(self, live: LiveModel) -> dict[str, Any]:
        """Whether the model is still right on what comes in, as :meth:`Monitor.judge` says it."""
        found = await asyncio.get_running_loop().run_in_executor(None, self.monitor.judge, live.version, live.bundle)
        return {"model": live.name, "version": live.version, **found}

    def close(self) -> None:
        """Let go of the threads."""
        self._batcher.close()
        self._decoder.close()
        self.monitor.close()
        if self.capture is not None:
            self.capture.close()

    def _capture_as(self, settings: ServingSettings) -> None:
        kept = self.capture
        wanted = (Path(settings.capture), settings.capture_limit) if settings.capture else None
        if wanted != (None if kept is None else (kept.folder, kept.limit)):
            if kept is not None:
                kept.close()
            self.capture = None if wanted is None else Capture(*wanted)


def predictions(bundle: Bundle, probabilities: np.ndarray, top: int | None) -> list[dict[str, Any]]:
    """Per row of (n, k): the predicted label, its probability, and all by label.

    top: list only so many, the predicted one first and then the most probable.
    """
    chosen = bundle.decide(probabilities).tolist()
    return [_prediction(bundle.labels, row, best, top) for row, best in zip(probabilities, chosen, strict=True)]


def _prediction(labels: Sequence[str], row: np.ndarray, best: int, top: int | None) -> dict[str, Any]:
    values = row.tolist()
    if top is None:
        listed = dict(zip(labels, values, strict=True))
    else:
        order = [best, *(i for i in np.argsort(-row, kind="stable").tolist() if i != best)]
        listed = {labels[i]: values[i] for i in order[:top]}
    return {"label": labels[best], "confidence": values[best], "probabilities": listed}
