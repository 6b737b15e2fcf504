"""What sits on the features: a linear layer, a small network, layers on stages, what is near, or the classes' names."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raytl.sources.near_heads import NearestMeanHead, NeighboursHead

ZERO_SHOT = "zero-shot"
NEAREST_MEAN, K_NN = "nearest-mean", "k-nn"
NEAR = (NEAREST_MEAN, K_NN)
"""Heads that name an image after what it is nearest to (:mod:`raytl.sources.near_heads`)."""
CONVEX = ("logistic", "stages", *NEAR, ZERO_SHOT)
"""Heads that are solved for, or follow from the classes' names, instead of being trained."""
HEADS = ("linear", "mlp", *CONVEX)
HIDDEN = 256
"""Width of the hidden layer, that of the usual bottleneck between backbone and head."""
READS = ("places", "peaks", "quarters", "whole")
"""Of what each stage makes of an image, what a :class:`StagesHead` reads: means over its quarters, peaks and spread
over all positions, and of some stages every position; all but the last of these, as heads of format 7 do; means over
quarters alone, as those of 4; or means over all positions, as those of 3."""


class MlpHead(nn.Module):
    """One hidden layer of rectified units, then a linear layer. features (n, d) -> logits (n, k)."""

    def __init__(self, features: int, outputs: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, hidden)
        self.output = nn.Linear(hidden, outputs)

    def forward(self, features: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.output(F.relu(self.hidden(features)))
        return logits


class PlacesLayer(nn.Module):
    """What an image shows, where only one place of it shows it.

    A linear layer says of every place how much speaks for each class there, and what speaks for a class anywhere is
    heard: the log of the mean over the places of exp. features (n, channels x places) -> logits (n, k). (Multiple
    instance learning; log-sum-exp pooling: Pinheiro & Collobert, 2015.)
    """

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, channels) / channels**0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, features: Tensor) -> Tensor:
        """Logits."""
        channels = self.weight.shape[1]
        seen = features.unflatten(1, (channels, features.shape[1] // channels))
        spoken = torch.logsumexp(self.weight @ seen, dim=2)
        return spoken - math.log(seen.shape[2]) + self.bias


class StagesHead(nn.Module):
    """Layers on what each stage makes of an image, in one to three parts; their probabilities are averaged.

    Which stage a task is best read from differs between tasks, and few labels cannot tell (Evci et al., 2022:
    Head2Toe). Nor can they whether what counts is all over the image, at one place of it, or small and anywhere. An
    average needs no choice, and where the layers disagree it is unsure. features (n, sum of the widths), the parts' one
    after another -> logits (n, k): log-probabilities times ``sharpness``, for an average is less sure than it could be.

    widths: of the parts, the stages' in their order. members: layers on each part, which were solved for on different
    images. ``parts``: of the first member, then of the next. ``shares`` (members x parts,): what each has in the
    average. reads: one of :data:`READS`. peaks: which parts are peaks, and no means; none unless said. places: of the
    parts how many positions each holds, with all channels (channels x places); 1 of those that were pooled.
    """

    shares: Tensor
    sharpness: Tensor

    def __init__(
        self,
        widths: Sequence[int],
        outputs: int,
        members: int = 1,
        *,
        reads: str = READS[0],
        peaks: Sequence[bool] = (),
        places: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.widths = list(widths)
        self.members = members
        self.reads = reads
        self.peaks = list(peaks) or [False] * len(self.widths)
        self.places = list(places) or [1] * len(self.widths)
        self.parts = nn.ModuleList(
            nn.Linear(width, outputs) if count == 1 else PlacesLayer(width // count, outputs)
            for _ in range(members)
            for width, count in zip(self.widths, self.places, strict=True)
        )
        self.register_buffer("shares", torch.full((len(self.parts),), 1.0 / len(self.parts)))
        self.register_buffer("sharpness", torch.ones(()))

    def means(self, features: Tensor) -> tuple[Tensor, list[int]]:
        """Of what it reads (n, d), what is neither peaks nor places, and the widths of its parts."""
        parts = zip(features.split(self.widths, dim=1), self.peaks, self.places, strict=True)
        kept = [part for part, is_peak, places in parts if not is_peak and places == 1]
        return torch.cat(kept, dim=1), [part.shape[1] for part in kept]

    def anew(self, outputs: int, members: int) -> StagesHead:
        """A head that reads the same, its weights drawn from torch's generator."""
        return StagesHead(self.widths, outputs, members, reads=self.reads, peaks=self.peaks, places=self.places)

    def forward(self, features: Tensor) -> Tensor:
        """Logits."""
        seen = features.split(self.widths, dim=1) * self.members
        logits = [part(x) for part, x in zip(self.parts, seen, strict=True)]
        each = torch.stack([F.log_softmax(part.float(), dim=1) for part in logits])
        mean: Tensor = (each + self.shares.log()[:, None, None]).logsumexp(dim=0)
        return mean * self.sharpness


class ZeroShotHead(nn.Module):
    """How near an image is to what a text tower makes of each class's name (Radford et al., 2021: CLIP).

    features (n, d) -> logits (n, k): the cosine of the projected features and a class's embedding, times ``scale``,
    plus ``offset`` (SigLIP's bias; CLIP has none).

    width: of the embeddings, None for that of the features. ``projection`` is the image tower's; ``names`` (k, width)
    has rows of length 1. Drawn from torch's generator until they are given.
    """

    names: Tensor
    scale: Tensor
    offset: Tensor

    def __init__(self, features: int, outputs: int, width: int | None = None) -> None:
        super().__init__()
        width = features if width is None else width
        self.projection = nn.Linear(features, width, bias=False)
        self.register_buffer("names", F.normalize(torch.randn(outputs, width), dim=1))
        self.register_buffer("scale", torch.full((), 100.0))
        self.register_buffer("offset", torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        """Logits."""
        seen = F.normalize(self.projection(features).float(), dim=1)
        return F.linear(seen, self.names).float() * self.scale + self.offset


def make_head(kind: str, features: int, outputs: int) -> nn.Module:
    """A head on the last stage's features, its weights drawn from torch's generator.

    A logistic one is a linear one; it differs in how its weights are found. Raises ValueError for another kind.
    """
    if kind in ("linear", "logistic"):
        return nn.Linear(features, outputs)
    if kind == "mlp":
        return MlpHead(features, outputs)
    if kind == ZERO_SHOT:
        return ZeroShotHead(features, outputs)
    if kind == NEAREST_MEAN:
        return NearestMeanHead(features, outputs)
    if kind == K_NN:
        return NeighboursHead(features, outputs)
    raise ValueError(f"unknown head '{kind}'; known are {', '.join(HEADS)}")
