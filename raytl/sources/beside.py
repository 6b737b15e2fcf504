"""What a file of weights holds beside a network's own, or in another form: sorted out before they are fitted."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from raytl.core.names import few

_OF_A_TRAINING = re.compile(
    r"(?:heads?|fc|classifier|linear|last_linear|logits|mask_token"
    r"|(?:proj|predict|prototype|contrast|decoder|aux|queue|criterion|loss|train_|val_|test_)\w*)",
    re.IGNORECASE,
)
"""What the parts of a network are called that only its training has: classifiers of all sorts, a decoder, a loss."""
_POSITIONS = re.compile(r"(?:.*\.)?pos_embed(?:ding)?")
_TOKENS_BESIDE = (0, 1, 2, 5)
"""How many positions there are beside those of patches: of class tokens, and of registers."""
_LATER = "num_batches_tracked"
"""End of names of tensors that older files do without."""


@dataclass(frozen=True)
class Network:
    """What a network's tensors are called outside raytl, each with its values before it learned anything.

    head: names of its classifier. feature_dim: what that reads.
    """

    tensors: Mapping[str, Tensor]
    head: Collection[str]
    feature_dim: int

    @property
    def backbone(self) -> list[str]:
        """Names of all but the classifier."""
        return [name for name in self.tensors if name not in self.head]


@dataclass
class Sorted:
    """Weights that the network has a place for, and sentences about what was done to the others."""

    state: dict[str, Tensor]
    notes: list[str] = field(default_factory=list)


def sort_out(state: Mapping[str, Tensor], network: Network) -> Sorted:
    """Weights in a network's own names without what belongs to their training only, and with positions for its size.

    Left out are other classifiers than a linear one on the network's features and what training alone has, but only
    beside a whole backbone, and never anything that might be a further part of one: that is for the fit to refuse.
    """
    found = Sorted(dict(state))
    _resample(found, network)
    _pass_on(found, network)
    if all(name in found.state or name.endswith(_LATER) for name in network.backbone):
        _sort_head(found, network)
        _leave_out(found, [name for name in found.state if _is_extra(name, network)])
    return found


def _is_extra(name: str, network: Network) -> bool:
    parts = {own.partition(".")[0] for own in network.tensors}
    part = name.partition(".")[0]
    return name not in network.tensors and part not in parts and _OF_A_TRAINING.fullmatch(part) is not None


def _leave_out(found: Sorted, names: list[str]) -> None:
    for name in names:
        del found.state[name]
    if names:
        parts = dict.fromkeys(name.rpartition(".")[0] or name for name in names)
        found.notes.append(f"left out of its weights, as no part of the network: {few(list(parts))}")


def _beside_backbone(found: Sorted, network: Network) -> list[str]:
    """What the file has where the network has its classifier, as far as it is not of the backbone."""
    backbone, places = set(network.backbone), {name.partition(".")[0] for name in network.head}
    return [name for name in found.state if name.partition(".")[0] in places and name not in backbone]


def _sort_head(found: Sorted, network: Network) -> None:
    """The classifier under the network's own name if it is a linear layer on its features; another one is left out."""
    given = _beside_backbone(found, network)
    if set(given) <= set(network.head):
        return
    layers = [name for name in given if found.state[name].ndim == 2]
    own = next((name for name in network.head if name.endswith("weight")), None)
    bias = layers[0].removesuffix("weight") + "bias" if layers else ""
    single = len(layers) == 1 and set(given) <= {layers[0], bias}
    if single and own is not None and found.state[layers[0]].shape[1] == network.feature_dim:
        weight, values = found.state.pop(layers[0]), found.state.pop(bias, None)
        found.state |= {own: weight} | ({} if values is None else {own.removesuffix("weight") + "bias": values})
    else:
        _leave_out(found, given)


def _pass_on(found: Sorted, network: Network) -> None:
    """Layers that raytl counts among a network's, where a classifier was put in their place that reads what they do.

    Such as the first of the two in MobileNetV3's classifier: it has to be there, so it hands on what it is given.
    """
    places = {name.partition(".")[0] for name in network.head}
    missing = [name for name in network.backbone if name not in found.state and not name.endswith(_LATER)]
    layers = [name for name in missing if network.tensors[name].ndim == 2]
    read = {found.state[name].shape[1] for name in _beside_backbone(found, network) if found.state[name].ndim == 2}
    if not layers or any(name.partition(".")[0] not in places for name in missing):
        return
    outputs, inputs = network.tensors[layers[0]].shape
    if len(layers) > 1 or inputs > outputs or inputs not in read:
        return
    found.state |= {name: torch.zeros_like(network.tensors[name]) for name in missing}
    found.state[layers[0]] = torch.eye(outputs, inputs)
    layer = layers[0].rpartition(".")[0]
    found.notes.append(
        f"has no weights for '{layer}', in whose place its classifier was; that hands on what it is given"
    )


def _resample(found: Sorted, network: Network) -> None:
    """Positions of a vision transformer for as many patches as it is built for, as timm does it."""
    for name in [name for name in found.state if _POSITIONS.fullmatch(name) and name in network.tensors]:
        given, own = found.state[name], network.tensors[name]
        before, after = _grid(given), _grid(own)
        if before is None or after is None or before == after or before[0] != after[0]:
            continue
        if given.shape[2] != own.shape[2]:
            continue
        beside, grid = given.float().split([before[0], before[1] ** 2], dim=1)
        grid = grid.reshape(1, before[1], before[1], -1).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, size=(after[1], after[1]), mode="bicubic", antialias=True)
        found.state[name] = torch.cat([beside, grid.flatten(2).transpose(1, 2)], dim=1)
        found.notes.append(f"its positions for {before[1]} x {before[1]} patches were resampled for {after[1]} a side")


def _grid(positions: Tensor) -> tuple[int, int] | None:
    """How many positions (1, n, d) are of no patch, and the patches a side; None where these are no square."""
    if positions.ndim != 3 or positions.shape[0] != 1:
        return None
    counts = ((beside, positions.shape[1] - beside) for beside in _TOKENS_BESIDE)
    return next(((beside, math.isqrt(n)) for beside, n in counts if n > 0 and math.isqrt(n) ** 2 == n), None)
