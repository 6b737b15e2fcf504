"""What source models make of images, before any training: features of every stage, kept for the next who asks."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from raytl.core.hashing import hash_json
from raytl.core.seeding import derive_seed
from raytl.sources import SourceModel
from raytl.sources.model import pool_positions
from raytl.sources.precision import autocast
from raytl.tasks import Images, LabelledImages, splits
from raytl.training.devices import finish, free_memory, out_of_memory, timed_batch
from raytl.training.workspace import Workspace

_BATCH = 64
_TIMED_BATCH = 16
_STEP_BATCH = 8


def pooled_features(workspace: Workspace, uri: str, images: Images) -> list[np.ndarray]:
    """Outputs of every stage, averaged over positions: one (n, d) array per stage. Kept in the array cache."""
    model, weights = workspace.source_model(uri)
    key = hash_json([weights, model.architecture, model.preprocessing.to_json(), images.fingerprint])[:32]
    cache = workspace.cache
    widths = cache.get(f"pooled-{key}-widths", lambda: np.array(_widths(workspace, model, images), dtype=np.int64))
    joined = cache.stream(f"pooled-{key}", len(images), lambda: _joined(workspace, model, images))
    return np.split(joined, np.cumsum(widths)[:-1], axis=1)


def forward_seconds(workspace: Workspace, uri: str) -> tuple[float, ...]:
    """Seconds that each stage takes for an image, forward only and in batches; the better of two tries.

    Tried once in a workspace: two tries are 32 images, and there may be no more labelled ones.
    """
    if uri in workspace.timed:
        return workspace.timed[uri]
    model, _ = workspace.source_model(uri)
    model = model.to(workspace.device).eval()
    size = model.preprocessing
    batch = timed_batch(workspace.device, _TIMED_BATCH)
    x = torch.zeros(batch, size.channels, size.size, size.size, device=workspace.device)
    x = x.contiguous(memory_format=torch.channels_last)
    tries = []
    with torch.inference_mode():
        for _ in range(2):
            passed, times = x, []
            for stage in model.stage_list():
                started = time.perf_counter()
                passed = stage(passed)
                finish(workspace.device)
                times.append((time.perf_counter() - started) / batch)
            tries.append(tuple(times))
    workspace.timed[uri] = min(tries, key=sum)
    return workspace.timed[uri]


def step_seconds(workspace: Workspace, uri: str) -> float:
    """Seconds that a step of training the whole network takes for an image, the second of two; 0 of a fixed one."""
    model, _ = workspace.source_model(uri)
    if not model.trainable:
        return 0.0
    model, batch = model.to(workspace.device).train(), timed_batch(workspace.device, _STEP_BATCH)
    while True:
        try:
            return _timed_step(workspace, model, batch) / batch
        except RuntimeError as error:
            if batch <= _STEP_BATCH or not out_of_memory(error):
                raise
        free_memory(workspace.device)
        batch //= 2


def _timed_step(workspace: Workspace, model: SourceModel, batch: int) -> float:
    """Seconds of the second of two."""
    size = model.preprocessing
    x = torch.zeros(batch, size.channels, size.size, size.size, device=workspace.device)
    x = x.contiguous(memory_format=torch.channels_last)
    seconds = 0.0
    for _ in range(2):
        started = time.perf_counter()
        with autocast(workspace.device):
            loss = model.run(x).float().square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        finish(workspace.device)
        seconds = time.perf_counter() - started
    return seconds


def sample(images: LabelledImages, most: int, seed: int) -> LabelledImages:
    """At most about so many images, each class in its share."""
    return images if len(images) <= most else images.subset(stratified(images.labels, most, seed))


def stratified(labels: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Indices of about ``most`` images, each class in its share; all where there are no more."""
    if len(labels) <= most:
        return np.arange(len(labels))
    return splits.holdout(labels, None, most / len(labels), derive_seed(seed, "sample"))[1]


def _joined(workspace: Workspace, model: SourceModel, images: Images) -> Iterator[np.ndarray]:
    """Some images after the others."""
    pixels = workspace.pixels(images, model.preprocessing)
    return (torch.cat(_run_stages(workspace, model, chunk), dim=1).numpy() for chunk in pixels.split(_BATCH))


def _widths(workspace: Workspace, model: SourceModel, images: Images) -> list[int]:
    first = workspace.pixels(images.subset([0]), model.preprocessing)
    return [features.shape[1] for features in _run_stages(workspace, model, first)]


@torch.inference_mode()
def _run_stages(workspace: Workspace, model: SourceModel, pixels: Tensor) -> list[Tensor]:
    """Of a batch."""
    model = model.to(workspace.device).eval()
    x = model.preprocessing.normalise(pixels.to(workspace.device)).contiguous(memory_format=torch.channels_last)
    found = []
    for stage in model.stage_list():
        x = stage(x)
        found.append(pool_positions(x).float().cpu())
    return found
