"""Pools: what a trial draws its batches from, as pixels or as activations of the frozen stages."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from raytl.core.hashing import hash_json
from raytl.core.seeding import derive_seed
from raytl.finetuning import augmentation
from raytl.sources.passing import at_once
from raytl.tasks.images import Images
from raytl.training.arrays import NotHereError
from raytl.training.devices import timed_batch, upload
from raytl.training.material import Material, as_tensor
from raytl.training.network import Network

VIEW_BATCH, LARGE_VIEW_BATCH, LARGE_SIDE = 512, 128, 128
"""Images that are augmented at once, and of those with more pixels a side."""
COPIED_BYTES = 64 * 2**20
"""Features up to this size are copied into memory where that makes them quicker to read."""
TIMED_FROM, TIMED_BATCH = 1000, 16
"""Images from which on it is looked how long they will take before they are decoded, and by how many."""
MOVED = "shift"
"""The augmentation policy that makes the moved versions which consistency is measured on."""


@dataclass(frozen=True)
class Pool:
    """Inputs of the network's entry stage, and labels where they are known.

    inputs: uint8 pixels (n, c, s, s), or float activations (n, …) at the cut. views: augmented versions of them, made
    beforehand. rows: int64 (m,), the images of the pool, None for all n. labels: int64 (m,) or None.
    """

    inputs: Tensor
    labels: Tensor | None = None
    rows: Tensor | None = None
    views: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return len(self.inputs) if self.rows is None else len(self.rows)

    def subset(self, indices: np.ndarray | Tensor) -> Pool:
        """The images at ``indices``; nothing but their labels is copied."""
        index = torch.as_tensor(indices)
        rows = index if self.rows is None else self.rows[index]
        return replace(self, rows=rows, labels=None if self.labels is None else self.labels[index])

    def versions(self) -> list[Pool]:
        """The pool of the images as they are, and those of each of their views."""
        return [replace(self, views=()), *(replace(self, inputs=view, views=()) for view in self.views)]

    def take(self, index: Tensor, view: int | None = None) -> Tensor:
        """The inputs of the images at ``index``, or of one of their views."""
        rows = index if self.rows is None else self.rows[index]
        tensor = self.inputs if view is None else self.views[view]
        return _gather(tensor, upload(rows, tensor.device))

    def batches(self, size: int) -> Iterator[Tensor]:
        """The inputs of all images in order, ``size`` at a time."""
        if self.rows is None:
            yield from self.inputs.split(size)
        else:
            for rows in self.rows.split(size):
                yield _gather(self.inputs, upload(rows, self.inputs.device))


def together(pools: Sequence[Pool]) -> Pool:
    """One pool of the labelled images of some whole ones, with as many views, one pool's after the other's."""
    if len(pools) == 1:
        return pools[0]
    labels = torch.cat([pool.labels for pool in pools if pool.labels is not None])
    views = tuple(torch.cat(same) for same in zip(*(pool.views for pool in pools), strict=True))
    return Pool(torch.cat([pool.inputs for pool in pools]), labels, views=views)


def view_batch(side: int) -> int:
    """Images of that many pixels a side which are augmented at once; what is drawn for each follows from how many."""
    return VIEW_BATCH if side <= LARGE_SIDE else LARGE_VIEW_BATCH


class PoolMaker:
    """Makes the pools of one trial: of activations where the frozen stages can be run beforehand, else of pixels.

    Cached activations are valid only while everything below the cut is frozen, in eval mode and free of augmentation,
    or augmented beforehand. The key holds all they depend on: weights, architecture, cut, transform and what its
    policy is defined as, images, dtype.

    images: how many images' activations the trial will want, views included; what the cache's budget cannot hold is
    not cached at all.

    Where the workspace reads another device's features (``features_of``), NotHereError is raised for those that are not
    kept: made here they would take longer, and differ in their last digits from those that others are held against.
    """

    def __init__(self, workspace: Material, network: Network, weights: str, *, cached: bool, images: int = 0) -> None:
        self._workspace = workspace
        self._network = network
        self._weights = weights
        # Where all is frozen the outputs of all stages are kept: heads on the last one and on all share one pass.
        self._whole = network.cut == len(network.stages)
        self._cached = cached and network.cut > 0 and images * self._image_bytes() <= workspace.cache.budget_bytes
        if self._cached:
            network.entry = network.cut

    def make(self, images: Images, labels: np.ndarray | None = None, policy: str = "none", views: int = 0) -> Pool:
        """The pool of a collection, on the workspace's device; with some views under an augmentation policy.

        The views are the same ones in every trial of every search, and a trial that wants more of them finds the first.
        """
        versions = tuple(self._inputs(images, f"{policy}/{number}") for number in range(views))
        known = None if labels is None else torch.as_tensor(labels).to(self._workspace.device)
        return Pool(self._inputs(images), known, views=versions)

    def lacking(self, images: Images, policy: str = "none", views: int = 0) -> int:
        """How many images, views counted, have to pass the frozen stages for :meth:`make`: those that are not kept."""
        if not (self._cached and self._whole):
            return (1 + views) * len(images)
        versions = ("", *(f"{policy}/{number}" for number in range(views)))
        missing = (not self._workspace.cache.has(self._key(images, self._network.cut, each)) for each in versions)
        return sum(missing) * len(images)

    def make_moved(self, images: Images) -> Pool:
        """A pool of slightly moved versions of the images, the same ones in every trial of every search."""
        return Pool(self._inputs(images, f"{MOVED}/moved"))

    def _inputs(self, images: Images, version: str = "") -> Tensor:
        """What the entry stage is to see of a collection; version: ``policy/number`` of an augmented one."""
        cut, cache = self._network.cut if self._cached else 0, self._workspace.cache
        if self._workspace.features_of and not (cut and self._whole):
            raise NotHereError
        key = self._key(images, cut, version)
        if cut and self._whole:
            makes = not (self._workspace.features_of or cache.has(key))
            if makes and cache.hurries and len(images) > TIMED_FROM:  # decoding them may be for nothing
                cache.expect(len(images), len(images) * self._image_seconds())
            rows = cache.stream(key, len(images), lambda: self._all_stages(images, version))
            reads = self._network.model.reads_stages
            host = as_tensor(rows if reads else _in_one_place(rows[:, -self._network.model.feature_dim :]))
            key += "" if reads else "-last"
        elif cut:
            host = from_rows(cache.stream(key, len(images), lambda: self._compute(images, version)))
        elif version:
            moved = cache.stream(key, len(images), lambda: (part.numpy() for part in self._pixels(images, version)))
            host = as_tensor(moved)
        else:
            host = self._workspace.pixels(images, self._network.preprocessing)
        return self._workspace.residents.get(key, host)

    def _all_stages(self, images: Images, version: str) -> Iterator[np.ndarray]:
        """What all of them make of a collection, some images after the others."""
        if self._workspace.features_of:
            raise NotHereError
        return self._run(self._pixels(images, version), 0, self._network.cut)

    def _pixels(self, images: Images, version: str = "") -> Iterable[Tensor]:
        """uint8 (m, c, s, s), some images after the others."""
        pixels = self._workspace.pixels(images, self._network.preprocessing)
        chunks = pixels.split(view_batch(self._network.preprocessing.size))
        return self._moved(chunks, version) if version else chunks

    def _moved(self, chunks: Iterable[Tensor], version: str) -> Iterator[Tensor]:
        policy = augmentation.get(version.partition("/")[0])
        generator = torch.Generator().manual_seed(derive_seed("view", version))

        def move(chunk: Tensor) -> Tensor:
            moved = policy(upload(chunk, self._workspace.device).float().div_(255), generator)
            return moved.mul_(255).round_().to("cpu", torch.uint8)

        return map(move, chunks)

    def _key(self, images: Images, cut: int, version: str) -> str:
        model = self._network.model
        transform = [model.preprocessing.to_json(), version, _definition(version)]
        together = view_batch(model.preprocessing.size)
        if version and together != VIEW_BATCH:
            transform.append(str(together))
        device = self._workspace.features_of or self._workspace.device.type
        computed = ["float32", device, str(torch.__version__)]
        parts = [transform, images.fingerprint, *computed]
        if not cut:
            return f"views-{hash_json(parts)[:32]}"
        kind = self._network.reads if self._whole else "activations"
        return f"{kind}-{hash_json([self._weights, model.architecture, cut, *parts])[:32]}"

    def _compute(self, images: Images, version: str) -> Iterator[np.ndarray]:
        """Run the frozen stages, from the deepest shallower cut that is already there."""
        cut, cache = self._network.cut, self._workspace.cache
        start = next((c for c in range(cut - 1, 0, -1) if cache.has(self._key(images, c, version))), 0)
        if not start:
            return self._run(self._pixels(images, version), 0, cut)
        key = self._key(images, start, version)
        shallow = cache.stream(key, len(images), lambda: self._run(self._pixels(images, version), 0, start))
        return self._run([from_rows(shallow)], start, cut)

    @torch.inference_mode()
    def _run(self, inputs: Iterable[Tensor], start: int, stop: int) -> Iterator[np.ndarray]:
        """Activations as :func:`from_rows` reads them, some images after the others.

        Behind the last stage, those of all stages (:meth:`raytl.sources.SourceModel.all_stages`).
        """
        network, device = self._network, self._workspace.device
        network.eval()
        most = at_once(network.preprocessing.size, device)
        for part in chain.from_iterable(chunk.split(most) for chunk in inputs):
            if not len(part):
                yield np.empty((0,), dtype=np.float32)
            else:
                batch = to_inputs(upload(part, device), network)
                run = (
                    network.model.all_stages(batch, reads=network.reads)
                    if self._whole
                    else network.model.run(batch, start, stop)
                )
                yield _to_rows(run.float()).cpu().numpy()

    def _image_seconds(self) -> float:
        """That one image takes through the frozen stages, in a batch; the better of two tries."""
        preprocessing, times = self._network.preprocessing, []
        batch = timed_batch(self._network.device, TIMED_BATCH)
        shape = (batch, preprocessing.channels, preprocessing.size, preprocessing.size)
        for _ in range(2):
            started = time.perf_counter()
            for _ in self._run([torch.zeros(shape, dtype=torch.uint8)], 0, self._network.cut):
                pass
            times.append((time.perf_counter() - started) / batch)
        return min(times)

    def _image_bytes(self) -> int:
        """Bytes of one image's activations at the cut."""
        network = self._network
        known, key = self._workspace.activation_bytes, (self._weights, network.model.architecture, network.cut)
        if key not in known:
            preprocessing = self._network.preprocessing
            blank = torch.zeros((1, preprocessing.channels, preprocessing.size, preprocessing.size), dtype=torch.uint8)
            known[key] = sum(rows.nbytes for rows in self._run([blank], 0, self._network.cut))
        return known[key]


