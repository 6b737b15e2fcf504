"""Exponential moving average of a network's weights (Polyak averaging), batch-norm statistics included."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def ramp(steps: int) -> float:
    """The largest decay after so many steps: from 0 to 1, so that the first ones, far from the goal, are forgotten."""
    return (1 + steps) / (10 + steps)


class WeightAverage:
    """Keeps an average of the trainable parameters and the float buffers of some modules.

    decay: share of the old average kept per step, at most :func:`ramp` of the steps so far.
    """

    def __init__(self, modules: list[nn.Module], decay: float) -> None:
        self.decay = decay
        self._steps = 0
        self._live: list[Tensor] = []
        for module in modules:
            self._live += [parameter for parameter in module.parameters() if parameter.requires_grad]
            self._live += [buffer for buffer in module.buffers() if buffer.is_floating_point()]
        self._average = [tensor.detach().clone() for tensor in self._live]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after an optimizer step."""
        self._steps += 1
        decay = min(self.decay, ramp(self._steps))
        torch._foreach_lerp_(self._average, [tensor.detach() for tensor in self._live], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The averaged weights inside the block, the live ones again after it."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for live, average in zip(self._live, self._average, strict=True):
            kept = live.detach().clone()
            live.copy_(average)
            average.copy_(kept)

    @torch.no_grad()
    def apply(self) -> None:
        """Leave the averaged weights in place for good."""
        for live, average in zip(self._live, self._average, strict=True):
            live.copy_(average)
