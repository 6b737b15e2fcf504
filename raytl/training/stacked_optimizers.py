"""The optimizers of :mod:`raytl.finetuning.optimizers` for stacked heads, each head with settings of its own.

Parameters and gradients are pairs: weights (h, rows, d) and biases (h, rows), which do not decay. Nothing is summed up
across heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from raytl.finetuning.optimizers import ADAM_BETAS, ADAM_EPSILON, MOMENTUM, lr_factor
from raytl.training.averaging import ramp
from raytl.training.strategy import Strategy


class StackedOptimizer:
    """Moves stacked parameters in place, by each strategy's optimizer.

    strategies: one for each head; those with one optimizer stand beside each other. steps: of the whole training.
    """

    def __init__(self, parameters: Sequence[Tensor], strategies: Sequence[Strategy], steps: int) -> None:
        self._parts: list[tuple[slice, _Sgd | _AdamW]] = []
        for name, kind in (("sgd", _Sgd), ("adamw", _AdamW)):
            places = [index for index, strategy in enumerate(strategies) if strategy.optimizer == name]
            if places:
                part = slice(places[0], places[-1] + 1)
                own = [parameter[part] for parameter in parameters]
                self._parts.append((part, kind(own, strategies[part], steps)))

    def step(self, number: int, gradients: Sequence[Tensor]) -> None:
        """The step of that number, from 0."""
        for part, optimizer in self._parts:
            optimizer.step(number, [gradient[part] for gradient in gradients])


class StackedAverage:
    """As :class:`raytl.training.averaging.WeightAverage`, of each head with its own decay; 0 follows the weights."""

    def __init__(self, parameters: tuple[Tensor, Tensor], strategies: Sequence[Strategy]) -> None:
        self._live = parameters
        self._decays = self._live[0].new_tensor([strategy.ema for strategy in strategies])
        self._kept = (self._live[0].clone(), self._live[1].clone()) if self._decays.any() else None
        self._steps = 0

    def update(self) -> None:
        """Take in the weights after a step."""
        if self._kept is None:
            return
        self._steps += 1
        decays = self._decays.clamp(max=ramp(self._steps))
        for kept, live in zip(self._kept, self._live, strict=True):
            kept.mul_(_beside(decays, kept)).add_(live * _beside(1 - decays, live))

    def parameters(self) -> tuple[Tensor, Tensor]:
        """What is evaluated, and left at the end."""
        return self._kept or self._live


class _Settings:
    """Rates (steps, n) and weight decays (n,) of n heads."""

    def __init__(self, strategies: Sequence[Strategy], steps: int, like: Tensor) -> None:
        self.rates = like.new_tensor([
            [s.head_lr * lr_factor(s.schedule, step / steps, s.warmup) for s in strategies] for step in range(steps)
        ])  # fmt: skip
        self.decay = like.new_tensor([strategy.weight_decay for strategy in strategies])


class _Sgd:
    """As :class:`torch.optim.SGD` with Nesterov momentum."""

    def __init__(self, parameters: Sequence[Tensor], strategies: Sequence[Strategy], steps: int) -> None:
        self._parameters = parameters
        self._velocities = [torch.zeros_like(parameter) for parameter in parameters]
        self._settings = _Settings(strategies, steps, parameters[0])

    def step(self, number: int, gradients: Sequence[Tensor]) -> None:
        """As :meth:`StackedOptimizer.step`."""
        rates = self._settings.rates[number]
        for parameter, gradient, velocity in zip(self._parameters, gradients, self._velocities, strict=True):
            if parameter.ndim == 3:
                gradient = gradient + parameter * _beside(self._settings.decay, parameter)
            velocity.mul_(MOMENTUM).add_(gradient)
            parameter.sub_(gradient.add(velocity, alpha=MOMENTUM).mul_(_beside(rates, parameter)))


class _AdamW:
    """As :class:`torch.optim.AdamW`."""

    def __init__(self, parameters: Sequence[Tensor], strategies: Sequence[Strategy], steps: int) -> None:
        self._parameters = parameters
        self._means = [torch.zeros_like(parameter) for parameter in parameters]
        self._squares = [torch.zeros_like(parameter) for parameter in parameters]
        self._settings = _Settings(strategies, steps, parameters[0])

    def step(self, number: int, gradients: Sequence[Tensor]) -> None:
        """As :meth:`StackedOptimizer.step`."""
        first, second = ADAM_BETAS
        rates = self._settings.rates[number]
        step_size = rates / (1 - first ** (number + 1))
        correction = (1 - second ** (number + 1)) ** 0.5
        moments = zip(self._parameters, gradients, self._means, self._squares, strict=True)
        for parameter, gradient, mean, square in moments:
            if parameter.ndim == 3:
                parameter.mul_(_beside(1 - rates * self._settings.decay, parameter))
            mean.mul_(first).add_(gradient, alpha=1 - first)
            square.mul_(second).add_(gradient * gradient, alpha=1 - second)
            parameter.sub_((mean / (square.sqrt() / correction + ADAM_EPSILON)).mul_(_beside(step_size, parameter)))


def _beside(values: Tensor, parameter: Tensor) -> Tensor:
    """One value for each head, (n,), in a shape that multiplies the heads' parameters."""
    return values.view(-1, *[1] * (parameter.ndim - 1))
