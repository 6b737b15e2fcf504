"""A source model in a script: its network from the package that has it, cut into the same stages, the same weights."""

from __future__ import annotations

import hashlib
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from raytl.core import tidying
from raytl.core.errors import UserError
from raytl.core.paths import home
from raytl.core.places import expanded
from raytl.core.seeding import derive_seed
from raytl.runs.recipe.lifting import Lifted
from raytl.sources import SourceModel
from raytl.sources.checkpoint import checkpoint_files, is_checkpoint, write_files
from raytl.sources.manifest import WEIGHTS_FILE
from raytl.sources.uris import split_size
from raytl.training.pretrain import kept_checkpoint, parse_pretrain
from raytl.training.workspace import Workspace

WITH = "it can with torchvision:, timm:, scratch:, plain:, pretrain:, package: and file:"


@dataclass(frozen=True)
class Weights:
    """Where a network's weights come from: a file in raytl's names, published ones by name, or drawn from a seed."""

    file: Path | None = None
    published: bool = False
    seed: int = 0


def stages_code(uri: str, model: SourceModel, workspace: Workspace, lifted: Lifted) -> str:
    """The body of a function that returns ``stages``, an ``nn.ModuleDict``, and ``network``, which its head is of.

    uri: of the source model, ``model`` what was loaded for it. Raises UserError for one that cannot be written.
    """
    weights = _weights(uri, model, workspace)
    kind, _, name = model.architecture.partition(":")
    name = name.removesuffix("@none")
    write = {"scratch": _scratch, "plain": _plain, "torchvision": _torchvision, "timm": _timm}.get(kind)
    if write is None:
        raise UserError(f"source model '{uri}': no script can be written with one of {kind}:; {WITH}")
    seed = derive_seed(kind, name, derive_seed(workspace.settings.seed, "init", uri))
    lines = [f"torch.manual_seed({seed})"] if weights == Weights() else []
    lines += write(name, model, weights, lifted)
    if weights.file is not None:
        lifted.imports.add("from safetensors.torch import load_file")
        lines += [
            f"state = load_file({str(weights.file)!r})",
            'own = {name: tensor for name, tensor in state.items() if name.startswith("stages.")}',
            'stages.load_state_dict({name.removeprefix("stages."): tensor for name, tensor in own.items()})',
        ]
    return "\n".join([*lines, "return stages"])


def weights_file(uri: str, workspace: Workspace) -> Path | None:
    """The file that a source model's weights lie in, in raytl's names.

    Those of a package, and bare ones under foreign names, are written out first, below ``RAYTL_HOME``. None where the
    network's own library has them, or there are none.
    """
    bare = split_size(uri)[0]
    pretraining = parse_pretrain(bare)
    if pretraining is not None:
        return (kept_checkpoint(workspace, *pretraining) or Path()) / WEIGHTS_FILE
    if bare.startswith("package:") or (bare.startswith("file:") and "?" in bare):
        model = workspace.source_model(uri)[0]
        return _written_out(model) if model.pretrained else None
    return expanded(bare.removeprefix("file:")).absolute() / WEIGHTS_FILE if bare.startswith("file:") else None


def _written_out(model: SourceModel) -> Path:
    files = checkpoint_files(model, {})
    place = home() / "recipes" / hashlib.sha256(files[WEIGHTS_FILE]).hexdigest()[:16]
    if not is_checkpoint(place):
        write_files(place, files)
    tidying.touch(place)
    return place / WEIGHTS_FILE


def _weights(uri: str, model: SourceModel, workspace: Workspace) -> Weights:
    file = weights_file(uri, workspace)
    if file is not None:
        return Weights(file)
    return Weights(published=model.pretrained)


def _scratch(name: str, model: SourceModel, weights: Weights, lifted: Lifted) -> list[str]:
    from raytl.sources.architectures.base import registry

    body = lifted.add(registry.get(name).body)
    return [f"found, _ = {body}({model.preprocessing.channels})", "stages = nn.ModuleDict(dict(found))"]


def _plain(name: str, model: SourceModel, weights: Weights, lifted: Lifted) -> list[str]:
    from raytl.sources.descriptors import DESCRIPTORS

    size = model.preprocessing
    made = f"{lifted.add(DESCRIPTORS[name])}({size.channels}, {size.size})"
    return [f'stages = nn.ModuleDict({{"features": {made}}})']


def _torchvision(name: str, model: SourceModel, weights: Weights, lifted: Lifted) -> list[str]:
    from torchvision import models

    from raytl.sources.torchvision_stages import stages_of

    if name in ("googlenet", "inception_v3"):
        raise UserError(f"source model '{model.uri}': no script can be written with its own normalisation inside")
    settings: dict[str, Any] = {"image_size": model.preprocessing.size} if name.startswith("vit_") else {}
    chosen = None
    if weights.published:
        at = model.uri.partition("@")[2]
        chosen = at or models.get_model_weights(name).DEFAULT.name
    lifted.imports.add("import torchvision")
    network = models.get_model(name, weights=None, **settings)
    arguments = ", ".join([f"weights={chosen!r}", *(f"{key}={value}" for key, value in settings.items())])
    return [f"network = torchvision.models.{name}({arguments})", *_cut(network, stages_of(network).stages, lifted)]


def _timm(name: str, model: SourceModel, weights: Weights, lifted: Lifted) -> list[str]:
    import timm

    from raytl.sources.timm_stages import stages_of

    lifted.imports.add("import timm")
    network = timm.create_model(name, pretrained=False)
    staged = stages_of(network, model.uri, cut=model.stage_names != ("network",))
    made = [f"network = timm.create_model({name!r}, pretrained={weights.published})", "network.reset_classifier(0)"]
    return [*made, *_cut(network, staged.stages, lifted)]


def _cut(network: nn.Module, stages: list[tuple[str, nn.Module]], lifted: Lifted) -> list[str]:
    names = {id(part): _path(name) for name, part in network.named_modules()}
    parts = [f'        "{name.replace(".", "_")}": {_expression(stage, names, lifted)},' for name, stage in stages]
    return ["stages = nn.ModuleDict(", "    {", *parts, "    }", ")"]


def _path(name: str) -> str:
    """``features.0.conv`` to ``network.features[0].conv``."""
    steps = ["network", *(name.split(".") if name else [])]
    return "".join(
        step if not index else f"[{step}]" if step.isdigit() else f".{step}" for index, step in enumerate(steps)
    )


def _expression(module: nn.Module, names: dict[int, str], lifted: Lifted) -> str:
    """A stage by the parts of the network that it is put together of."""
    if id(module) in names:
        return names[id(module)]
    if type(module) is nn.Sequential:
        return f"nn.Sequential({', '.join(_expression(part, names, lifted) for part in module)})"
    if type(module).__module__.startswith("torch.nn."):
        return f"nn.{module!r}"
    takes_network = len(inspect.signature(type(module)).parameters) > 0
    return f"{lifted.add(type(module))}({'network' if takes_network else ''})"
