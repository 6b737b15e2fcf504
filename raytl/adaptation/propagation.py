"""Label propagation: what is known of the labelled images goes over to their unlabelled neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from raytl.adaptation.base import ActsOn, AdaptationConfig, AdaptationLoss, Views, adaptation
from raytl.tasks.task import Role

PROPAGATION = "propagation"
NEIGHBOURS = 10
REACH = 0.9
"""Share of what an image is said to be that comes from its neighbours (alpha in the papers)."""
NEARNESS = 3
"""Power of the cosine that neighbours weigh by."""
_LEAST = 1e-6


@dataclass(frozen=True)
class PropagationConfig(AdaptationConfig):
    """It has no settings: ``weight`` is not searched and has no effect."""

    weight: float = 1.0


@adaptation(
    PROPAGATION,
    config=PropagationConfig,
    needs={Role.UNLABELLED},
    acts_on={ActsOn.SOLVED_HEAD},
)
class Propagation(AdaptationLoss):
    """No loss: a head that is solved for learns from the unlabelled images as well, see :func:`propagate`.

    Source images, where a domain is joined, take on the target's moments first. It assumes that images that look alike
    to the network are of one class more often than not. Without target labels it is what a domain's head says that
    goes over to the neighbours, see :func:`pass_on`.
    """

    gradient_free = True
    matches_moments = True
    propagates_labels = True

    def forward(self, source: Views | None, target: Views, progress: float) -> Tensor:
        """Zero."""
        return target.logits.new_zeros(())


def propagate(
    labelled: Tensor,
    labels: np.ndarray,
    unlabelled: Tensor,
    classes: int,
    *,
    widths: Sequence[int] | None = None,
    groups: np.ndarray | None = None,
    balanced: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """What neighbours say of images (Zhou et al., 2004; on a network's features Iscen et al., 2019).

    Returns it of the unlabelled images (m, k), and of the labelled ones (n, k), each without its own label and those of
    its group; rows are in sum 1, or NaN where no label reaches an image.
    labelled: features (n, d); labels: (n,) in [0, classes); unlabelled: features (m, d). Each feature is standardised,
    what a stage makes of an image (widths: of the stages' features, one after another) has length 1, and an image's
    neighbours are the nearest by cosine. groups: (n,), or None. balanced: whether every class has as much to say,
    however many labels it has.
    """
    n, k = len(labels), classes
    graph = _graph(torch.cat([labelled, unlabelled]).float(), widths)
    reached = _reached(graph, n)
    named = np.eye(k)[np.asarray(labels)]
    own = np.arange(n) if groups is None else np.asarray(groups)
    others = np.where(own[:, None] == own[None], 0.0, reached[:n])
    said, said_by_others = reached[n:] @ named, others @ named
    if balanced:
        said = said / np.maximum(named.sum(axis=0), 1)
        said_by_others = said_by_others / np.maximum((own[:, None] != own[None]).astype(np.float64) @ named, 1)
    return _shares(said), _shares(said_by_others)


def pass_on(
    features: Tensor, said: np.ndarray, *, widths: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """What a head says of images, each heard with its neighbours, in place of the labels of :func:`propagate`.

    Returns (m, k) with what is said of an image itself, and without; rows are in sum 1, or NaN where an image has no
    neighbours. features: (m, d); said: probabilities (m, k). widths: as there.
    """
    reached = _reached(_graph(features.float(), widths), len(features))
    others = reached - np.diag(np.diag(reached))
    return _shares(reached @ said), _shares(others @ said)


def _graph(features: Tensor, widths: Sequence[int] | None) -> Tensor:
    """Normalised weights (n, n) between neighbours, symmetric, with nothing from an image to itself."""
    mean, deviation = features.mean(dim=0), features.std(dim=0, correction=0)
    varies = deviation > _LEAST * mean.abs()
    standard = torch.where(varies, (features - mean) / deviation, 0.0)
    parts = standard.split(list(widths), dim=1) if widths is not None else [standard]
    each = torch.cat([F.normalize(part, dim=1) for part in parts], dim=1) / len(parts) ** 0.5
    cosine = (each @ each.T).fill_diagonal_(-1.0)
    nearest, index = cosine.topk(min(NEIGHBOURS, len(cosine) - 1), dim=1)
    weights = torch.zeros_like(cosine).scatter_(1, index, nearest.clamp_min(0.0) ** NEARNESS)
    weights = torch.maximum(weights, weights.T)
    scale = weights.sum(dim=1).clamp_min(_LEAST).rsqrt()
    return scale[:, None] * weights * scale[None]


def _reached(graph: Tensor, count: int) -> np.ndarray:
    """What every image (n) is told by each of the first ``count``, over all ways through the graph: (n, count)."""
    identity = torch.eye(len(graph), device=graph.device)
    told = torch.linalg.solve(identity - REACH * graph, identity[:, :count])
    return np.asarray(told.double().cpu().numpy().clip(min=0))


def _shares(said: np.ndarray) -> np.ndarray:
    total = said.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(total > 0, said / total, np.nan))
