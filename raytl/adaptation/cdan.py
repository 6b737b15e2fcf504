"""CDAN+E (Long et al., 2018): a domain discriminator that sees features and predictions multiplied together."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from raytl.adaptation.adversarial import discriminator, domain_risk, reverse_gradient, warm_up
from raytl.adaptation.base import ActsOn, AdaptationConfig, AdaptationLoss, Views, adaptation
from raytl.adaptation.entropy import certainty_weights
from raytl.tasks.task import Role

MAP_WIDTH = 1024
"""Products more than 4 times as wide go through a fixed random map to this width (paper, eq. 6)."""


@adaptation("cdan", config=AdaptationConfig, needs={Role.SOURCE_DOMAIN, Role.UNLABELLED}, acts_on={ActsOn.FEATURES})
class Cdan(AdaptationLoss):
    """Risk of a discriminator on softmax ⊗ features behind gradient reversal, certain predictions weighing more.

    No gradient flows into the predictions; reversal grows with the training progress as in DANN.
    """

    features_map: Tensor | None
    classes_map: Tensor | None

    def __init__(self, config: AdaptationConfig, feature_dim: int, num_classes: int) -> None:
        super().__init__(config, feature_dim, num_classes)
        width = feature_dim * num_classes
        randomised = width > 4 * MAP_WIDTH
        self.register_buffer("features_map", torch.randn(feature_dim, MAP_WIDTH) if randomised else None)
        self.register_buffer("classes_map", torch.randn(num_classes, MAP_WIDTH) if randomised else None)
        self.discriminator = discriminator(MAP_WIDTH if randomised else width)

    def forward(self, source: Views | None, target: Views, progress: float) -> Tensor:
        """Scalar > 0."""
        assert source is not None
        n = len(source.features)
        features = reverse_gradient(torch.cat([source.features, target.features]), warm_up(progress))
        predictions = torch.softmax(torch.cat([source.logits, target.logits]).detach(), dim=1)
        logits = self.discriminator(self._combine(features, predictions)).squeeze(1)
        return domain_risk(logits[:n], logits[n:], certainty_weights(source.logits), certainty_weights(target.logits))

    def _combine(self, features: Tensor, predictions: Tensor) -> Tensor:
        if self.features_map is None or self.classes_map is None:
            return (predictions[:, :, None] * features[:, None, :]).flatten(1)
        return (features @ self.features_map) * (predictions @ self.classes_map) / math.sqrt(MAP_WIDTH)
