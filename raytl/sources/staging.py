"""Cutting a network into stages without changing what it computes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from raytl.core.errors import UserError
from raytl.core.names import few
from raytl.sources.base import Built
from raytl.sources.heads import READS, MlpHead, ZeroShotHead
from raytl.sources.licences import NO_WEIGHTS
from raytl.sources.model import SourceInfo, SourceModel
from raytl.sources.near_heads import near_head
from raytl.tasks.preprocessing import Preprocessing

Stages = list[tuple[str, nn.Module]]
T = TypeVar("T")


@dataclass(frozen=True)
class Staged:
    """A network cut up: ``head(stages[-1](… stages[0](x)))`` is its output; the head reads (n, feature_dim).

    No stage changes its input in place: a cached activation may be handed to it again.
    """

    stages: Stages
    head: nn.Module
    feature_dim: int


class Pool(nn.Module):
    """Mean over the last two axes: (n, d, h, w) to (n, d)."""

    def forward(self, x: Tensor) -> Tensor:
        """The mean over height and width."""
        return x.mean((2, 3))


def untrained_info(model: SourceModel, *, fixed_size: bool) -> SourceInfo:
    """What the catalogue says of a model without learned weights; read from the model, which may be hollow."""
    return SourceInfo(
        uri=model.uri,
        stages=model.stage_names,
        feature_dim=model.feature_dim,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        image_size=model.preprocessing.size,
        fixed_size=fixed_size,
        pretrained=False,
        trainable=model.trainable,
        licence=NO_WEIGHTS,
        batch_norm_stages=batch_norm_stages(model.stages.items()),
    )


def batch_norm_stages(stages: Iterable[tuple[str, nn.Module]]) -> tuple[str, ...]:
    """Names of the stages in which some batch norm keeps running statistics."""
    return tuple(
        name
        for name, stage in stages
        if any(isinstance(layer, _BatchNorm) and layer.running_mean is not None for layer in stage.modules())
    )


def chain(modules: Iterable[nn.Module]) -> nn.Module:
    """The modules one after another; a single one as it is."""
    parts = list(modules)
    return parts[0] if len(parts) == 1 else nn.Sequential(*parts)


def named(groups: Sequence[Sequence[nn.Module]]) -> Stages:
    """Groups of modules as ``stem``, ``stage1``, ``stage2`` and so on."""
    return [("stem" if i == 0 else f"stage{i}", chain(group)) for i, group in enumerate(groups)]


def with_neck(stages: Stages, neck: Sequence[nn.Module]) -> Stages:
    """Add what lies between the last stage and the head.

    A neck without parameters joins the last stage: as a stage of its own it would offer a cut that means the same as
    the one below it.
    """
    if any(True for module in neck for _ in module.parameters()):
        return [*stages, ("neck", chain(neck))]
    name, last = stages[-1]
    return [*stages[:-1], (name, chain([last, *neck]))]


def group_by_stride(blocks: Iterable[nn.Module]) -> list[list[nn.Module]]:
    """Consecutive blocks of one resolution; a block that shrinks its input begins the next group."""
    groups: list[list[nn.Module]] = []
    for block in blocks:
        if not groups or _shrinks(block):
            groups.append([])
        groups[-1].append(block)
    return groups


def group_after_pool(layers: Iterable[nn.Module]) -> list[list[nn.Module]]:
    """Consecutive layers up to and including each max-pooling: the boundary with the fewest numbers to keep."""
    groups: list[list[nn.Module]] = [[]]
    for layer in layers:
        groups[-1].append(layer)
        if isinstance(layer, nn.MaxPool2d):
            groups.append([])
    return [group for group in groups if group]


def quarters(blocks: Sequence[T]) -> list[Sequence[T]]:
    """The blocks in four runs of nearly equal length (fewer where there are not four)."""
    count = min(4, len(blocks))
    bounds = [round(i * len(blocks) / count) for i in range(count + 1)]
    return [blocks[low:high] for low, high in pairwise(bounds)]


def assemble(
    original: dict[str, Tensor],
    staged: Staged,
    *,
    uri: str,
    architecture: str,
    preprocessing: Preprocessing,
    labels: tuple[str, ...] | None = None,
) -> Built:
    """Make the untrained source model of a cut-up network, and the table of its tensors' original names.

    original: the uncut network's ``state_dict(keep_vars=True)``; the stages hold the very same tensors.
    """
    model = SourceModel(
        uri=uri,
        architecture=architecture,
        stages=staged.stages,
        head=staged.head,
        feature_dim=staged.feature_dim,
        preprocessing=preprocessing,
        labels=labels,
    ).eval()
    ours = {id(tensor): name for name, tensor in model.state_dict(keep_vars=True).items()}
    return Built(model, {name: ours[id(tensor)] for name, tensor in original.items() if id(tensor) in ours})


_LATER = ("num_batches_tracked", "head.shares")
"""Ends of names of tensors that older files do without."""


def fit_original(built: Built, state: Mapping[str, Tensor], where: str, *, head_optional: bool = False) -> None:
    """Fill a built model with a state dict in the original network's names, or in raytl's.

    Tensors that only raytl's stages have keep their values. head_optional: weights without any classifier leave the
    model's own, untrained one. Raises UserError like :func:`fit`, with the original names.
    """
    model, renames = built.model, built.renames
    originals = set(renames.values())
    expected = model.state_dict()
    own = {name: value for name, value in expected.items() if originals and name not in originals}
    given = {renames.get(name, name): value for name, value in state.items()}
    if head_optional and not any(name.startswith("head.") for name in given):
        given |= {name: value for name, value in expected.items() if name.startswith("head.")}
    fit(model, own | given, where, {ours: theirs for theirs, ours in renames.items()})


def fit(model: SourceModel, state: dict[str, Tensor], where: str, shown: Mapping[str, str] | None = None) -> None:
    """Fill ``model`` with ``state`` (its own names), after making its head as wide as the state's.

    shown: what to call a tensor in messages, where not as it is called here.
    Raises UserError that tells which tensors are missing, unknown or of another shape: how many, and the first of them.
    """
    _widen_head(model, state)
    expected = model.state_dict()
    # Files from before torch 0.4.1 have no such counters, and nothing is computed from them; heads on all stages
    # in bundles of format 3 have no shares, which were equal.
    missing = [name for name in expected if name not in state and not name.endswith(_LATER)]
    unknown = [name for name in state if name not in expected]
    odd = [name for name, tensor in state.items() if name in expected and not _alike(tensor, expected[name])]
    if missing or unknown or odd:
        names = shown or {}
        shapes = [
            f"'{names.get(name, name)}' has shape {tuple(state[name].shape)}, not {tuple(expected[name].shape)}"
            for name in odd
        ]
        findings = [
            _listed("missing", [f"'{names.get(name, name)}'" for name in missing]),
            _listed("unexpected", [f"'{name}'" for name in unknown]),
            _listed("of another shape or kind", shapes),
        ]
        raise UserError(
            f"{where}: the weights do not fit {model.architecture} of {len(expected)} tensors: "
            f"{'; '.join(finding for finding in findings if finding)}; give the matching architecture"
        )
    model.load_state_dict({**expected, **state})


def _alike(tensor: Tensor, expected: Tensor) -> bool:
    return tensor.shape == expected.shape and tensor.is_floating_point() == expected.is_floating_point()


def _listed(what: str, items: list[str]) -> str:
    """``2 missing ('a', 'b')``, with the first three of many; nothing for none."""
    if not items:
        return ""
    return f"{len(items)} {what} ({few(items)})"


def _widen_head(model: SourceModel, state: Mapping[str, Tensor]) -> None:
    """Give the model the kind and width of head that the state has; one on other features is left for fit to refuse."""
    matches = (re.fullmatch(r"head\.parts\.(\d+)\.weight", name) for name in state)
    numbered = sorted((int(match[1]), match[0]) for match in matches if match is not None)
    parts = [state[name] for _, name in numbered]
    if parts:
        if all(part.ndim == 2 and part.shape[0] == parts[0].shape[0] > 0 for part in parts):
            _stages_head(model, parts)
        return
    embedded = state.get("head.names")
    if embedded is not None:
        if embedded.ndim == 2 and len(embedded):
            model.head = ZeroShotHead(model.feature_dim, len(embedded), int(embedded.shape[1]))
        return
    buffers = {name.removeprefix("head."): tuple(own.shape) for name, own in state.items() if name.startswith("head.")}
    near = near_head(buffers)
    if near is not None:
        if buffers["centre"] == (model.feature_dim,):
            model.head = near
        return
    hidden, output = (state.get(f"head.{layer}.weight") for layer in ("hidden", "output"))
    weight = state.get("head.weight", hidden)
    if weight is None or weight.ndim != 2 or weight.shape[1] != model.feature_dim or not weight.shape[0]:
        return
    if hidden is not None:
        classes = int(output.shape[0]) if output is not None and output.ndim else 1  # fit says what is wrong with it
        model.head = MlpHead(model.feature_dim, classes, int(hidden.shape[0]))
        return
    bias = "head.bias" in state
    head = model.head
    if isinstance(head, nn.Linear) and head.out_features == weight.shape[0] and (head.bias is not None) == bias:
        return
    # Its values are about to be overwritten: drawing them would only move the generator on.
    model.head = nn.utils.skip_init(nn.Linear, model.feature_dim, int(weight.shape[0]), bias=bias)  # type: ignore[no-untyped-call]


def _stages_head(model: SourceModel, weights: Sequence[Tensor]) -> None:
    """A head for weights of one or more layers on each stage; none where they are for other stages."""
    given = [int(weight.shape[1]) for weight in weights]
    outputs = int(weights[0].shape[0])
    for reads in READS:
        widths, _, places = model.stage_parts(reads=reads)
        read = [width // count for width, count in zip(widths, places, strict=True)]
        members = len(given) // len(read)
        if members and given == read * members:
            model.head = model.stages_head(outputs, members, reads=reads)
            return


def _shrinks(block: nn.Module) -> bool:
    for module in block.modules():
        stride = getattr(module, "stride", 1) if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) else 1
        if (stride if isinstance(stride, int) else max(stride)) > 1:
            return True
    return False
