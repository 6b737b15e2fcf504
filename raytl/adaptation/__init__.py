"""Domain-adaptation losses, one per file. Pure torch; imports no Ray."""

from raytl.adaptation.base import AdaptationConfig, AdaptationEntry, AdaptationLoss, Views, adaptation, get, names

__all__ = ["AdaptationConfig", "AdaptationEntry", "AdaptationLoss", "Views", "adaptation", "get", "names"]
