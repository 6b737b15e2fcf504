"""``torchvision:<name>[@<weights>|@none]``: every classification model that torchvision lists."""

from __future__ import annotations

import contextlib
import io
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn
from torchvision import models as tv

from raytl.core.errors import UserError, nearest
from raytl.sources.base import (
    Built,
    Hollow,
    Provider,
    Request,
    SourceEntry,
    WeightsMissingError,
    hint,
    provider,
    seeded,
)
from raytl.sources.licences import NO_WEIGHTS, UNKNOWN
from raytl.sources.model import SourceInfo, SourceModel
from raytl.sources.staging import assemble, batch_norm_stages, fit_original
from raytl.sources.torchvision_stages import ChannelAffine, stages_of
from raytl.tasks.preprocessing import Preprocessing

# Published files of these networks come from a time when layers had dotted names.
_OLD_DENSENET = re.compile(
    r"^(.*denselayer\d+\.(?:norm|relu|conv))\.((?:[12])\.(?:weight|bias|running_mean|running_var))$"
)


# Two families have further classifiers for training from nothing; they are no part of the stages.
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")


@dataclass(frozen=True)
class _Choice:
    """A model and its weights; ``weights`` is None for the untrained network."""

    name: str
    weights: Any

    @property
    def uri(self) -> str:
        if self.weights is None:
            return f"torchvision:{self.name}@none"
        default = self.weights == _weights(self.name).DEFAULT
        return f"torchvision:{self.name}" if default else f"torchvision:{self.name}@{self.weights.name}"

    @property
    def _example(self) -> Any:
        """The weights, or the default ones where there are none: for sizes and normalisation."""
        return self.weights or _weights(self.name).DEFAULT

    @property
    def preprocessing(self) -> Preprocessing:
        """That of the weights; for the untrained network, that of the default ones."""
        transforms = self._example.transforms()
        size, short_side = transforms.crop_size[0], transforms.resize_size[0]
        return Preprocessing(
            size=size,
            resize="crop",
            crop_fraction=size / short_side,
            interpolation="bicubic" if transforms.interpolation.value == "bicubic" else "bilinear",
            mean=tuple(transforms.mean),
            std=tuple(transforms.std),
        )

    def image_size(self, wished: int | None) -> int:
        """The side of the input: the wished one where the network accepts it, else the nearest that it does."""
        own: int = self.preprocessing.size
        if wished is None or self.name.startswith("maxvit_"):
            return own
        if self.patch is not None:  # untrained, any whole number of patches
            return own if self.weights is not None else self.patch * -(-wished // self.patch)
        return max(wished, *map(int, self._example.meta["min_size"]))

    @property
    def fixed_size(self) -> bool:
        """MaxViT's grid must divide into windows; published positions are not resampled."""
        return self.name.startswith("maxvit_") or (self.patch is not None and self.weights is not None)

    @property
    def patch(self) -> int | None:
        """Of vision transformers, which hold a position for each."""
        return int(self.name.rsplit("_", 1)[1]) if self.name.startswith("vit_") else None

    @property
    def licence(self) -> str:
        """Stated for the SWAG weights alone; that of torchvision's code does not cover weights."""
        if self.weights is None:
            return NO_WEIGHTS
        return "CC-BY-NC-4.0" if "SWAG" in self.weights.name else UNKNOWN

    @property
    def labels(self) -> tuple[str, ...] | None:
        return tuple(self.weights.meta["categories"]) if self.weights is not None else None


@provider("torchvision")
class Torchvision(Provider):
    """Networks on three channels, with their published weights through torch hub's cache, or untrained."""

    def load(self, name: str, request: Request) -> SourceModel:
        """With published weights from the cache or the network. Raises UserError where neither has them."""
        chosen = _choose(name)
        built = self.build(name, request)
        if chosen.weights is None:
            return built.model
        for module in built.model.modules():
            if isinstance(module, ChannelAffine):
                module.use_inception()
        state = {key: value for key, value in _published(chosen).items() if not key.startswith(_AUXILIARY)}
        fit_original(built, state, f"published weights of {chosen.uri}")
        built.model.pretrained = True
        return built.model

    def info(self, name: str, request: Request) -> SourceInfo:
        """Counted without allocating anything, once per process."""
        chosen = _choose(name)
        stages, feature_dim, parameters, batch_norm = _facts(chosen.name)
        return SourceInfo(
            uri=chosen.uri,
            stages=stages,
            feature_dim=feature_dim,
            parameters=parameters,
            image_size=chosen.image_size(request.image_size),
            fixed_size=chosen.fixed_size,
            patch=chosen.patch,
            pretrained=chosen.weights is not None,
            labels=chosen.labels,
            licence=chosen.licence,
            batch_norm_stages=batch_norm,
            crops=chosen.preprocessing.resize == "crop",
        )

    def build(self, name: str, request: Request) -> Built:
        """Untrained, at ``request.image_size``."""
        chosen = _choose(name)
        size = chosen.image_size(request.image_size)
        with seeded("torchvision", chosen.name, request.seed):
            network = _network(chosen.name, size)
        return assemble(
            network.state_dict(keep_vars=True),
            stages_of(network),
            uri=chosen.uri,
            architecture=f"torchvision:{chosen.name}@none",
            preprocessing=replace(chosen.preprocessing, size=size),
            labels=chosen.labels,
        )

    def untrained(self, name: str) -> str:
        """Whatever the weights."""
        return f"torchvision:{_choose(name).name}@none"

    def names(self) -> tuple[str, ...]:
        """Every classification model."""
        return _names()

    def entry(self, name: str) -> SourceEntry:
        """With its default weights."""
        chosen = _choose(name)
        stages, _, parameters, _ = _facts(name)
        return SourceEntry(
            uri=chosen.uri,
            parameters=parameters,
            stages=stages,
            image_size=chosen.preprocessing.size,
            weights=chosen.weights.name,
            cached=_cache_path(chosen.weights).exists(),
            size_bytes=round(chosen.weights.meta["_file_size"] * 2**20),
            licence=chosen.licence,
            preprocessing=chosen.preprocessing,
        )


@cache
def _names() -> tuple[str, ...]:
    return tuple(tv.list_models(module=tv))  # type: ignore[attr-defined]


def _weights(name: str) -> Any:
    return tv.get_model_weights(name)  # type: ignore[attr-defined]


@cache
def _choose(name: str) -> _Choice:
    model, at, variant = name.partition("@")
    if model not in _names():
        raise UserError(f"unknown torchvision model '{model}'{hint(model, _names())}")
    weights = _weights(model)
    if not at:
        return _Choice(model, weights.DEFAULT)
    if variant.lower() == "none":
        return _Choice(model, None)
    known = dict(weights.__members__)
    if variant.upper() not in known:
        raise UserError(
            f"unknown weights '{variant}' of torchvision model '{model}'{nearest(variant, [*known, 'none'])}"
        )
    return _Choice(model, known[variant.upper()])


def _network(name: str, size: int) -> nn.Module:
    settings: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        settings = {"aux_logits": False, "init_weights": True}
    elif name.startswith("vit_"):
        settings = {"image_size": size}
    network: nn.Module = tv.get_model(name, weights=None, **settings)  # type: ignore[attr-defined]
    return network


@cache
def _facts(name: str) -> tuple[tuple[str, ...], int, int, tuple[str, ...]]:
    """Stage names, feature width, number of parameters, stages with batch norm.

    The same for all weights but for a ViT's positions.
    """
    chosen = _choose(name)
    with Hollow():
        network = _network(chosen.name, chosen.preprocessing.size)
    staged = stages_of(network)
    count = sum(parameter.numel() for parameter in network.parameters())
    names = tuple(stage for stage, _ in staged.stages)
    return names, staged.feature_dim, count, batch_norm_stages(staged.stages)


def _cache_path(weights: Any) -> Path:
    """Where torch hub keeps the file: ``$TORCH_HOME/hub/checkpoints``, as a rule under ~/.cache/torch."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(weights.url).path).name


def _published(chosen: _Choice) -> dict[str, Tensor]:
    path = _cache_path(chosen.weights)
    present = path.exists()
    try:
        # torch hub announces a download even where it comes to nothing; whether weights are here, the catalogue tells.
        with contextlib.redirect_stdout(io.StringIO()):
            state = chosen.weights.get_state_dict(
                progress=False, check_hash=True, map_location="cpu", weights_only=True
            )
    except OSError as error:
        if present:
            raise UserError(f"{path}: cannot be read ({error.strerror or error}); check the file") from error
        raise WeightsMissingError(
            f"{chosen.uri}: the published weights are not in {path} and could not be fetched ({error}); put "
            f"{chosen.weights.url} there, set TORCH_HOME to a cache that has it, or use torchvision:{chosen.name}@none"
        ) from error
    except Exception as error:  # a damaged file makes torch raise anything, MemoryError among it
        raise UserError(f"{path}: not a readable file of weights; delete it so that it is fetched again") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: holds something else than a state dict; delete it so that it is fetched again")
    if chosen.name.startswith("densenet"):
        return {_OLD_DENSENET.sub(r"\1\2", key): value for key, value in state.items()}
    return dict(state)
