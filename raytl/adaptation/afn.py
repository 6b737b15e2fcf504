"""Stepwise adaptive feature norm (Xu et al., 2019): features of larger norm transfer better, so grow it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from raytl.adaptation.base import ActsOn, AdaptationConfig, AdaptationLoss, Views, adaptation
from raytl.core.dimensions import log_uniform, searchable
from raytl.tasks.task import Role


@dataclass(frozen=True)
class AfnConfig(AdaptationConfig):
    """Settings of adaptive feature norm.

    weight: trade-off against the task loss, > 0. The loss is about 1 at any time and never falls; only its gradient,
        twice the step in every feature direction, means anything.
    step: growth of each norm that the gradient asks for, > 0.
    """

    weight: float = searchable(0.05, log_uniform(1e-3, 1.0))
    step: float = 1.0


@adaptation("afn", config=AfnConfig, needs={Role.UNLABELLED}, acts_on={ActsOn.FEATURES})
class Afn(AdaptationLoss):
    """Mean squared distance of each feature norm from its own present value plus one step.

    Acts on the source domain as well where one takes part.
    """

    config: AfnConfig

    def forward(self, source: Views | None, target: Views, progress: float) -> Tensor:
        """Scalar, the square of the step (for each domain) in value."""
        loss = self._growth(target.features)
        return loss if source is None else loss + self._growth(source.features)

    def _growth(self, features: Tensor) -> Tensor:
        norms = torch.linalg.vector_norm(features, dim=1)
        loss: Tensor = (norms - norms.detach() - self.config.step).square().mean()
        return loss
