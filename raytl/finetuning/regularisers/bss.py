"""Batch spectral shrinkage (Chen et al., 2019): suppress the feature directions that transfer worst."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from raytl.core.dimensions import log_uniform, searchable
from raytl.finetuning.regularisers.base import Regulariser, RegulariserConfig, regulariser


@dataclass(frozen=True)
class BSSConfig(RegulariserConfig):
    """Settings of batch spectral shrinkage.

    weight: eta of the paper, > 0.
    smallest: how many of the smallest singular values are penalised (k of the paper), >= 1.
    """

    weight: float = searchable(1e-3, log_uniform(1e-4, 1e-1))
    smallest: int = 1


@regulariser("bss", config=BSSConfig)
class BSS(Regulariser):
    """Sum of the squares of the k smallest singular values of the batch's feature matrix."""

    config: BSSConfig

    def __call__(self, features: Tensor) -> Tensor:
        """Scalar, 0 where the features span fewer dimensions than the matrix has."""
        with torch.autocast(features.device.type, enabled=False):
            values: Tensor = torch.linalg.svdvals(features.float())
        return values[-self.config.smallest :].square().sum()
