"""Files of bare weights: read without running anything in them, and found under whatever names they came in."""

from __future__ import annotations

import pickle
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import product
from pathlib import Path
from threading import Lock
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from raytl.core.errors import UserError
from raytl.sources.figures import HARMLESS

SUFFIXES = (".safetensors", ".pth", ".pt")
"""What files of bare weights are called."""
_COMPILED = "_orig_mod."
"""What torch.compile puts before the names of the module that it was given, wherever that stands in the network."""
_NESTS = (
    "state_dict", "model_state_dict", "model", "net", "network", "weights", "module",
    "state_dict_ema", "model_ema", "ema", "teacher", "student",
)  # fmt: skip
"""Where checkpoints keep a network's weights, the plain ones before averaged ones and those of one of two networks."""
_DEEPEST = 3
_AVERAGED = re.compile(r"momentum|average|encoder_k\b|\b(?:ema|target|teacher)\b")
"""What the second of two like networks is called, which follows the first one in self-supervised training."""
_UNPICKLING = Lock()

Names = dict[str, str]
"""Name in the file -> name in the network's own state dict."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of weights, by name.

    Of .pth and .pt files only tensors, plain values, NumPy's numbers and a parser's options are unpickled, which runs
    no code; a state dict inside a training checkpoint is taken out. Raises UserError where the file cannot be read or
    holds no state dict.
    """
    try:
        if path.suffix == ".safetensors":
            return tensors(path.read_bytes(), str(path))
        with _UNPICKLING, torch.serialization.safe_globals(HARMLESS):  # one list for the whole process
            values = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); check the file") from error
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: is damaged or holds more than tensors and plain values, and nothing else is unpickled; save its "
            "state dict alone, as safetensors or with torch.save(model.state_dict(), ...)"
        ) from error
    except Exception as error:  # a damaged file makes torch raise anything, MemoryError among it
        raise UserError(f"{path}: is not a readable file of weights; download or save it again") from error
    state = _state_in(values, _DEEPEST)
    if not state:
        raise UserError(f"{path}: holds no state dict; save one with torch.save(model.state_dict(), ...)")
    return state


def tensors(data: bytes, where: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file's bytes. Raises UserError for anything else."""
    try:
        state: dict[str, Tensor] = safetensors.torch.load(data)
        return state
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise UserError(f"{where}: is not a readable safetensors file ({error}); copy or export it again") from error


def in_own_names(state: Mapping[str, Tensor], own: Collection[str], head: Collection[str] = ()) -> dict[str, Tensor]:
    """The weights under the names of the network's own state dict, in whichever known layout they came.

    own: those names; head: the classifier's among them, which decide nothing. Of all ways to read the file's names
    (taken to be in a wrapper, other libraries' names translated) the one that finds most of them wins, the plainest
    among equals and a network before one that averages it. Where a wrapper is taken off, what lies outside it
    belongs to another part of the training (a projection head, a second encoder) and is left out unless the network
    knows it.
    """
    wanted = set(own) - set(head)
    ways = [
        translated
        for names, translate in product(_unwrapped(list(state), set(own)), (_as_they_are, *TRANSLATIONS))
        if (translated := translate(names, own))
    ]
    best = max(ways, key=lambda names: len(wanted & set(names.values())), default={name: name for name in state})
    return {new: state[old] for old, new in best.items()}


def efficientnet_pytorch(names: Names, own: Collection[str]) -> Names:
    """Names of the ``efficientnet_pytorch`` package to those of timm's EfficientNets.

    The one numbers the blocks from first to last, the other within each stage, in the same order.
    """
    blocks = list(dict.fromkeys(match[0] for name in own if (match := re.match(r"blocks\.\d+\.\d+\.", name))))
    expanded = {match[1] for name in names.values() if (match := re.match(r"_blocks\.(\d+)\._expand_conv\.", name))}
    found: Names = {}
    for old, name in names.items():
        block = re.match(r"_blocks\.(\d+)\.(_\w+)\.(.+)", name)
        if block is None:
            part, _, rest = name.partition(".")
            found[old] = f"{_EFFICIENTNET.get(part, part)}.{rest}"
        elif int(block[1]) < len(blocks):
            parts = _EXPANDING_BLOCK if block[1] in expanded else _PLAIN_BLOCK
            found[old] = f"{blocks[int(block[1])]}{parts.get(block[2], block[2])}.{block[3]}"
        else:
            found[old] = name
    return found if found != names else {}


def resnet_children(names: Names, own: Collection[str]) -> Names:
    """Names of a ResNet that was cut with ``nn.Sequential(*resnet.children())`` to its own."""
    found = {
        old: f"{_RESNET_CHILDREN[part]}.{rest}" if (part := name.partition(".")[0]) in _RESNET_CHILDREN else name
        for old, name in names.items()
        for rest in [name.partition(".")[2]]
    }
    return found if "layer4.0.conv1.weight" in own and found != names else {}


def block_chunks(names: Names, own: Collection[str]) -> Names:
    """Names of DINOv2's transformers, whose blocks were trained in chunks, to those of one row of blocks."""
    found = {old: re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", name) for old, name in names.items()}
    return found if found != names else {}


TRANSLATIONS: tuple[Callable[[Names, Collection[str]], Names], ...] = (
    efficientnet_pytorch, resnet_children, block_chunks,
)  # fmt: skip
"""Each gives the names in a network's own words, or nothing where it does not apply. ResNets of torchvision and timm
need none: their names agree."""

_EFFICIENTNET = {
    "_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier",
}  # fmt: skip
_SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
_EXPANDING_BLOCK = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3", **_SQUEEZE,
}  # fmt: skip
_PLAIN_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2", **_SQUEEZE}
_RESNET_CHILDREN = {
    "0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4",
}  # fmt: skip


def _as_they_are(names: Names, own: Collection[str]) -> Names:
    return names


def _unwrapped(names: list[str], own: set[str]) -> Iterator[Names]:
    """The names as they are, then without each prefix under which a network of so many tensors may lie.

    What training code wraps a network in is called anything: data parallelism, a trainer, a detector, a method.
    """
    plain = {name: name.replace(_COMPILED, "") for name in names}
    yield plain
    parts = [name.split(".") for name in plain.values()]
    under = Counter(".".join(part[:depth]) + "." for part in parts for depth in range(1, len(part)))
    # A quarter of all names, raytl's own for the same tensors among them: it spares the prefixes of single blocks.
    likely = [prefix for prefix, count in under.items() if count >= len(own) / 4]
    for prefix in sorted(likely, key=lambda prefix: bool(_AVERAGED.search(prefix))):
        inside = {old: name.removeprefix(prefix) for old, name in plain.items() if name.startswith(prefix)}
        taken = {*inside.values()}
        yield {old: name for old, name in plain.items() if name in own - taken and old not in inside} | inside


def _state_in(values: Any, depth: int) -> dict[str, Tensor]:
    """The state dict in the values of a file, at most so many levels down; empty where there is none.

    What is nested goes before tensors beside it: a checkpoint may keep figures such as its best accuracy as tensors.
    """
    if not isinstance(values, Mapping) or depth == 0:
        return {}
    nested = (_state_in(values.get(nest), depth - 1) for nest in _NESTS)
    return next((state for state in nested if state), None) or _tensors_of(values)


def _tensors_of(values: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {str(name): value.detach() for name, value in values.items() if isinstance(value, Tensor)}
