"""Learning-rate groups, optimizers and schedules."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
MOMENTUM = 0.9
ADAM_BETAS = (0.9, 0.999)
ADAM_EPSILON = 1e-8
SCHEDULES = ("cosine", "constant", "inverse")

Tensors = list[Tensor]


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


class Optimizer(ABC):
    """Torch's fused optimizer steps over parameters in any memory layout.

    The fused kernels copy what is not contiguous, which takes them as long as the step itself, and the weights of
    convolutions lie channels last. So they are given the same memory in the order in which it lies. Torch's functions
    are called rather than its optimizer objects, which import its compiler: more than a second in every lane.

    parameters: as the modules have them. param_groups: as :func:`parameter_groups` gives them; rates may be changed
    there.
    """

    def __init__(self, groups: Sequence[dict[str, Any]]) -> None:
        self.param_groups: list[dict[str, Any]] = [dict(group) for group in groups]
        self.parameters: list[nn.Parameter] = [parameter for group in groups for parameter in group["params"]]
        self._places = {parameter: _in_memory_order(parameter.detach(), parameter) for parameter in self.parameters}
        self._states: dict[nn.Parameter, tuple[Tensor, ...]] = {}

    def zero_grad(self) -> None:
        """Forget the gradients. By hand, for torch's own takes longer than the gradient of a linear head."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move against the gradients; a parameter without one stays."""
        for group in self.param_groups:
            gradients = {p: _in_memory_order(p.grad, p) for p in group["params"] if p.grad is not None}
            for parameter in gradients.keys() - self._states.keys():
                self._states[parameter] = self._start(self._places[parameter])
            if gradients:
                places = [self._places[parameter] for parameter in gradients]
                states = [list(each) for each in zip(*(self._states[p] for p in gradients), strict=True)]
                self._move(places, list(gradients.values()), states, group)

    @abstractmethod
    def _start(self, parameter: Tensor) -> tuple[Tensor, ...]:
        """What is remembered of a parameter, before its first step."""

    @abstractmethod
    def _move(self, parameters: Tensors, gradients: Tensors, states: list[Tensors], group: Mapping[str, Any]) -> None:
        """Change parameters and states in place. states: one list for each thing that is remembered."""


class Sgd(Optimizer):
    """Stochastic gradient descent with Nesterov momentum 0.9."""

    def _start(self, parameter: Tensor) -> tuple[Tensor, ...]:
        return (torch.zeros_like(parameter),)

    def _move(self, parameters: Tensors, gradients: Tensors, states: list[Tensors], group: Mapping[str, Any]) -> None:
        sgd(
            parameters,
            gradients,
            list[Tensor | None](states[0]),
            fused=True,
            weight_decay=group["weight_decay"],
            momentum=MOMENTUM,
            lr=group["lr"],
            dampening=0.0,
            nesterov=True,
            maximize=False,
        )


class AdamW(Optimizer):
    """AdamW (Loshchilov & Hutter, 2019) with betas 0.9 and 0.999."""

    def _start(self, parameter: Tensor) -> tuple[Tensor, ...]:
        return torch.zeros_like(parameter), torch.zeros_like(parameter), torch.zeros((), device=parameter.device)

    def _move(self, parameters: Tensors, gradients: Tensors, states: list[Tensors], group: Mapping[str, Any]) -> None:
        means, squares, steps = states
        adamw(
            parameters,
            gradients,
            means,
            squares,
            [],
            steps,
            fused=True,
            amsgrad=False,
            beta1=ADAM_BETAS[0],
            beta2=ADAM_BETAS[1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=ADAM_EPSILON,
            maximize=False,
        )


_OPTIMIZERS: dict[str, type[Optimizer]] = {"adamw": AdamW, "sgd": Sgd}
OPTIMIZERS = tuple(sorted(_OPTIMIZERS, reverse=True))


def build_optimizer(name: str, groups: list[dict[str, Any]]) -> Optimizer:
    """``sgd`` (Nesterov, momentum 0.9) or ``adamw`` (betas 0.9 and 0.999) over the groups of :func:`parameter_groups`.

    Raises ValueError for an unknown name.
    """
    if name in _OPTIMIZERS:
        return _OPTIMIZERS[name](groups)
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


def _in_memory_order(tensor: Tensor, parameter: nn.Parameter) -> Tensor:
    """A parameter's memory, or its gradient, as a contiguous tensor where the parameter lies channels last."""
    if parameter.is_contiguous() or not parameter.is_contiguous(memory_format=torch.channels_last):
        return tensor
    return tensor.permute(0, 2, 3, 1)


def _parameters(module: nn.Module) -> Iterator[tuple[nn.Parameter, bool]]:
    """All parameters of ``module``, each with whether weight decay applies to it."""
    for layer in module.modules():
        for name, parameter in layer.named_parameters(recurse=False):
            yield parameter, not (isinstance(layer, _NORMS) or parameter.ndim <= 1 or name.endswith("bias"))
