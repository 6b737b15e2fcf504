"""Heads without weights of their own: an image is named after the class, or the labelled images, that it is nearest to.

Near is by cosine, of features from which the labelled images' mean was taken.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

USUAL_SHARPNESS = 5.0
"""By which cosines to class means give probabilities where no image can be held out.

On nine tasks (digits, emoji, icons, clip art, textures, terrain, scripts, sprites, cut-out photographs) with one to
five labels a class most of what fitted the truth lay between 2.5 and 10.
"""


class NearestMeanHead(nn.Module):
    """The nearest class mean by cosine. features (n, d) -> logits (n, k): the cosines times ``sharpness``.

    With few labels a class as good as anything that is fitted (Chen et al., 2019; Wang et al., 2019: SimpleShot).

    ``centre`` (d,): mean of the labelled images; ``means`` (k, d): of the classes, of length 1, 0 of one without an
    image, which ``offset`` (k,) puts below all others.
    """

    centre: Tensor
    means: Tensor
    offset: Tensor
    sharpness: Tensor

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("means", torch.zeros(outputs, features))
        self.register_buffer("offset", torch.zeros(outputs))
        self.register_buffer("sharpness", torch.full((), USUAL_SHARPNESS))

    @property
    def outputs(self) -> int:
        """How many classes there are."""
        return self.means.shape[0]

    def forward(self, features: Tensor) -> Tensor:
        """Logits."""
        seen = F.normalize(features.float() - self.centre, dim=1)
        return F.linear(seen, self.means) * self.sharpness + self.offset

    @torch.no_grad()
    def place(self, features: Tensor, labels: Tensor, weights: Tensor) -> None:
        """Take over labelled images: features (n, d), labels (n,), weights (n,) > 0."""
        shares = (weights / weights.sum()).to(features)
        self.centre.copy_(shares @ features)
        seen = F.normalize(features - self.centre, dim=1)
        named = F.one_hot(labels, len(self.means)).to(features) * shares[:, None]
        self.means.copy_(F.normalize(named.T @ seen, dim=1))
        self.offset.copy_(torch.where(named.sum(dim=0) > 0, 0.0, -1000.0))


class NeighboursHead(nn.Module):
    """What the nearest labelled images are. features (n, d) -> logits (n, k), the logarithms of probabilities.

    Each of the ``ranks`` nearest has a say that falls by the cosine, times ``sharpness``, and by its own ``says``; of
    the whole, ``doubt`` goes to the classes as frequent as they are.

    ``centre`` (d,): mean of the labelled images; ``images`` (m, d): these without it, of length 1; ``says`` (m, k):
    their classes, times how much each counts; ``ranks`` (r,): how much the nearest counts, the next, and so on.
    """

    centre: Tensor
    images: Tensor
    says: Tensor
    ranks: Tensor
    sharpness: Tensor
    doubt: Tensor

    def __init__(self, features: int, outputs: int, images: int = 1, neighbours: int = 1) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("images", torch.zeros(images, features))
        self.register_buffer("says", torch.ones(images, outputs))
        self.register_buffer("ranks", torch.ones(neighbours))
        self.register_buffer("sharpness", torch.full((), USUAL_SHARPNESS))
        self.register_buffer("doubt", torch.full((), 0.1))

    @property
    def outputs(self) -> int:
        """How many classes there are."""
        return self.says.shape[1]

    def forward(self, features: Tensor) -> Tensor:
        """Logits."""
        seen = F.normalize(features.float() - self.centre, dim=1)
        return self.vote(*F.linear(seen, self.images).topk(self.ranks.shape[0], dim=1))

    def vote(self, nearest: Tensor, index: Tensor) -> Tensor:
        """Logits (n, k) by the r greatest cosines (n, r), falling, and whose they are; one at -inf has no say."""
        heard = ((nearest - nearest[:, :1]) * self.sharpness).exp() * self.ranks
        everyone = torch.zeros(heard.shape[0], self.says.shape[0], dtype=heard.dtype, device=heard.device)
        votes = everyone.scatter(1, index, heard) @ self.says
        usual = self.says.sum(dim=0) / self.says.sum()
        shares = votes / votes.sum(dim=1, keepdim=True)
        return (shares * (1.0 - self.doubt) + usual * self.doubt).clamp_min(1e-12).log()

    def like(self, neighbours: int, sharpness: float, doubt: float) -> NeighboursHead:
        """The same images (they are not copied) with other settings."""
        head = NeighboursHead(0, 0, 0, min(neighbours, len(self.images)))
        head.centre, head.images, head.says = self.centre, self.images, self.says
        head.to(self.images.device)
        head.sharpness.fill_(sharpness)
        head.doubt.fill_(doubt)
        return head

    @torch.no_grad()
    def place(self, features: Tensor, labels: Tensor, weights: Tensor) -> None:
        """Take over labelled images, as many as it has room for: features (m, d), labels (m,), weights (m,) > 0."""
        shares = (weights / weights.sum()).to(features)
        self.centre.copy_(shares @ features)
        self.images.copy_(F.normalize(features - self.centre, dim=1))
        self.says.copy_(F.one_hot(labels, self.says.shape[1]).to(features) * shares[:, None] * len(labels))


def near_head(state: dict[str, tuple[int, ...]]) -> nn.Module | None:
    """An empty head for buffers of these shapes, by name; None where they are of no head of these kinds."""
    centre, means, images = (state.get(name, ()) for name in ("centre", "means", "images"))
    says, ranks = state.get("says", ()), state.get("ranks", ())
    if len(centre) == 1 and len(means) == 2:
        return NearestMeanHead(centre[0], means[0])
    if len(centre) == 1 and len(images) == len(says) == 2 and len(ranks) == 1 and 0 < ranks[0] <= images[0]:
        return NeighboursHead(centre[0], says[1], images[0], ranks[0])
    return None
