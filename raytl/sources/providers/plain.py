"""``plain:pixels``, ``plain:colour``, ``plain:gradients``: features without any learned weights.

With a linear head on top they are the classical controls (logistic regression on pixels, on a colour histogram, on
oriented gradients): what a pretrained network has to beat, and where it does not, a model small enough for anything.
"""

from __future__ import annotations

from torch import nn

from raytl.core.errors import UserError, nearest
from raytl.sources.base import Built, Hollow, Provider, Request, SourceEntry, provider, seeded
from raytl.sources.descriptors import DESCRIPTORS
from raytl.sources.licences import NO_WEIGHTS
from raytl.sources.model import SourceInfo, SourceModel
from raytl.sources.staging import untrained_info
from raytl.tasks.preprocessing import Preprocessing

_IMAGE_SIZE, _MIN_SIZE = 64, 8
_PLACEHOLDER_CLASSES = 10


@provider("plain")
class Plain(Provider):
    """Fixed features of the task's own channels at any size from 8 pixels up: only the head is ever trained."""

    def load(self, name: str, request: Request) -> SourceModel:
        """Its head drawn from ``request.seed``."""
        return self.build(name, request).model

    def info(self, name: str, request: Request) -> SourceInfo:
        """Of a fixed size: at another, the cells of the features cover other pixels."""
        with Hollow():
            model = self._model(name, request)
        return untrained_info(model, fixed_size=True)

    def build(self, name: str, request: Request) -> Built:
        """The same as :meth:`load`: there are no weights to leave out."""
        with seeded("plain", name, request.seed):
            return Built(self._model(name, request))

    def untrained(self, name: str) -> None:
        """None: nothing is learned but the head."""
        _known(name)

    def names(self) -> list[str]:
        """Every descriptor."""
        return sorted(DESCRIPTORS)

    def entry(self, name: str) -> SourceEntry:
        """At its default size."""
        info = self.info(name, Request())
        return SourceEntry(info.uri, info.parameters, info.stages, info.image_size, licence=NO_WEIGHTS, trainable=False)

    def _model(self, name: str, request: Request) -> SourceModel:
        _known(name)
        size = _IMAGE_SIZE if request.image_size is None else max(request.image_size, _MIN_SIZE)
        features = DESCRIPTORS[name](request.channels, size)
        uri = f"plain:{name}"
        return SourceModel(
            uri=uri,
            architecture=uri,
            stages=[("features", features)],
            head=nn.Linear(features.feature_dim, _PLACEHOLDER_CLASSES),
            feature_dim=features.feature_dim,
            preprocessing=Preprocessing(
                size=size, channels=request.channels, mean=(0.5,) * request.channels, std=(0.5,) * request.channels
            ),
        ).eval()


def _known(name: str) -> None:
    if name not in DESCRIPTORS:
        raise UserError(f"unknown plain features '{name}'{nearest(name, DESCRIPTORS)}")
