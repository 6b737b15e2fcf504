"""Deep CORAL (Sun & Saenko, 2016): match the second-order statistics of the two domains."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from raytl.adaptation.base import ActsOn, AdaptationConfig, AdaptationLoss, Views, adaptation
from raytl.core.dimensions import log_uniform, searchable
from raytl.tasks.task import Role


@dataclass(frozen=True)
class CoralConfig(AdaptationConfig):
    """Settings of Deep CORAL.

    weight: trade-off against the task loss, > 0. Large, because the loss is a mean over d² squared gaps of which most
        are small: about 1e-2 for batch-normalised features.
    """

    weight: float = searchable(30.0, log_uniform(1.0, 1000.0))


@adaptation("coral", config=CoralConfig, needs={Role.SOURCE_DOMAIN, Role.UNLABELLED}, acts_on={ActsOn.FEATURES})
class Coral(AdaptationLoss):
    """Squared Frobenius distance of the feature covariances over 4 d².

    0 for identical covariances, and where a domain has one image only, which has no covariance.
    """

    def forward(self, source: Views | None, target: Views, progress: float) -> Tensor:
        """Scalar >= 0."""
        assert source is not None
        if min(len(source.features), len(target.features)) < 2:
            return 0.0 * (source.features.sum() + target.features.sum())
        d = source.features.shape[1]
        gap = torch.cov(source.features.T) - torch.cov(target.features.T)
        return gap.square().sum() / (4 * d * d)
