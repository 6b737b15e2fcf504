"""The trial loop and what is computed once for it: pixels, pretrained models, frozen activations. No Tune in here."""

from raytl.training.strategy import Strategy

__all__ = ["Strategy"]
