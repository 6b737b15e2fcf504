"""Batch nuclear-norm maximisation (Cui et al., 2020): discriminable and diverse target predictions in one term."""

from __future__ import annotations

import torch
from torch import Tensor

from raytl.adaptation.base import ActsOn, AdaptationConfig, AdaptationLoss, Views, adaptation
from raytl.tasks.task import Role


@adaptation("bnm", config=AdaptationConfig, needs={Role.UNLABELLED}, acts_on={ActsOn.LOGITS})
class Bnm(AdaptationLoss):
    """Minus the nuclear norm of the batch's softmax matrix over the number of images.

    In [-min(1, sqrt(k / n)), 0): least where every image is certain and the classes are equally frequent.
    """

    def forward(self, source: Views | None, target: Views, progress: float) -> Tensor:
        """Scalar < 0."""
        p = torch.softmax(target.logits, dim=1)
        loss: Tensor = -torch.linalg.svdvals(p).sum() / len(p)
        return loss
