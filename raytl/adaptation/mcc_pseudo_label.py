"""Minimum class confusion and pseudo-labels together.

The first settles the doubtful images, the second makes the settled ones hold under strong augmentation.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from raytl.adaptation.base import ActsOn, AdaptationConfig, AdaptationLoss, Views, adaptation
from raytl.adaptation.mcc import class_confusion
from raytl.adaptation.pseudo_label import confident_cross_entropy, ramp
from raytl.core.dimensions import log_uniform, searchable, uniform
from raytl.tasks.task import Role


@dataclass(frozen=True)
class MccPseudoLabelConfig(AdaptationConfig):
    """Settings of the combination.

    temperature: as in ``mcc``. threshold: as in ``pseudo-label``. consistency: weight of the pseudo-label part over the
        confusion part, > 0. ramp: share of the budget over which both grow to full strength.
    """

    temperature: float = searchable(2.5, log_uniform(0.5, 5.0))
    threshold: float = searchable(0.9, uniform(0.7, 0.99))
    consistency: float = searchable(1.0, log_uniform(0.3, 3.0))
    ramp: float = 0.2


@adaptation("mcc-pseudo-label", config=MccPseudoLabelConfig, needs={Role.UNLABELLED}, acts_on={ActsOn.LOGITS})
class MccPseudoLabel(AdaptationLoss):
    """Class confusion of the weak view plus the strong view's cross-entropy against confident predictions.

    Jin et al. (2020) and Sohn et al. (2020).
    """

    wants_strong_view = True
    config: MccPseudoLabelConfig

    def forward(self, source: Views | None, target: Views, progress: float) -> Tensor:
        """Scalar >= 0."""
        assert target.strong_logits is not None
        confusion = class_confusion(target.logits, self.config.temperature)
        consistency = confident_cross_entropy(target.logits, target.strong_logits, self.config.threshold)
        return ramp(progress, self.config.ramp) * (confusion + self.config.consistency * consistency)
