"""What the adversarial losses share: gradient reversal, its warm-up, the discriminator and the two-domain risk."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

HIDDEN = 256


def warm_up(progress: float) -> float:
    """Reversal strength 2 / (1 + exp(-10 p)) - 1 at ``progress`` p of the full budget (Ganin & Lempitsky, 2015)."""
    return 2.0 / (1.0 + math.exp(-10.0 * progress)) - 1.0


def reverse_gradient(x: Tensor, strength: float) -> Tensor:
    """``x`` itself; on the way back its gradient is multiplied by ``-strength``."""
    reversed_: Tensor = _Reversal.apply(x, strength)  # type: ignore[no-untyped-call]
    return reversed_


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None


def discriminator(width: int) -> nn.Sequential:
    """(n, width) to one logit a row, shape (n, 1): positive for source. Two hidden layers with batch norm."""
    return nn.Sequential(
        nn.Linear(width, HIDDEN),
        nn.BatchNorm1d(HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, HIDDEN),
        nn.BatchNorm1d(HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, 1),
    )


def domain_risk(source: Tensor, target: Tensor, source_weights: Tensor, target_weights: Tensor) -> Tensor:
    """Binary cross-entropy of telling source (1) from target (0), each domain counting half whatever its size.

    source, target: discriminator logits (n_s,) and (n_t,); weights: likewise, each of mean 1.
    """
    source_risk = binary_cross_entropy_with_logits(source, torch.ones_like(source), source_weights)
    target_risk = binary_cross_entropy_with_logits(target, torch.zeros_like(target), target_weights)
    return 0.5 * (source_risk + target_risk)
