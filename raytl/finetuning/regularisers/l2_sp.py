"""L2-SP (Li, Grandvalet & Davoine, 2018): decay towards the source model's weights instead of towards zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raytl.core.dimensions import log_uniform, searchable
from raytl.finetuning.regularisers.base import Regulariser, RegulariserConfig, regulariser


@dataclass(frozen=True)
class L2SPConfig(RegulariserConfig):
    """Settings of L2-SP.

    weight: alpha of the paper, > 0. It takes the place of weight decay on the backbone.
    """

    weight: float = searchable(1e-2, log_uniform(1e-4, 1e-1))


@regulariser("l2-sp", config=L2SPConfig)
class L2SP(Regulariser):
    """Half the squared distance of the trainable stages' parameters from where they started; head excluded.

    0 at the start of training, whatever the weights.
    """

    replaces_weight_decay = True

    def __init__(self, config: RegulariserConfig, stages: Sequence[nn.Module], cut: int) -> None:
        super().__init__(config, stages, cut)
        self._parameters = [p for stage in stages[cut:] for p in stage.parameters() if p.requires_grad]
        self._start = [p.detach().clone() for p in self._parameters]

    def __call__(self, features: Tensor) -> Tensor:
        """Scalar; ``features`` give only the device where every stage is frozen."""
        if not self._parameters:
            return features.new_zeros((), dtype=torch.float32)
        gaps = torch.cat([(p - s).flatten() for p, s in zip(self._parameters, self._start, strict=True)])
        return 0.5 * gaps.float().square().sum()
