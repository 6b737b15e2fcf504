"""What a model says of an image: the same from a bundle in this process and from an endpoint."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image.

    label: the most probable one, or that on whose side of the model's threshold the image lies. confidence: its
        probability, below one half where the threshold decided so. probabilities: of every label, in the model's order.
    """

    label: str
    confidence: float
    probabilities: dict[str, float]
