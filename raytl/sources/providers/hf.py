"""``hf:<folder or model id>[@none]``: image towers in Hugging Face layout; ``hf:<kind>?<shape>`` is one untrained.

Reads ``config.json``, ``preprocessor_config.json`` (or ``processor_config.json``) and safetensors; nothing in them is
executed. A model id is looked up in the hub's cache, and downloaded only where it is not there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from raytl.core.errors import UserError
from raytl.core.places import expanded, is_folder
from raytl.sources.base import Built, Provider, Request, SourceEntry, WeightsMissingError, provider, seeded
from raytl.sources.heads import ZeroShotHead
from raytl.sources.hf_towers import LARGEST_SIDE, TWO_TOWERS, Tower
from raytl.sources.hub import fetch_errors
from raytl.sources.licences import NO_WEIGHTS, UNKNOWN
from raytl.sources.model import SourceInfo, SourceModel
from raytl.sources.staging import assemble, fit_original
from raytl.sources.text_towers import TOKENIZER, embed_names
from raytl.sources.timm_stages import stages_of
from raytl.sources.weights import read_weights
from raytl.tasks.preprocessing import Preprocessing

_PLACEHOLDER_CLASSES = 10
_FACTS = ["config.json", "preprocessor_config.json", "processor_config.json", "README.md", *TOKENIZER]
_WEIGHTS = ["model.safetensors", "model.safetensors.index.json", "model-*.safetensors"]
_MODEL_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class _Chosen:
    """What a name means. folder: of the files, None for a bare shape. trained: whether their weights are meant.

    text: whether the folder has a text tower and a tokenizer.
    """

    tower: Tower
    folder: Path | None
    trained: bool
    preprocessing: Preprocessing
    labels: tuple[str, ...] | None = None
    licence: str = NO_WEIGHTS
    text: bool = False

    def side(self, wished: int | None) -> int:
        """Of the input in pixels, for a wished one; else as images were prepared for the weights."""
        return self.preprocessing.size if wished is None else self.tower.at(wished)


@provider("hf")
class HuggingFace(Provider):
    """The image towers of ViT, DINOv2, CLIP and SigLIP; positions are resampled once for the task's size."""

    def load(self, name: str, request: Request) -> SourceModel:
        """With the folder's weights. Raises UserError where they are missing, damaged or do not fit."""
        chosen = _choose(name, weights=True)
        built = self._built(name, chosen, request)
        if chosen.folder is None or not chosen.trained:
            return built.model
        state = chosen.tower.own_names(_read(chosen.folder), built.model.preprocessing.size)
        if "head.weight" in state and state["head.weight"].shape[-1] != chosen.tower.width:
            # DINOv2's published classifiers read more than the pooled token.
            state = {key: value for key, value in state.items() if not key.startswith("head.")}
        fit_original(built, state, str(chosen.folder), head_optional=True)
        built.model.labels = chosen.labels
        built.model.pretrained = True
        return built.model

    def info(self, name: str, request: Request) -> SourceInfo:
        """From the configuration alone."""
        chosen = _choose(name, weights=False)
        facts = _facts(chosen.tower)
        return SourceInfo(
            uri=f"hf:{name}",
            stages=facts[0],
            feature_dim=chosen.tower.width,
            parameters=facts[1],
            image_size=chosen.side(request.image_size),
            fixed_size=False,
            pretrained=chosen.trained,
            labels=chosen.labels,
            licence=chosen.licence if chosen.trained else NO_WEIGHTS,
            text_tower=chosen.trained and chosen.text,
            batch_norm_stages=(),  # transformers have none
            crops=chosen.preprocessing.resize == "crop",
            patch=chosen.tower.patch,
        )

    def build(self, name: str, request: Request) -> Built:
        """Untrained, with the preprocessing of the weights."""
        return self._built(name, _choose(name, weights=False), request)

    def untrained(self, name: str) -> str:
        """With the same preprocessing, so that nothing but the weights differs."""
        bare = name.removesuffix("@none")
        if "?" not in bare:
            return f"hf:{bare}@none"
        return f"hf:{Tower.from_text(bare).to_text()}"

    def zero_shot_head(self, name: str, classes: Sequence[str], templates: Sequence[str]) -> ZeroShotHead:
        """Of CLIP and SigLIP with their text tower and tokenizer. Raises UserError."""
        chosen = _choose(name, weights=True)
        if chosen.folder is None or not (chosen.trained and chosen.text):
            return super().zero_shot_head(f"hf:{name}", classes, templates)
        return embed_names(chosen.folder, chosen.tower.kind, tuple(classes), tuple(templates))

    def names(self) -> list[str]:
        """None: models are named by their folder or model id."""
        return []

    def entry(self, name: str) -> SourceEntry:
        """From the configuration alone."""
        known, chosen = self.info(name, Request()), _choose(name, weights=False)
        return SourceEntry(
            known.uri,
            known.parameters,
            known.stages,
            known.image_size,
            weights="in its folder" if known.pretrained else None,
            licence=known.licence,
            preprocessing=chosen.preprocessing,
        )

    def licence(self, name: str) -> str:
        """As the model's card states it."""
        chosen = _choose(name, weights=False)
        return chosen.licence if chosen.trained else NO_WEIGHTS

    def _built(self, name: str, chosen: _Chosen, request: Request) -> Built:
        tower, size = chosen.tower, chosen.side(request.image_size)
        _need_timm()
        with seeded("hf", tower.to_text(), request.seed):
            network = tower.network(size, _PLACEHOLDER_CLASSES)
        return assemble(
            network.state_dict(keep_vars=True),
            stages_of(network, f"hf:{name}"),
            uri=f"hf:{name}",
            architecture=f"hf:{tower.to_text()}",
            preprocessing=replace(chosen.preprocessing, size=size),
        )


