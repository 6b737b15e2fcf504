"""``scratch:<architecture>``: raytl's own networks, untrained."""

from __future__ import annotations

from torch import nn

from raytl.sources.architectures.base import registry
from raytl.sources.base import Built, Hollow, Provider, Request, SourceEntry, provider, seeded
from raytl.sources.licences import NO_WEIGHTS
from raytl.sources.model import SourceInfo, SourceModel
from raytl.sources.staging import untrained_info
from raytl.tasks.preprocessing import Preprocessing

# The head of an untrained network is a placeholder until the labels are known.
_PLACEHOLDER_CLASSES = 10


@provider("scratch")
class Scratch(Provider):
    """Untrained architectures that take the task's own channels and any size from their smallest up."""

    def load(self, name: str, request: Request) -> SourceModel:
        """Weights drawn from ``request.seed``."""
        return self.build(name, request).model

    def info(self, name: str, request: Request) -> SourceInfo:
        """Counted without allocating anything."""
        with Hollow():
            model = self._model(name, request)
        return untrained_info(model, fixed_size=False)

    def build(self, name: str, request: Request) -> Built:
        """The same as :meth:`load`: there are no weights to leave out."""
        with seeded("scratch", name, request.seed):
            return Built(self._model(name, request))

    def untrained(self, name: str) -> str:
        """Itself."""
        registry.get(name)
        return f"scratch:{name}"

    def names(self) -> list[str]:
        """Every registered architecture."""
        return registry.names()

    def entry(self, name: str) -> SourceEntry:
        """At its own size."""
        info = self.info(name, Request())
        return SourceEntry(info.uri, info.parameters, info.stages, info.image_size, licence=NO_WEIGHTS)

    def _model(self, name: str, request: Request) -> SourceModel:
        entry = registry.get(name)
        stages, feature_dim = entry.body(request.channels)
        size = entry.image_size if request.image_size is None else max(request.image_size, entry.min_size)
        uri = f"scratch:{name}"
        return SourceModel(
            uri=uri,
            architecture=uri,
            stages=stages,
            head=nn.Linear(feature_dim, _PLACEHOLDER_CLASSES),
            feature_dim=feature_dim,
            preprocessing=Preprocessing(
                size=size, channels=request.channels, mean=(0.5,) * request.channels, std=(0.5,) * request.channels
            ),
        ).eval()