def _in_one_place(columns: np.ndarray) -> np.ndarray:
    """A few columns of mapped rows: quicker to take batches of in one place, while the memory is not made much of."""
    return np.ascontiguousarray(columns) if columns.nbytes <= COPIED_BYTES else columns


def _definition(version: str) -> str:
    """Of the policy that made a version: its name stays when its settings change. Empty for images as they are."""
    return augmentation.definition(version.partition("/")[0]) if version else ""


def to_inputs(batch: Tensor, network: Network) -> Tensor:
    """Pixels normalised, activations as they are; images in the memory layout that convolutions run fastest in."""
    if batch.ndim == 4:
        batch = batch.contiguous(memory_format=torch.channels_last)
    if batch.dtype != torch.uint8:
        return batch
    scale, shift = network.affine
    return torch.addcmul(shift, batch.float(), scale)


def from_rows(array: np.ndarray) -> Tensor:
    """Kept activations as the stages take them; maps (n, c, h, w) lie on disk channels last, and do so in memory."""
    tensor = as_tensor(array)
    return tensor.permute(0, 3, 1, 2) if tensor.ndim == 4 else tensor


def _to_rows(activations: Tensor) -> Tensor:
    """Inverse of :func:`from_rows`."""
    return activations.permute(0, 2, 3, 1) if activations.ndim == 4 else activations


def _gather(tensor: Tensor, rows: Tensor) -> Tensor:
    """``tensor[rows]``, one image after the other in memory as the tensor has them: no value is moved twice."""
    if tensor.ndim == 4 and not tensor.is_contiguous():
        return tensor.permute(0, 2, 3, 1).index_select(0, rows).permute(0, 3, 1, 2)
    return tensor.index_select(0, rows)