def _need_timm() -> None:
    try:
        import timm  # noqa: F401
    except ImportError as error:
        raise WeightsMissingError("hf: image towers need the timm package; run: pip install 'raytl[timm]'") from error


@cache
def _facts(tower: Tower) -> tuple[tuple[str, ...], int]:
    """Stage names and number of parameters, found out once per process."""
    _need_timm()
    with seeded("hf", tower.to_text()):
        staged = stages_of(tower.network(tower.size, _PLACEHOLDER_CLASSES), tower.kind)
    modules = [*(module for _, module in staged.stages), staged.head]
    return tuple(name for name, _ in staged.stages), sum(p.numel() for module in modules for p in module.parameters())


def _choose(name: str, *, weights: bool) -> _Chosen:
    bare = name.removesuffix("@none")
    if "?" in bare:
        tower = Tower.from_text(bare)
        return _Chosen(tower, None, False, Preprocessing(size=tower.size, mean=(0.5,) * 3, std=(0.5,) * 3))
    trained = bare == name
    folder = _folder(bare, weights=weights and trained)
    config = _json(folder / "config.json")
    tower = Tower.from_config(config, str(folder / "config.json"))
    text = config.get("model_type") in TWO_TOWERS and (folder / TOKENIZER[0]).is_file()
    preprocessing, labels = _preprocessing(folder, tower), _labels(config, tower)
    return _Chosen(tower, folder, trained, preprocessing, labels, _licence(folder), text)


def _folder(name: str, *, weights: bool) -> Path:
    """The folder of a model: the one named, or the hub cache's. Raises UserError, WeightsMissingError."""
    path = expanded(name)
    if is_folder(path):
        return path
    neither = f"hf:{name}: is no folder; give one with a config.json, or a model id such as facebook/dinov2-small"
    if not _MODEL_ID.fullmatch(name):
        raise UserError(neither)
    _need_timm()
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError

    patterns = [*_FACTS, *_WEIGHTS] if weights else _FACTS
    try:
        cached = Path(huggingface_hub.snapshot_download(name, allow_patterns=patterns, local_files_only=True))
        if (cached / "config.json").is_file() and (not weights or any(cached.glob("model*.safetensors"))):
            return cached
    except HFValidationError:  # its rules go further than the pattern here
        raise UserError(neither) from None
    except fetch_errors():
        pass
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=patterns))
    except fetch_errors() as error:
        raise WeightsMissingError(
            f"hf:{name}: is not in the Hugging Face cache and could not be fetched ({type(error).__name__}); fetch it "
            "once while online, set HF_HOME to a cache that has it, or give the folder of a copy"
        ) from error


