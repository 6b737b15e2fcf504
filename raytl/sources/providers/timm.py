"""``timm:<name>[.<tag>][@none]``: the networks of timm, where it is installed (``pip install raytl[timm]``)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

from raytl.core.errors import UserError, nearest
from raytl.sources.base import Built, Provider, Request, SourceEntry, WeightsMissingError, hint, provider, seeded
from raytl.sources.hub import fetch_errors
from raytl.sources.licences import NO_WEIGHTS, UNKNOWN
from raytl.sources.model import SourceInfo, SourceModel
from raytl.sources.staging import Staged, assemble, batch_norm_stages
from raytl.sources.timm_stages import is_exact, stages_of
from raytl.tasks.preprocessing import Preprocessing

# What the deepest networks need to be left with a pixel; the Inceptions do not pad.
_MIN_SIZE, _MIN_SIZE_INCEPTION = 32, 96
_TRIAL_SIZE = 96


@provider("timm")
class Timm(Provider):
    """Networks with their published weights through the Hugging Face cache, or untrained (``@none``)."""

    listed = False  # nearly two thousand

    def load(self, name: str, request: Request) -> SourceModel:
        """With published weights. Raises UserError where they cannot be had."""
        model, trained = _split(name)
        built = self._built(name, model, request, trained=trained)
        built.model.pretrained = trained
        return built.model

    def info(self, name: str, request: Request) -> SourceInfo:
        """Counted without loading weights, on an untrained copy, once per process."""
        model, trained = _split(name)
        facts = _facts(model)
        config = _config(model)
        return SourceInfo(
            uri=f"timm:{name}",
            stages=facts.stages,
            feature_dim=facts.feature_dim,
            parameters=facts.parameters,
            image_size=_image_size(config, request.image_size),
            fixed_size=bool(config.get("fixed_input_size")),
            pretrained=trained,
            licence=_licence(config.get("license")) if trained else NO_WEIGHTS,
            batch_norm_stages=facts.batch_norm_stages,
            crops=_preprocessing(config, None).resize == "crop",
        )

    def build(self, name: str, request: Request) -> Built:
        """Untrained."""
        return self._built(name, _split(name)[0], request, trained=False)

    def untrained(self, name: str) -> str:
        """Whatever the weights."""
        return f"timm:{_split(name)[0]}@none"

    def names(self) -> list[str]:
        """Every network with published weights. Raises WeightsMissingError where timm is not installed."""
        return list(_timm().list_models(pretrained=True))

    def entry(self, name: str) -> SourceEntry:
        """Without building it."""
        config = _timm().get_pretrained_cfg(name)
        return SourceEntry(
            uri=f"timm:{name}",
            parameters=None,
            stages=None,
            image_size=config.input_size[-1],
            weights=config.tag or "default",
            licence=_licence(config.license),
            preprocessing=_preprocessing(config.to_dict(), None),
        )

    def _built(self, name: str, model: str, request: Request, *, trained: bool) -> Built:
        config = _config(model)
        with seeded("timm", model, request.seed):
            network = _network(model, trained=trained)
        original = network.state_dict(keep_vars=True)
        return assemble(
            original,
            stages_of(network, f"timm:{model}", cut=_facts(model).cut),
            uri=f"timm:{name}",
            architecture=f"timm:{model}@none",
            preprocessing=_preprocessing(config, request.image_size),
        )


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise WeightsMissingError(
            "timm: source models need the timm package; run: pip install 'raytl[timm]'"
        ) from error
    module: ModuleType = timm
    return module


def _split(name: str) -> tuple[str, bool]:
    """Model (with its tag) and whether its published weights are meant. Raises UserError for an unknown one."""
    timm = _timm()
    model, at, variant = name.partition("@")
    if at and variant.lower() != "none":
        raise UserError(f"timm model '{name}': write a tag behind a dot, or @none for untrained weights")
    bare, _, tag = model.partition(".")
    if not timm.is_model(bare):
        raise UserError(f"unknown timm model '{bare}'{hint(bare, timm.list_models())}")
    if tag:
        tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{bare}.*")]
        if tag not in tags:
            raise UserError(f"unknown weights '{tag}' of timm model '{bare}'{nearest(tag, tags)}")
    if not at and not timm.models.is_model_pretrained(bare):
        raise UserError(f"timm model '{bare}' has no published weights; use timm:{bare}@none")
    return model, not at


@cache
def _config(model: str) -> dict[str, Any]:
    timm = _timm()
    config: dict[str, Any] = timm.get_pretrained_cfg(model).to_dict()
    if config["input_size"][0] != 3:
        raise UserError(f"timm model '{model}' takes {config['input_size'][0]} channels; choose one for RGB images")
    return config


def _licence(stated: str | None) -> str:
    """As the publisher states it on the model's card; ``other`` is no licence that could be looked up."""
    return UNKNOWN if stated in (None, "", "other") else stated


def _image_size(config: dict[str, Any], wished: int | None) -> int:
    own = int(config["input_size"][-1])
    if wished is None or config.get("fixed_input_size"):
        return own
    return max(wished, _MIN_SIZE_INCEPTION if "inception" in config["architecture"] else _MIN_SIZE)


def _preprocessing(config: dict[str, Any], wished: int | None) -> Preprocessing:
    return Preprocessing(
        size=_image_size(config, wished),
        resize={"squash": "squash", "border": "pad"}.get(config["crop_mode"], "crop"),  # type: ignore[arg-type]
        crop_fraction=float(config["crop_pct"]),
        interpolation="bicubic" if config["interpolation"] == "bicubic" else "bilinear",
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def _network(model: str, *, trained: bool) -> Any:
    if not trained:
        return _timm().create_model(model, pretrained=False)
    try:
        return _timm().create_model(model, pretrained=True)
    except fetch_errors() as error:
        raise WeightsMissingError(
            f"timm:{model}: the published weights are not in the Hugging Face cache and could not be fetched "
            f"({type(error).__name__}); fetch them once while online, set HF_HOME to a cache that has them, or use "
            f"timm:{model}@none"
        ) from error


@dataclass(frozen=True)
class _Facts:
    """What one trial with untrained weights showed. cut: whether the named parts are exact stages."""

    stages: tuple[str, ...]
    feature_dim: int
    parameters: int
    cut: bool
    batch_norm_stages: tuple[str, ...]


@cache
def _facts(model: str) -> _Facts:
    """Found out once per process. Some of timm's networks run themselves while they are built: no shortcut."""
    where = f"timm:{model}"
    with seeded("timm", model):
        network = _network(model, trained=False)
        staged = stages_of(network, where)
        cut = is_exact(network, staged, _image_size(_config(model), _TRIAL_SIZE))
    if not cut:
        staged = Staged([("network", network)], staged.head, staged.feature_dim)
    modules = [*(module for _, module in staged.stages), staged.head]
    parameters = sum(parameter.numel() for module in modules for parameter in module.parameters())
    names = tuple(name for name, _ in staged.stages)
    return _Facts(names, staged.feature_dim, parameters, cut, batch_norm_stages(staged.stages))
