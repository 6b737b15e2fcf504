"""``joined:<URI>+<URI>``: what two source models make of an image, one after another, for heads that read both.

Of each model the last stage's features, as far from their own mean and as long in every image: so neither the wider nor
the louder one rules. Nothing in it is trained.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raytl.core.errors import UserError
from raytl.sources.base import Built, Provider, Request, SourceEntry, provider, providers
from raytl.sources.licences import NO_WEIGHTS, UNKNOWN
from raytl.sources.lookup import info, licence_of
from raytl.sources.model import SourceInfo, SourceModel
from raytl.sources.uris import is_untrained, joined_parts, split_size
from raytl.tasks.preprocessing import Preprocessing

STAGE = "both"
_PLACEHOLDER_CLASSES = 10


class Both(nn.Module):
    """Normalised images (n, c, s, s) as the first model has them -> features of both (n, d1 + d2), of length 1 each.

    ``scale``, ``shift`` (1, c2, 1, 1): from what the first model is shown to what the second one is.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, first: SourceModel, second: SourceModel) -> None:
        super().__init__()
        self.first = nn.Sequential(*first.stage_list())
        self.second = nn.Sequential(*second.stage_list())
        channels = second.preprocessing.channels
        (mean, std), (own_mean, own_std) = (_moments(model.preprocessing, channels) for model in (first, second))
        self.register_buffer("scale", std / own_std)
        self.register_buffer("shift", (mean - own_mean) / own_std)

    def forward(self, x: Tensor) -> Tensor:
        """Features."""
        return torch.cat([_alike(self.first(x)), _alike(self.second(x * self.scale + self.shift))], dim=1)


def _moments(preprocessing: Preprocessing, channels: int) -> tuple[Tensor, Tensor]:
    """Mean and deviation (1, channels, 1, 1) that pixels are normalised by; a single channel's hold for all."""
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    return mean.expand(1, channels, 1, 1), std.expand(1, channels, 1, 1)


def _alike(features: Tensor) -> Tensor:
    features = features.float()
    return F.normalize(features - features.mean(dim=1, keepdim=True), dim=1)


@provider("joined")
class Joined(Provider):
    """Two source models on one image, which is preprocessed as the first one's are."""

    listed = False

    def load(self, name: str, request: Request) -> SourceModel:
        """Both with their weights. Raises UserError where they cannot be joined."""
        first, second = _parts(name)
        one = _provided(first).load(_name(first), request)
        other = _provided(second).load(_name(second), _beside(request, one.preprocessing))
        return _join(name, one, other, pretrained=one.pretrained or other.pretrained)

    def info(self, name: str, request: Request) -> SourceInfo:
        """Of a fixed size, and nothing to train."""
        first, second = _parts(name)
        one = info(first, channels=request.channels, image_size=request.image_size)
        other = info(second, channels=request.channels, image_size=one.image_size)
        return replace(
            one,
            uri=f"joined:{name}",
            stages=(STAGE,),
            feature_dim=one.feature_dim + other.feature_dim,
            parameters=one.parameters + other.parameters,
            fixed_size=True,
            pretrained=one.pretrained or other.pretrained,
            labels=None,
            trainable=False,
            licence=_licence(first, second),
            batch_norm_stages=(),
            text_tower=False,
        )

    def build(self, name: str, request: Request) -> Built:
        """Both architectures, of which a bundle's manifest may name untrained ones."""
        first, second = joined_parts(f"joined:{name}")
        one = _provided(first).build(_name(first), request).model
        other = _provided(second).build(_name(second), _beside(request, one.preprocessing)).model
        return Built(_join(name, one, other, pretrained=False))

    def untrained(self, name: str) -> None:
        """None: nothing is learned but the head."""
        _parts(name)

    def names(self) -> list[str]:
        """None: the user names which two."""
        return []

    def entry(self, name: str) -> SourceEntry:
        """At its default size."""
        known = self.info(name, Request())
        return SourceEntry(
            known.uri, known.parameters, known.stages, known.image_size, licence=known.licence, trainable=False
        )


def _parts(name: str) -> tuple[str, str]:
    """The two URIs. Raises UserError where there are not two that can be joined."""
    found = joined_parts(f"joined:{name}")
    if len(found) != 2:
        raise UserError(
            f"source model 'joined:{name}': write joined:<URI>+<URI>, of two source models; for example "
            "joined:torchvision:resnet18+plain:gradients"
        )
    for uri in found:
        why = ""
        if uri.startswith(("pretrain:", "joined:")):
            why = "is made during a search, or joined itself"
        elif is_untrained(uri):
            why = "has learned nothing"
        elif split_size(uri)[1] is not None:
            why = "has a size of its own; put @…px behind both"
        if why:
            raise UserError(f"source model 'joined:{name}': {uri} {why}; join two that are published, files, or plain:")
    first, second = found
    return first, second


def _provided(uri: str) -> Provider:
    return providers.get(uri.partition(":")[0])


def _name(uri: str) -> str:
    return uri.partition(":")[2]


def _beside(request: Request, shown: Preprocessing) -> Request:
    """What is asked of the second model: to take what the first one is shown."""
    return replace(request, channels=shown.channels, image_size=shown.size)


def _join(name: str, first: SourceModel, second: SourceModel, *, pretrained: bool) -> SourceModel:
    shown, own = first.preprocessing, second.preprocessing
    if own.size != shown.size:
        raise UserError(
            f"source model 'joined:{name}': the first takes images of {shown.size} pixels and the second of "
            f"{own.size}; give both one that they take (image_size of the space, or @…px behind them), or join others"
        )
    if own.channels not in (shown.channels, 3):
        raise UserError(
            f"source model 'joined:{name}': the first sees colours and the second does not; put the second one first"
        )
    model = SourceModel(
        uri=f"joined:{name}",
        architecture=f"joined:{first.architecture}+{second.architecture}",
        stages=[(STAGE, Both(first, second))],
        head=nn.Linear(first.feature_dim + second.feature_dim, _PLACEHOLDER_CLASSES),
        feature_dim=first.feature_dim + second.feature_dim,
        preprocessing=shown,
        pretrained=pretrained,
        frozen=True,
    )
    model.notes = (*first.notes, *second.notes)
    return model.eval()


def _licence(*uris: str) -> str:
    """Of all weights in it: what holds for any of them holds for a model that has both."""
    known = [licence for licence in dict.fromkeys(map(licence_of, uris)) if licence != NO_WEIGHTS]
    return UNKNOWN if UNKNOWN in known else " and ".join(known) or NO_WEIGHTS
