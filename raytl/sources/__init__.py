"""Source models: pretrained networks as ordered stages, from torchvision, timm, a local bundle, or unlearned."""

from raytl.sources.base import SourceEntry, WeightsMissingError
from raytl.sources.catalogue import build_architecture, catalogue, info, load
from raytl.sources.model import SourceInfo, SourceModel

__all__ = [
    "SourceEntry",
    "SourceInfo",
    "SourceModel",
    "WeightsMissingError",
    "build_architecture",
    "catalogue",
    "info",
    "load",
]
