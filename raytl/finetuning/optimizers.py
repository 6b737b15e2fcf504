"""Learning-rate groups, optimizers and schedules."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
OPTIMIZERS = ("sgd", "adamw")
MOMENTUM = 0.9
ADAM_BETAS = (0.9, 0.999)
ADAM_EPSILON = 1e-8
SCHEDULES = ("cosine", "constant", "inverse")


def parameter_groups(
    stages: Sequence[nn.Module],
    cut: int,
    head_modules: Sequence[nn.Module],
    *,
    head_lr: float,
    backbone_ratio: float,
    weight_decay: float,
) -> list[dict[str, Any]]:
    """Trainable parameters in up to four groups: head or backbone, each with and without weight decay.

    head_modules: the head and whatever trains at its rate (an adaptation loss's discriminator).
    Norm layers, biases and other vectors are not decayed. Frozen parameters and ``stages[:cut]`` are left out; a
    parameter that occurs twice belongs to its first group, empty groups do not occur. Each group has ``params``,
    ``lr``, ``initial_lr`` (the peak rate, which :func:`set_progress` scales), ``weight_decay`` and ``name``.
    """
    groups: list[dict[str, Any]] = []
    taken: set[int] = set()
    parts = (("head", head_modules, head_lr), ("backbone", stages[cut:], head_lr * backbone_ratio))
    for part, modules, lr in parts:
        decayed: list[nn.Parameter] = []
        plain: list[nn.Parameter] = []
        for module in modules:
            for parameter, decays in _parameters(module):
                if parameter.requires_grad and id(parameter) not in taken:
                    taken.add(id(parameter))
                    (decayed if decays else plain).append(parameter)
        for name, parameters, decay in ((part, decayed, weight_decay), (f"{part}-no-decay", plain, 0.0)):
            if parameters:
                groups.append({"params": parameters, "lr": lr, "initial_lr": lr, "weight_decay": decay, "name": name})
    return groups


class Optimizer:
    """A fused torch optimizer over parameters in any memory layout.

    The fused kernels copy what is not contiguous, which takes them as long as the step itself, and the weights of
    convolutions lie channels last. So they are given the same memory in the order in which it lies.

    parameters: as the modules have them. param_groups: the torch optimizer's; rates may be changed there.
    """

    def __init__(
        self, kind: Callable[..., torch.optim.Optimizer], groups: Sequence[dict[str, Any]], **options: Any
    ) -> None:
        self.parameters: list[nn.Parameter] = [parameter for group in groups for parameter in group["params"]]
        stepped = {id(parameter): _in_memory_order(parameter) for parameter in self.parameters}
        self._views = [(p, stepped[id(p)]) for p in self.parameters if stepped[id(p)] is not p]
        listed = [{**group, "params": [stepped[id(p)] for p in group["params"]]} for group in groups]
        self._inner = kind(listed, fused=True, **options)
        self.param_groups: list[dict[str, Any]] = self._inner.param_groups

    def zero_grad(self) -> None:
        """Forget the gradients. By hand, for torch's own takes longer than the gradient of a linear head."""
        for parameter in self.parameters:
            parameter.grad = None

    def step(self) -> None:
        """Move against the gradients; a parameter without one stays."""
        for parameter, view in self._views:
            view.grad = None if parameter.grad is None else parameter.grad.permute(0, 2, 3, 1)
        self._inner.step()


def build_optimizer(name: str, groups: list[dict[str, Any]]) -> Optimizer:
    """``sgd`` (Nesterov, momentum 0.9) or ``adamw`` (betas 0.9 and 0.999) over the groups of :func:`parameter_groups`.

    Raises ValueError for an unknown name.
    """
    if name == "sgd":
        return Optimizer(torch.optim.SGD, groups, momentum=MOMENTUM, nesterov=True)
    if name == "adamw":
        return Optimizer(torch.optim.AdamW, groups, betas=ADAM_BETAS, eps=ADAM_EPSILON)
    raise ValueError(f"unknown optimizer '{name}'; known are {', '.join(OPTIMIZERS)}")


def lr_factor(schedule: str, progress: float, warmup: float) -> float:
    """Share of the peak learning rate at ``progress`` of the full training budget, both in [0, 1].

    The rate rises linearly over the first ``warmup`` share, from a hundredth so that no step is wasted; then
    ``cosine`` falls to 0, ``constant`` stays, ``inverse`` is (1 + 10 p)^-0.75 (Ganin & Lempitsky, 2015).
    Raises ValueError for an unknown schedule.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"unknown schedule '{schedule}'; known are {', '.join(SCHEDULES)}")
    progress = min(max(progress, 0.0), 1.0)
    if progress < warmup:
        return 0.01 + 0.99 * progress / warmup
    after = (progress - warmup) / (1.0 - warmup) if warmup < 1.0 else 0.0
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * after))
    if schedule == "inverse":
        return float((1.0 + 10.0 * after) ** -0.75)
    return 1.0


def set_progress(optimizer: Optimizer, schedule: str, progress: float, warmup: float) -> None:
    """Set every group's rate to its share of its peak at ``progress``."""
    factor = lr_factor(schedule, progress, warmup)
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def _in_memory_order(parameter: nn.Parameter) -> nn.Parameter:
    """The parameter itself, or where it lies channels last another one on the same memory, contiguous."""
    if parameter.is_contiguous() or not parameter.is_contiguous(memory_format=torch.channels_last):
        return parameter
    return nn.Parameter(parameter.detach().permute(0, 2, 3, 1))


def _parameters(module: nn.Module) -> Iterator[tuple[nn.Parameter, bool]]:
    """All parameters of ``module``, each with whether weight decay applies to it."""
    for layer in module.modules():
        for name, parameter in layer.named_parameters(recurse=False):
            yield parameter, not (isinstance(layer, _NORMS) or parameter.ndim <= 1 or name.endswith("bias"))
