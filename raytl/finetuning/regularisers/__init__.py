"""Regularisers that hold on to what the source model knows, one per file."""

from raytl.finetuning.regularisers.base import (
    Regulariser,
    RegulariserConfig,
    RegulariserEntry,
    get,
    names,
    regulariser,
)

__all__ = ["Regulariser", "RegulariserConfig", "RegulariserEntry", "get", "names", "regulariser"]
