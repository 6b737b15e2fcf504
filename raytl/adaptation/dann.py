"""DANN (Ganin et al., 2016): features from which a discriminator cannot tell the domains apart."""

from __future__ import annotations

import torch
from torch import Tensor

from raytl.adaptation.adversarial import discriminator, domain_risk, reverse_gradient, warm_up
from raytl.adaptation.base import ActsOn, AdaptationConfig, AdaptationLoss, Views, adaptation
from raytl.tasks.task import Role


@adaptation("dann", config=AdaptationConfig, needs={Role.SOURCE_DOMAIN, Role.UNLABELLED}, acts_on={ActsOn.FEATURES})
class Dann(AdaptationLoss):
    """Risk of a domain discriminator behind gradient reversal, about log 2 = 0.69 for identical domains.

    The discriminator learns to lower it from the first step; what reaches the features is reversed and grows with the
    training progress from 0 to full strength.
    """

    def __init__(self, config: AdaptationConfig, feature_dim: int, num_classes: int) -> None:
        super().__init__(config, feature_dim, num_classes)
        self.discriminator = discriminator(feature_dim)

    def forward(self, source: Views | None, target: Views, progress: float) -> Tensor:
        """Scalar > 0."""
        assert source is not None
        n = len(source.features)
        features = reverse_gradient(torch.cat([source.features, target.features]), warm_up(progress))
        # One pass for both domains: batch norm must not normalise away what tells them apart.
        logits = self.discriminator(features).squeeze(1)
        ones = torch.ones_like(logits)
        return domain_risk(logits[:n], logits[n:], ones[:n], ones[n:])
