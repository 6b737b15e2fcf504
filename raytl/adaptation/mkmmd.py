"""DAN (Long et al., 2015): multi-kernel maximum mean discrepancy between the two domains' features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from raytl.adaptation.base import ActsOn, AdaptationConfig, AdaptationLoss, Views, adaptation
from raytl.core.dimensions import log_uniform, searchable
from raytl.tasks.task import Role


@dataclass(frozen=True)
class MkMmdConfig(AdaptationConfig):
    """Settings of MK-MMD.

    weight: trade-off against the task loss, > 0. The loss is 0 for one distribution and at most about 10.
    """

    weight: float = searchable(0.5, log_uniform(0.03, 10.0))


@adaptation("mkmmd", config=MkMmdConfig, needs={Role.SOURCE_DOMAIN, Role.UNLABELLED}, acts_on={ActsOn.FEATURES})
class MkMmd(AdaptationLoss):
    """Squared discrepancy under a sum of Gaussian kernels of bandwidth α · mean squared distance, α in 2^-3 … 2^1.

    The quadratic unbiased estimator (Gretton et al., 2012, eq. 3): pairs of an image with itself are left out, so that
    the expectation is 0 for equal distributions and single values may lie below it.
    """

    alphas = (0.125, 0.25, 0.5, 1.0, 2.0)

    def forward(self, source: Views | None, target: Views, progress: float) -> Tensor:
        """Scalar; slightly negative values are within the estimator's noise."""
        assert source is not None
        n = len(source.features)
        features = torch.cat([source.features, target.features])
        # Centred, or small distances would drown in the squared norms; not cdist, whose root has no gradient at 0.
        features = features - features.detach().mean(dim=0)
        norms = features.square().sum(dim=1)
        distances = (norms[:, None] + norms[None, :] - 2.0 * features @ features.T).clamp_min(0.0)
        scale = distances.detach().mean().clamp_min(1e-12)
        kernels = torch.stack([torch.exp(-distances / (2.0 * alpha * scale)) for alpha in self.alphas]).sum(dim=0)
        return _mean_of_pairs(kernels[:n, :n]) + _mean_of_pairs(kernels[n:, n:]) - 2.0 * kernels[:n, n:].mean()


def _mean_of_pairs(kernels: Tensor) -> Tensor:
    """Mean off the diagonal; of the diagonal where there is nothing else (a domain of one image)."""
    n = len(kernels)
    if n < 2:
        return kernels.mean()
    return (kernels.sum() - kernels.diagonal().sum()) / (n * (n - 1))
