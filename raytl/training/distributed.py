"""What a trial needs of its worker group: who it is, and gradients averaged over all workers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import distributed, nn


@dataclass(frozen=True)
class Group:
    """A worker's place in its group; alone by default."""

    rank: int = 0
    size: int = 1

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Mean of the gradients over the group, in one collective call. Every worker must hold the same parameters."""
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= self.size
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))
