"""Moment matching by feature: source images take on the mean and the deviation that target images have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from raytl.adaptation.base import ActsOn, AdaptationConfig, AdaptationLoss, Views, adaptation
from raytl.tasks.task import Role

LEAST_SEEN = 20
"""Images without which their moments are mostly chance."""
_ROUNDING = 1e-6
_LEAST_DEVIATION = 1e-3
"""Of the target over the source: a feature that hardly varies there is not blown up to say nothing."""


@dataclass(frozen=True)
class MomentsConfig(AdaptationConfig):
    """It has no settings: ``weight`` is not searched and has no effect."""

    weight: float = 1.0


@adaptation(
    "moments",
    config=MomentsConfig,
    needs={Role.UNLABELLED, Role.SOURCE_DOMAIN},
    acts_on={ActsOn.SOLVED_HEAD},
)
class Moments(AdaptationLoss):
    """No loss: what a head is solved for on is moved beforehand, see :func:`match_moments`.

    The diagonal of CORAL (Sun et al., 2016), what AdaBN (Li et al., 2016) does in a network with batch norm. It
    assumes that the domains' classes are about equally frequent: where they are not, a difference in frequencies is
    taken for one in looks.
    """

    gradient_free = True
    matches_moments = True

    def forward(self, source: Views | None, target: Views, progress: float) -> Tensor:
        """Zero."""
        return target.logits.new_zeros(())


def match_places(
    source: Tensor, target: Tensor, widths: Sequence[int], places: Sequence[int], parts: np.ndarray | None = None
) -> Tensor:
    """As :func:`match_moments`, each of the parts by itself, and a channel over all places that there are of it.

    widths, places: of the parts, as :class:`raytl.sources.heads.StagesHead` has them.
    """
    moved = []
    for x, like, count in zip(source.split(widths, dim=1), target.split(widths, dim=1), places, strict=True):
        if count == 1:
            moved.append(match_moments(x, like, parts))
            continue
        each = [seen.unflatten(1, (-1, count)).transpose(1, 2).flatten(0, 1) for seen in (x, like)]
        found = match_moments(each[0], each[1], None if parts is None else np.repeat(parts, count))
        moved.append(found.unflatten(0, (-1, count)).transpose(1, 2).flatten(1))
    return torch.cat(moved, dim=1)


def match_moments(source: Tensor, target: Tensor, parts: np.ndarray | None = None) -> Tensor:
    """Source features (n, d) with the mean and the deviation of the target's (m, d), each feature by itself.

    parts: (n,), of which part of the source each is, where each is to have them; None for a single one.
    """
    if parts is not None:
        moved = torch.empty_like(source)
        for part in np.unique(parts):
            rows = torch.as_tensor(np.flatnonzero(parts == part), device=source.device)
            moved[rows] = match_moments(source[rows], target)
        return moved
    x, like = source.double(), target.double()
    mean, deviation = x.mean(dim=0), x.std(dim=0, correction=0)
    # A feature that varies by no more than rounding says nothing, and is not to be blown up.
    varies = deviation > _ROUNDING * mean.abs()
    scale = torch.where(varies, like.std(dim=0, correction=0) / deviation, 1.0).clamp_min(_LEAST_DEVIATION)
    return ((x - mean) * scale + like.mean(dim=0)).to(source.dtype)
