"""Minimum class confusion (Jin et al., 2020): target predictions that do not waver between pairs of classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from raytl.adaptation.base import ActsOn, AdaptationConfig, AdaptationLoss, Views, adaptation
from raytl.adaptation.entropy import certainty_weights
from raytl.core.dimensions import log_uniform, searchable
from raytl.tasks.task import Role


@dataclass(frozen=True)
class MccConfig(AdaptationConfig):
    """Settings of minimum class confusion.

    temperature: softens the predictions before they are compared, > 0.
    """

    temperature: float = searchable(2.5, log_uniform(0.5, 5.0))


@adaptation("mcc", config=MccConfig, needs={Role.UNLABELLED}, acts_on={ActsOn.LOGITS})
class Mcc(AdaptationLoss):
    """Mean share of confusion with other classes, in [0, 1)."""

    config: MccConfig

    def forward(self, source: Views | None, target: Views, progress: float) -> Tensor:
        """Scalar in [0, 1)."""
        return class_confusion(target.logits, self.config.temperature)


def class_confusion(logits: Tensor, temperature: float) -> Tensor:
    """Off-diagonal share of the certainty-weighted class confusion PᵀwP, mean over the k classes (paper, eq. 2-6).

    logits: (n, k). A class that nobody predicts contributes nothing.
    """
    logits = logits / temperature
    p = torch.softmax(logits, dim=1)
    confusion = (p * certainty_weights(logits)[:, None]).T @ p
    shares = confusion / confusion.sum(dim=1, keepdim=True).clamp_min(torch.finfo(p.dtype).tiny)
    return (shares.sum() - shares.diagonal().sum()) / shares.shape[0]
