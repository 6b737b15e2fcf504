"""Information maximisation (Krause et al., 2010; SHOT, Liang et al., 2020): sure of each image, diverse over all."""

from __future__ import annotations

from torch import Tensor

from raytl.adaptation.base import ActsOn, AdaptationConfig, AdaptationLoss, Views, adaptation
from raytl.adaptation.entropy import entropy, mean_prediction_entropy
from raytl.tasks.task import Role


@adaptation("information-maximisation", config=AdaptationConfig, needs={Role.UNLABELLED}, acts_on={ActsOn.LOGITS})
class InformationMaximisation(AdaptationLoss):
    """Mean entropy of the predictions minus the entropy of their mean, in nats, in [-log k, 0].

    Least where every image is certain and every class equally frequent, so it assumes about uniform target classes.
    """

    def forward(self, source: Views | None, target: Views, progress: float) -> Tensor:
        """Scalar in [-log k, 0]; 0 for a batch of one image."""
        return entropy(target.logits).mean() - mean_prediction_entropy(target.logits)
