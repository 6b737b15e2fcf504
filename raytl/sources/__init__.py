"""Source models: networks as ordered stages, pretrained or not, each behind a URI."""

from raytl.sources.base import SourceEntry, WeightsMissingError
from raytl.sources.catalogue import build_architecture, catalogue, info, licence_of, load, untrained_uri
from raytl.sources.licences import allows_commercial
from raytl.sources.model import SourceInfo, SourceModel

__all__ = [
    "SourceEntry",
    "SourceInfo",
    "SourceModel",
    "WeightsMissingError",
    "allows_commercial",
    "build_architecture",
    "catalogue",
    "info",
    "licence_of",
    "load",
    "untrained_uri",
]
