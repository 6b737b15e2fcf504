"""Source models: networks as ordered stages, pretrained or not, each behind a URI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raytl.core.lazy import lazily

if TYPE_CHECKING:
    from raytl.sources.base import SourceEntry, WeightsMissingError
    from raytl.sources.learned import Learned, learned_by
    from raytl.sources.licences import allows_commercial
    from raytl.sources.lookup import (
        build_architecture,
        catalogue,
        info,
        licence_of,
        load,
        local_files,
        untrained_uri,
        why_no_zero_shot,
        zero_shot_head,
    )
    from raytl.sources.model import SourceInfo, SourceModel
    from raytl.sources.uris import at_size, is_untrained, split_size

__all__ = [
    "Learned",
    "SourceEntry",
    "SourceInfo",
    "SourceModel",
    "WeightsMissingError",
    "allows_commercial",
    "at_size",
    "build_architecture",
    "catalogue",
    "info",
    "is_untrained",
    "learned_by",
    "licence_of",
    "load",
    "local_files",
    "split_size",
    "untrained_uri",
    "why_no_zero_shot",
    "zero_shot_head",
]

__getattr__ = lazily(
    __name__,
    {
        "raytl.sources.base": "SourceEntry WeightsMissingError",
        "raytl.sources.lookup": (
            "build_architecture catalogue info licence_of load local_files untrained_uri why_no_zero_shot "
            "zero_shot_head"
        ),
        "raytl.sources.learned": "Learned learned_by",
        "raytl.sources.licences": "allows_commercial",
        "raytl.sources.model": "SourceInfo SourceModel",
        "raytl.sources.uris": "at_size is_untrained split_size",
    },
)