def _read(folder: Path) -> dict[str, Tensor]:
    """All tensors, from one file or from the shards that the index names."""
    index = folder / "model.safetensors.index.json"
    files = ["model.safetensors"]
    if not (folder / files[0]).is_file() and index.is_file():
        shards = _json(index).get("weight_map")
        files = sorted({str(file) for file in shards.values()}) if isinstance(shards, dict) else []
        if not files or any(Path(file).name != file for file in files):
            raise UserError(f"{index}: names no shards beside it; download the model again")
    if not (folder / files[0]).is_file():
        raise WeightsMissingError(f"{folder}: has no model.safetensors; other files of weights are not read")
    state: dict[str, Tensor] = {}
    for file in files:
        state |= read_weights(folder / file)
    return state


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror or error}); give a complete copy of the model"
        ) from error
    except ValueError as error:
        raise UserError(f"{path}: is not valid JSON ({error}); download the model again") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds no settings; download the model again")
    return values


def _preprocessing(folder: Path, tower: Tower) -> Preprocessing:
    """As the folder says; without that, nobody knows how the images were normalised."""
    path, values = _image_processor(folder)
    try:
        size, crop = _side(values.get("size")), _side(values.get("crop_size"))
        shortest = isinstance(values.get("size"), dict) and "shortest_edge" in values["size"]
        crops = bool(values.get("do_center_crop", False))
        normalised = bool(values.get("do_normalize", True))
        return Preprocessing(
            size=_whole(tower, crop if crops and crop else size if values.get("do_resize", True) else None),
            resize="crop" if crops or shortest else "squash",
            crop_fraction=min(1.0, crop / size) if crops and crop and size else 1.0,
            interpolation="bicubic" if values.get("resample", 2) == 3 else "bilinear",
            mean=_three(values["image_mean"]) if normalised else (0.0,) * 3,
            std=_three(values["image_std"]) if normalised else (1.0,) * 3,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: does not say how images are prepared ({error!r}); download the model again"
        ) from error


def _image_processor(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Where it says how images are prepared, and what.

    transformers 5 writes it into ``processor_config.json``, with what belongs to the tokenizer, and reads it there
    first; all before and models of one tower have a file for it.
    """
    joint = folder / "processor_config.json"
    if joint.is_file():
        found = _json(joint).get("image_processor")
        if isinstance(found, dict):
            return joint, found
    path = folder / "preprocessor_config.json"
    return path, _json(path)


def _whole(tower: Tower, side: int | None) -> int:
    """The side of the input for images so prepared: no patch begins in what is left over."""
    if side is None:
        return tower.size
    if not tower.patch <= side <= LARGEST_SIDE:
        raise ValueError(f"images of {side} pixels")
    return side - side % tower.patch


def _side(value: Any) -> int | None:
    """A size in any of the forms of such files: a number, height and width, or the short side."""
    if isinstance(value, dict):
        value = value.get("shortest_edge", value.get("height"))
    return None if value is None else int(value)


def _three(values: Any) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    if len(numbers) != 3:
        raise ValueError(f"{len(numbers)} numbers for 3 channels")
    return numbers


def _labels(config: dict[str, Any], tower: Tower) -> tuple[str, ...] | None:
    """Names of the classifier's outputs; None where it has none that reads the pooled token, or nobody named them."""
    names, kinds = config.get("id2label"), config.get("architectures")
    if tower.kind != "vit" or kinds != ["ViTForImageClassification"] or not isinstance(names, dict):
        return None
    labels = tuple(str(names.get(str(place), "")) for place in range(len(names)))
    return None if "" in labels or len(set(labels)) < len(labels) or "LABEL_0" in labels else labels


def _licence(folder: Path) -> str:
    """As the model's card states it in the lines between its first two ``---``."""
    try:
        parts = (folder / "README.md").read_text(encoding="utf-8").split("---", 2)
        card = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    except (OSError, ValueError, yaml.YAMLError):
        return UNKNOWN
    stated = card.get("license") if isinstance(card, dict) else None
    return stated if isinstance(stated, str) and stated != "other" else UNKNOWN
