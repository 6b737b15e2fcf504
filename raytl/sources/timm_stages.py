"""Where timm's networks are cut: by what their parts are called, and only where that provably changes nothing."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from itertools import chain as concatenate
from typing import Any

import torch
from torch import Tensor, nn

from raytl.core.errors import UserError
from raytl.sources.staging import Staged, Stages, chain, named, quarters, with_neck

_CONTAINERS = ("blocks", "stages", "layers", "features")
_STAGE = re.compile(r"(?:layer|s|stage|denseblock)\d+")
_AFTER_STAGE = re.compile(r"transition\d+")


class ViTStem(nn.Module):
    """Patches, positions and tokens: the part of timm's vision transformer ahead of its blocks."""

    def __init__(self, vit: Any) -> None:
        super().__init__()
        self.vit = _shell(vit, without=("blocks", "norm", "fc_norm", "head_drop", "head", "attn_pool"))

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, s, s) to (n, tokens, d)."""
        vit: Any = self.vit
        tokens: Tensor = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(x))))
        return tokens


class ViTNeck(nn.Module):
    """Norm and pooling: the part of timm's vision transformer between its blocks and its head."""

    def __init__(self, vit: Any) -> None:
        super().__init__()
        self.vit = _shell(vit, without=("patch_embed", "pos_drop", "patch_drop", "norm_pre", "blocks", "head"))
        self.vit._parameters = {}

    def forward(self, x: Tensor) -> Tensor:
        """(n, tokens, d) to (n, d)."""
        vit: Any = self.vit
        features: Tensor = vit.head_drop(vit.fc_norm(vit.pool(vit.norm(x))))
        return features


def stages_of(network: Any, where: str, *, cut: bool = True) -> Staged:
    """Cut a timm network; its classifier is taken off it.

    cut: False leaves the network in one stage, which is right for every network.
    Raises UserError where the classifier is not one linear layer.
    """
    head = network.get_classifier()
    if not isinstance(head, nn.Linear | nn.Identity):
        raise UserError(f"{where}: its classifier is not one linear layer, so it has no features; choose another model")
    feature_dim = head.in_features if isinstance(head, nn.Linear) else int(network.head_hidden_size)
    network.reset_classifier(0)
    stages = _by_name(network) if cut else None
    return Staged(stages or [("network", network)], head, feature_dim)


@torch.no_grad()
def is_exact(network: Any, staged: Staged, size: int) -> bool:
    """Whether the stages compute what the network does, without touching their inputs.

    network: untrained and without its classifier; its weights are changed. size: side of a trial input, pixels.
    """
    for parameter in network.parameters():  # zeros, as some layers begin with, would hide a difference
        parameter.add_(torch.randn_like(parameter), alpha=0.02)
    network.eval()
    x = torch.randn(2, 3, size, size)
    expected = network(x)
    for _, stage in staged.stages:
        before = x.clone()
        try:
            x, given = stage.eval()(x), x
        except (RuntimeError, TypeError, AttributeError, ValueError, AssertionError, NotImplementedError):
            return False  # the parts do not fit onto one another: the network is no plain sequence
        if not isinstance(x, Tensor) or not torch.equal(given, before):
            return False
    return x.shape == expected.shape and torch.allclose(x, expected, rtol=1e-4, atol=1e-5)


def _by_name(network: Any) -> Stages | None:
    from timm.models.vision_transformer import VisionTransformer

    if isinstance(network, VisionTransformer):
        groups: list[list[nn.Module]] = [[ViTStem(network)], *map(list, quarters(list(network.blocks)))]
        return with_neck(named(groups), [ViTNeck(network)])
    stem: list[nn.Module] = []
    body: list[list[nn.Module]] = []
    neck: list[nn.Module] = []
    for name, part, is_stage in _parts(network):
        if isinstance(part, nn.Identity):
            continue
        if is_stage:
            body.append([*neck, part])
            neck = []
        elif body and _AFTER_STAGE.fullmatch(name):
            body[-1].append(part)
        else:
            (neck if body else stem).append(part)
    if not stem or len(body) < 2:
        return None
    if len(body) > 8:
        body = [list(concatenate.from_iterable(run)) for run in quarters(body)]
    return with_neck(named([[chain(stem)], *body]), neck)


def _parts(network: nn.Module) -> Iterable[tuple[str, nn.Module, bool]]:
    for name, part in network.named_children():
        if name in _CONTAINERS and isinstance(part, nn.Sequential | nn.ModuleList):
            inner = list(part.named_children())
            plain = any(_STAGE.fullmatch(key) for key, _ in inner)
            yield from ((key, module, not plain or bool(_STAGE.fullmatch(key))) for key, module in inner)
        else:
            yield name, part, bool(_STAGE.fullmatch(name))


def _shell(module: nn.Module, without: tuple[str, ...]) -> nn.Module:
    """The same module object by behaviour and tensors, lacking some of its children."""
    shell = copy.copy(module)
    shell._parameters = dict(module._parameters)
    shell._buffers = dict(module._buffers)
    shell._modules = {name: child for name, child in module._modules.items() if name not in without}
    return shell
