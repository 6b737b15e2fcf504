"""What the parts of a strategy are called, and what the winner is held against to tell what each brings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from raytl.judging.verdict import (
    FROM_SCRATCH,
    ON_A_SMALL_MIDDLE,
    ON_PLAIN_FEATURES,
    ON_THE_MIDDLE,
    ON_WHOLE_IMAGES,
    USUAL,
    USUAL_FINE_TUNING,
    WITHOUT_DOMAIN_AND_LOSS,
    Part,
)


@dataclass(frozen=True)
class Words:
    """How a control is spoken of.

    what: how a sentence about the part begins. within: what the part is called within one. against: what the winner is
    held against.
    """

    what: str
    within: str
    against: str


PARTS = {
    Part.SOURCE_MODEL: Words("Transfer", "the pretrained weights", "the same from random weights"),
    Part.OTHER_SOURCE: Words("The choice of source model", "this source model", "one pretrained on another domain"),
    Part.ADAPTATION: Words("Domain adaptation", "adaptation", "the same without it"),
    Part.SOURCE_DOMAIN: Words("Joining the source domain", "the source domain's images", "the same without them"),
    Part.FREEZING: Words("Freezing", "freezing", "the same with nothing frozen"),
    Part.AUGMENTATION: Words("Augmentation", "augmentation", "the same without it"),
    Part.PIXELS: Words("Seeing larger images", "the larger images", "the same at the usual size"),
    Part.RECIPE: Words("The whole of this model", "the whole of this model", "a usual recipe"),
}
_BY_NAME = {
    ON_PLAIN_FEATURES: "the same on plain image features",
    FROM_SCRATCH: "training from scratch",
    USUAL_FINE_TUNING: USUAL_FINE_TUNING,
}
"""By a control's name, what it is, where a part has several that differ."""


def words(control: dict[str, Any]) -> Words:
    """How a control is spoken of."""
    if control["name"] == WITHOUT_DOMAIN_AND_LOSS:
        return Words(
            "Joining the source domain, and adapting by it,",
            "the source domain's images and the adaptation that needs them",
            "the same without either",
        )
    if control["name"] == ON_WHOLE_IMAGES:
        return Words("Seeing pieces of the images as they are", "the pieces", "the same on whole images")
    if control["name"] == ON_THE_MIDDLE:
        against = "the same on the middle of the images, at the usual size"
        return Words("Seeing the images to their edges", "all of the images in view", against)
    if control["name"] == ON_A_SMALL_MIDDLE:
        against = "the same on the middle of the images, at the usual size"
        return Words(
            "Seeing the images larger, and to their edges", "more pixels and all of the images in view", against
        )
    said = PARTS[control["part"]]
    return replace(said, against=_BY_NAME.get(control["name"], said.against))


def is_matched(control: dict[str, Any]) -> bool:
    """Whether a control is the winner with one part taken out and all else equal."""
    return control["part"] in PARTS and control["part"] != "recipe" and control["name"] not in USUAL
