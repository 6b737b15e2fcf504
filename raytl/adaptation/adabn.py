"""AdaBN (Li et al., 2016): batch-norm statistics of the target domain, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from raytl.adaptation.base import ActsOn, AdaptationConfig, AdaptationLoss, Views, adaptation
from raytl.tasks.task import Role


@dataclass(frozen=True)
class AdaBNConfig(AdaptationConfig):
    """AdaBN has no settings: ``weight`` is not searched and has no effect."""

    weight: float = 1.0


@adaptation("adabn", config=AdaBNConfig, needs={Role.UNLABELLED}, acts_on={ActsOn.BATCH_NORM})
class AdaBN(AdaptationLoss):
    """No loss: the training loop re-estimates the batch-norm statistics on unlabelled images once training is over."""

    gradient_free = True
    recalibrates_norm = True

    def forward(self, source: Views | None, target: Views, progress: float) -> Tensor:
        """Zero."""
        return target.logits.new_zeros(())
