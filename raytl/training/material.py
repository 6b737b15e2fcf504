"""What trials are made of, kept warm between them: data as tensors, source models used lately, the array cache."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from raytl import sources
from raytl.core.hashing import hash_json, hash_tensors
from raytl.core.machine import cores, keep_freed
from raytl.core.memory import in_units
from raytl.core.paths import home
from raytl.core.seeding import derive_seed
from raytl.evaluation import metrics
from raytl.evaluation.metrics import Metric
from raytl.sources import SourceModel
from raytl.tasks import TrainingData, splits
from raytl.tasks.images import Images, LabelledImages
from raytl.tasks.preprocessing import Preprocessing
from raytl.training.arrays import ArrayCache
from raytl.training.devices import choose_device, free_bytes, keep_to_share
from raytl.training.residents import DEVICE_SHARE, Residents
from raytl.training.settings import WorkspaceSettings

SOURCE_VALIDATION_SHARE = 0.15
EVALUATION_SAMPLE = 512
"""Unlabelled images that a network is evaluated on while the search runs."""
HELD_OUT_SAMPLE = 256
"""Images of the source domains, all together, that it is."""
DECODED_BATCH = 32
"""Images that are in memory at once while a collection is decoded."""
MODELS_KEPT, HEADS_KEPT = 6, 32
ELSEWHERE = "this machine may not have the GPU that the model was trained on"
KEPT_TIMES = 5
"""Times the bytes of its images that a search keeps on disk, or more: what networks make of them."""
OWN_SIDE = 224
"""Pixels that most networks wish for where nobody says how many."""
KEPT_BLOCK_BYTES, KEPT_BYTES = 256 * 2**20, 512 * 2**20
"""Of the memory that networks free, the largest block that a process keeps for the next, and how much in all."""
LEAST_SIDE = 32
"""Pixels: images smaller than this are blown up to it, for networks halve them several times."""
SIDE_STEP = 16


class Material:
    """One process's warm state. Everything in it can be rebuilt from ``data`` and ``settings``.

    Source models that are to be trained on a source domain first: :class:`raytl.training.workspace.Workspace`.
    """

    def __init__(self, data: TrainingData, settings: WorkspaceSettings, cache_root: Path | None = None) -> None:
        self.data = data
        self.settings = settings
        self.cache = ArrayCache((cache_root or home()) / "arrays")
        self.models_root = (cache_root or home()) / "sources"
        self.device = choose_device(settings.device)
        keep_to_share(self.device, settings.gpu_share)
        if self.device.type == "cpu":
            keep_freed(KEPT_BLOCK_BYTES, KEPT_BYTES, together=True)
        self.residents = Residents(self.device, int(DEVICE_SHARE * free_bytes(self.device, settings.gpu_share)))
        self.activation_bytes: dict[tuple[str, str, int], int] = {}
        if settings.threads:
            # A node that came later may be smaller than those that were planned with; more would wait for one another.
            torch.set_num_threads(min(settings.threads, cores()))
        self._models: OrderedDict[str, tuple[SourceModel, str]] = OrderedDict()
        self.adopted: dict[str, SourceModel] = {}
        self._solved: OrderedDict[str, nn.Module] = OrderedDict()
        self.timed: dict[str, tuple[float, ...]] = {}  # seconds of an image through each stage, by source model
        self.gives_up = True  # what takes far too long; not workers of a group, who would have to agree
        self.features_of = ""  # the kind of device whose features are read and never made; of this one's where empty
        self._pixels: dict[str, Tensor] = {}
        self._held_out: dict[tuple[str, ...], LabelledImages | None] = {}

    @property
    def elsewhere(self) -> bool:
        """Whether the lanes may have had a GPU that this process has not."""
        return self.settings.device == "auto" and self.device.type == "cpu"

    @cached_property
    def metric(self) -> Metric:
        """What the user means by good, in this task."""
        metric, target = metrics.get(self.settings.metric), self.data.target
        return metric if target is None else metric.finding(metrics.rarer(target.labels), self.data.classes)

    @property
    def short_of_disk(self) -> str:
        """A sentence where there is no room to keep what trials share, empty where there is."""
        side = self.settings.image_size or min(self.data.image_side or OWN_SIDE, OWN_SIDE)
        needed = KEPT_TIMES * self.data.channels * side * side * self.images
        room = max(0, self.cache.most_bytes())
        if needed <= room:
            return ""
        over_budget = room == self.cache.budget_bytes
        return (
            f"{self.cache.root}: of what networks make of the images {in_units(needed)} or more are to be kept there, "
            f"and there is room for {in_units(room)}, so that trials make it again and again; "
            + ("raise RAYTL_CACHE_BYTES" if over_budget else "free space there, or point RAYTL_HOME at another place")
        )

    # --- data -------------------------------------------------------------------------------------------------------

    def pixels(self, images: Images, preprocessing: Preprocessing) -> Tensor:
        """uint8 (n, c, s, s), decoded once per node and shared between its lanes; mapped, not held in memory."""
        key = _pixels_key(images, preprocessing)
        if key not in self._pixels:
            parts = (part.numpy() for part in images.batches(preprocessing, DECODED_BATCH))
            self._pixels[key] = as_tensor(self.cache.stream(f"pixels-{key}", len(images), lambda: parts))
        return self._pixels[key]

    def has_pixels(self, images: Images, preprocessing: Preprocessing) -> bool:
        """Whether a collection is decoded already."""
        key = _pixels_key(images, preprocessing)
        return key in self._pixels or self.cache.has(f"pixels-{key}")

    @cached_property
    def folds(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """(training, validation) indices into the target images, one pair per fold; empty where there are none."""
        return self._folds(self.settings.folds[1])

    @cached_property
    def folds_once(self) -> int:
        """How many of the folds, the first ones, ask every image once; the others ask the same images again."""
        return len(self._folds(1))

    def _folds(self, repeats: int) -> list[tuple[np.ndarray, np.ndarray]]:
        target, n_folds = self.data.target, self.settings.folds[0]
        if target is None or n_folds == 0:
            return []
        return splits.folds(target.labels, target.groups, n_folds, repeats, self.settings.seed)

    def with_folds(self, count: int) -> Self:
        """The same with so many folds, once each; all that is warm is shared."""
        other = copy.copy(self)
        other.settings = replace(self.settings, folds=(count, 1))
        for name in ("folds", "folds_once"):
            other.__dict__.pop(name, None)
        return other

    def source_split(self, domain: str) -> tuple[np.ndarray, np.ndarray]:
        """(training, validation) indices into a source domain's images.

        By groups, where these are small enough for some to be held out. Of three groups, say, none is: then by single
        images. That flatters, but all strategies alike; without any nothing would tell which of them forgot the domain.
        """
        images = self.data.source_domains[domain]
        seed = derive_seed(self.settings.seed, "source-validation", domain)
        train, held = splits.holdout(images.labels, images.groups, SOURCE_VALIDATION_SHARE, seed)
        if len(held) or images.groups is None:
            return train, held
        return splits.holdout(images.labels, None, SOURCE_VALIDATION_SHARE, seed)

    def held_out_source_images(self, set_aside: Collection[str] = ()) -> LabelledImages | None:
        """Some images of every source domain that may join a training, which no training sees; None without.

        The same ones for every strategy, whether or not it has a domain join, so that all are scored alike.
        set_aside: domains whose labels look wrong: being right about them speaks against a strategy.
        """
        names = tuple(name for name in self.data.joinable if name not in set_aside)
        if names not in self._held_out:
            self._held_out[names] = self._hold_out(names)
        return self._held_out[names]

    def _hold_out(self, names: Sequence[str]) -> LabelledImages | None:
        classes = self.data.classes
        held_out = {name: self.source_split(name)[1] for name in names}
        most = max(1, HELD_OUT_SAMPLE // max(1, len(held_out)))
        parts = [
            self.data.source_domains[name].subset(splits.spread(index, most)).with_classes(classes)
            for name, index in held_out.items()
            if len(index)
        ]
        if not parts:
            return None
        items = [item for part in parts for item in part.items]
        labels = np.concatenate([part.labels for part in parts])
        return LabelledImages("held-out source images", items, None, classes, labels)

    # --- source models ----------------------------------------------------------------------------------------------

    def image_size(self, architecture: str) -> int | None:
        """Side of a network's input in pixels, None for its own.

        Small images are not blown up for networks that are trained on them alone, which would learn nothing more from
        it at many times the cost. Networks with published weights have seen objects at another scale.
        """
        limit, side = self.settings.image_size, self.data.image_side
        if side is None or not architecture.startswith(("scratch:", "plain:")):
            return limit
        if limit is None:
            limit = sources.info(architecture, channels=self.data.channels).image_size
        return min(limit, round_up(side))

    @cached_property
    def images(self) -> int:
        """How many there are in all roles."""
        roles = [self.data.target, self.data.unlabelled, *self.data.source_domains.values()]
        return sum(len(images) for images in roles if images is not None)

    def source_model(self, uri: str) -> tuple[SourceModel, str]:
        """A fresh copy of a source model, and the hash of its weights. Trains it first where it is not there yet."""
        self.hold(uri)
        model, weights = self._models[uri]
        return copy.deepcopy(model), weights

    def solved(self, strategy_key: str) -> nn.Module | None:
        """A copy of the head that a strategy has on all labels; None where it was not solved for."""
        return copy.deepcopy(self._solved.get(strategy_key))

    def keep_solved(self, strategy_key: str, head: nn.Module) -> None:
        """Remember the head that a strategy has on all labels."""
        self._solved[strategy_key] = copy.deepcopy(head)
        while len(self._solved) > HEADS_KEPT:
            self._solved.popitem(last=False)

    def holds(self, uri: str) -> bool:
        """Whether a source model is at hand."""
        return uri in self._models

    def hold(self, uri: str) -> None:
        """Have a source model at hand; makes it, or waits for the lane that does, where it is not there yet."""
        if uri not in self._models:
            model = (copy.deepcopy(self.adopted.get(uri)) or self._load(uri)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self._models[uri] = (model, hash_tensors(model.state_dict()))
            while len(self._models) > MODELS_KEPT:
                self._models.popitem(last=False)
        self._models.move_to_end(uri)

    def adopt(self, uri: str, model: SourceModel) -> None:
        """Take a source model from one whose frozen stages are its own, where a lane elsewhere made it."""
        self.adopted[uri] = model

    def _load(self, uri: str) -> SourceModel:
        seed = derive_seed(self.settings.seed, "init", uri)
        return sources.load(uri, channels=self.data.channels, image_size=self.image_size(uri), seed=seed)


def _pixels_key(images: Images, preprocessing: Preprocessing) -> str:
    """What decoded images depend on: they are normalised later."""
    return hash_json([images.fingerprint, preprocessing.to_json() | {"mean": None, "std": None}])[:32]


def round_up(side: int) -> int:
    """Pixels of a network's input in which all of an image of this side is to be seen."""
    return max(LEAST_SIDE, SIDE_STEP * math.ceil(side / SIDE_STEP))


def as_tensor(array: np.ndarray) -> Tensor:
    """A tensor over a read-only array without copying; it must not be written to (and nothing here does)."""
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
