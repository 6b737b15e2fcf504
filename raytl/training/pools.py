"""Pools: what a trial draws its batches from, as pixels or as activations of the frozen stages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from raytl.core.hashing import hash_json
from raytl.core.seeding import derive_seed
from raytl.finetuning import augmentation
from raytl.tasks.images import Images
from raytl.training.network import Network
from raytl.training.workspace import Workspace, as_tensor

FROZEN_BATCH = 128
MOVED = "shift"
"""The augmentation policy that makes the moved versions which consistency is measured on."""


@dataclass(frozen=True)
class Pool:
    """Inputs of the network's entry stage, and labels where they are known.

    inputs: uint8 pixels (n, c, s, s), or float activations (n, …) at the cut. labels: int64 (n,) or None.
    """

    inputs: Tensor
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def subset(self, indices: np.ndarray | Tensor) -> Pool:
        """The images at ``indices``."""
        index = torch.as_tensor(indices)
        return Pool(self.inputs[index], None if self.labels is None else self.labels[index])

    def to(self, device: torch.device) -> Pool:
        """On a device; a no-op on the CPU."""
        return Pool(self.inputs.to(device), None if self.labels is None else self.labels.to(device))


class PoolMaker:
    """Makes the pools of one trial: of activations where the frozen stages can be run beforehand, else of pixels.

    Cached activations are valid only while everything below the cut is frozen, in eval mode and free of augmentation.
    The key holds all they depend on: weights, architecture, cut, transform, images, dtype.
    """

    def __init__(self, workspace: Workspace, network: Network, weights: str, *, cached: bool) -> None:
        self._workspace = workspace
        self._network = network
        self._weights = weights
        self._cached = cached and network.cut > 0
        if self._cached:
            network.entry = network.cut

    def make(self, images: Images, labels: np.ndarray | None = None) -> Pool:
        """The pool of a collection, on the workspace's device."""
        pixels = self._workspace.pixels(images, self._network.preprocessing)
        inputs = self._activations(images, pixels) if self._cached else pixels
        return Pool(inputs, None if labels is None else torch.as_tensor(labels)).to(self._workspace.device)

    def make_moved(self, images: Images) -> Pool:
        """A pool of slightly moved versions of the images, the same ones in every trial of every search."""
        pixels = self._workspace.pixels(images, self._network.preprocessing)
        generator = torch.Generator().manual_seed(derive_seed("moved", MOVED))
        moved = augmentation.get(MOVED)(pixels.float() / 255, generator)
        moved = (moved * 255).round().to(torch.uint8)
        return Pool(self._activations(images, moved, MOVED) if self._cached else moved).to(self._workspace.device)

    def _key(self, images: Images, cut: int, version: str) -> str:
        model = self._network.model
        transform = [model.preprocessing.to_json(), version]
        computed = ["float32", self._workspace.device.type, str(torch.__version__)]
        parts = [self._weights, model.architecture, cut, transform, images.fingerprint, *computed]
        return f"activations-{hash_json(parts)[:32]}"

    def _activations(self, images: Images, pixels: Tensor, version: str = "") -> Tensor:
        key = self._key(images, self._network.cut, version)
        return as_tensor(self._workspace.cache.get(key, lambda: self._compute(images, pixels, version)))

    def _compute(self, images: Images, pixels: Tensor, version: str) -> np.ndarray:
        """Run the frozen stages, from the deepest shallower cut that is already there."""
        network, cache = self._network, self._workspace.cache
        start = next((cut for cut in range(network.cut - 1, 0, -1) if cache.has(self._key(images, cut, version))), 0)
        inputs = pixels
        if start:
            inputs = as_tensor(cache.get(self._key(images, start, version), lambda: self._run(pixels, 0, start)))
        return self._run(inputs, start, network.cut)

    @torch.no_grad()
    def _run(self, inputs: Tensor, start: int, stop: int) -> np.ndarray:
        network, device = self._network, self._workspace.device
        network.eval()
        outputs = []
        for chunk in inputs.split(FROZEN_BATCH):
            batch = to_inputs(chunk.to(device), network)
            outputs.append(network.model.run(batch, start, stop).float().cpu())
        return torch.cat(outputs).contiguous().numpy()


def to_inputs(batch: Tensor, network: Network) -> Tensor:
    """Pixels normalised, activations as they are; images in the memory layout that convolutions run fastest in."""
    if batch.dtype == torch.uint8:
        batch = network.preprocessing.normalise(batch)
    return batch.contiguous(memory_format=torch.channels_last) if batch.ndim == 4 else batch
