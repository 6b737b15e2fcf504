"""What a lane keeps warm between trials: all that trials are made of, and source models trained on a source domain."""

from __future__ import annotations

from raytl.sources import SourceModel
from raytl.training.arrays import NotHereError
from raytl.training.material import Material
from raytl.training.pretrain import is_pretrained, parse_pretrain, pretrained_on_domain
from raytl.training.settings import Budget, PretrainSettings, WorkspaceSettings

__all__ = ["Budget", "PretrainSettings", "Workspace", "WorkspaceSettings"]


class Workspace(Material):
    """One process's warm state. Everything in it can be rebuilt from ``data`` and ``settings``."""

    def _load(self, uri: str) -> SourceModel:
        pretraining = parse_pretrain(uri)
        if self.features_of and pretraining is not None and not is_pretrained(self, *pretraining):
            raise NotHereError
        return super()._load(uri) if pretraining is None else pretrained_on_domain(self, *pretraining)
