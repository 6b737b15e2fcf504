"""What a lane keeps warm between trials: all that trials are made of, and source models trained on a source domain."""

from __future__ import annotations

from raytl.sources import SourceModel
from raytl.training.material import Material
from raytl.training.pretrain import parse_pretrain, pretrained_on_domain
from raytl.training.settings import Budget, PretrainSettings, WorkspaceSettings

__all__ = ["Budget", "PretrainSettings", "Workspace", "WorkspaceSettings"]


class Workspace(Material):
    """One process's warm state. Everything in it can be rebuilt from ``data`` and ``settings``."""

    def _load(self, uri: str) -> SourceModel:
        pretraining = parse_pretrain(uri)
        return super()._load(uri) if pretraining is None else pretrained_on_domain(self, *pretraining)
