"""Domain-adaptation losses, one per file. Pure torch; imports no Ray."""

from raytl.adaptation.base import (
    ActsOn,
    AdaptationConfig,
    AdaptationEntry,
    AdaptationLoss,
    Views,
    adaptation,
    get,
    names,
)

__all__ = ["ActsOn", "AdaptationConfig", "AdaptationEntry", "AdaptationLoss", "Views", "adaptation", "get", "names"]
