"""The trial loop and what it computes once: pixels, pretrained source models, frozen activations. Knows nothing of Tune."""

from raytl.training.strategy import Strategy

__all__ = ["Strategy"]
