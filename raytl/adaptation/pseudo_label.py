"""Self-training as in FixMatch (Sohn et al., 2020).

What the network is sure of in an image, it must also see in a strongly augmented version of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from raytl.adaptation.base import ActsOn, AdaptationConfig, AdaptationLoss, Views, adaptation
from raytl.core.dimensions import searchable, uniform
from raytl.tasks.task import Role


@dataclass(frozen=True)
class PseudoLabelConfig(AdaptationConfig):
    """Settings of pseudo-label self-training.

    threshold: least probability at which a prediction is taken for a label, in (0, 1).
    ramp: share of the budget over which the loss grows to full strength, because a fresh head's labels are noise.
    """

    threshold: float = searchable(0.9, uniform(0.7, 0.99))
    ramp: float = 0.2


@adaptation("pseudo-label", config=PseudoLabelConfig, needs={Role.UNLABELLED}, acts_on={ActsOn.LOGITS})
class PseudoLabel(AdaptationLoss):
    """Cross-entropy of the strong view against the weak view's confident predictions, over the whole batch.

    Images below the threshold count as zero, so a batch in which none passes gives a loss of 0.
    """

    wants_strong_view = True
    config: PseudoLabelConfig

    def forward(self, source: Views | None, target: Views, progress: float) -> Tensor:
        """Scalar >= 0."""
        assert target.strong_logits is not None
        loss = confident_cross_entropy(target.logits, target.strong_logits, self.config.threshold)
        return ramp(progress, self.config.ramp) * loss


def confident_cross_entropy(weak: Tensor, strong: Tensor, threshold: float) -> Tensor:
    """Mean over n of the cross-entropy of ``strong`` against the argmax of ``weak`` where that reaches ``threshold``.

    weak, strong: logits (n, k); no gradient flows into ``weak``.
    """
    confidence, labels = torch.softmax(weak.detach(), dim=1).max(dim=1)
    accepted = (confidence >= threshold).to(strong.dtype)
    return (accepted * cross_entropy(strong, labels, reduction="none")).mean()


def ramp(progress: float, share: float) -> float:
    """Linear from 0 to 1 over the first ``share`` of the budget, then 1."""
    return min(1.0, progress / share) if share > 0 else 1.0
