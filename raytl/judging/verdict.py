"""From matched pairs to what they mean: for each part of the winner, whether it helped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from raytl.evaluation.intervals import Comparison, holm_comparisons
from raytl.evaluation.metrics import Metric

ON_PLAIN_FEATURES, FROM_SCRATCH = "on plain image features", "trained from scratch"
"""Names of the two controls that a head on frozen features has in the place of the same from random weights. What is
trained has the second beside that: the same need not be the best that random weights allow."""
USUAL_FINE_TUNING = "the usual fine-tuning, nothing frozen"
"""Name of the control that a head on frozen features has in the place of the same with nothing frozen: it differs in
the head, the rates and the augmentation as well. What has no pretrained weights is held against it, too."""
WITHOUT_DOMAIN_AND_LOSS = "without the source domain and its loss"
AT_USUAL_SIZE, ON_WHOLE_IMAGES = "at the usual size", "on whole images"
"""Names of the controls of what sees images larger than the space asks for, and of what sees pieces of them."""
ON_THE_MIDDLE, ON_A_SMALL_MIDDLE = "on the middle of the images, at the usual size", "on their middle, at fewer pixels"
"""Names of the controls of what sees images to their edges, squashed into its input, at the usual size and larger."""
USUAL = frozenset({FROM_SCRATCH, USUAL_FINE_TUNING})
"""Names of controls that are a usual recipe, and so may differ from the winner in more than one part."""
_MOST = 0.02
_OF_THE_REST = 0.25
_OF_A_LOSS = 0.05


class Part(StrEnum):
    """What of a strategy a control leaves out, or what it does instead.

    OTHER_SOURCE: starts from another source model. PIXELS: sees fewer of the images' pixels, the whole images where
    the winner sees pieces of them, or their middle where it sees all of them. RECIPE: is a usual recipe that differs in
    several parts, so that no one of them is what a gain over it is owed to. CLASSICAL: trains no network at all.
    CONSTANT: looks at no image.
    """

    SOURCE_MODEL = "source-model"
    ADAPTATION = "adaptation"
    SOURCE_DOMAIN = "source-domain"
    FREEZING = "freezing"
    AUGMENTATION = "augmentation"
    PIXELS = "pixels"
    OTHER_SOURCE = "other-source"
    RECIPE = "recipe"
    CLASSICAL = "classical"
    CONSTANT = "constant"


class Tone(StrEnum):
    """What a comparison says, from the worst news to the best."""

    HARM = "harm"
    CANNOT_TELL = "cannot-tell"
    DID_NOT = "did-not"
    HELPED = "helped"


@dataclass(frozen=True)
class Control:
    """The winner held against the same strategy without one part.

    comparison: winner minus control, on the same items.
    """

    name: str
    part: Part
    comparison: Comparison


@dataclass(frozen=True)
class Verdict:
    """What a control says.

    comparison: against it, by itself. margin: differences within it count as none.
    """

    part: Part
    tone: Tone
    control: str
    comparison: Comparison
    margin: float


def lacks(strategy: Mapping[str, Any], winner: Mapping[str, Any]) -> list[str]:
    """What a winner learns from or by that a usual recipe does without, in words; both as flat plain values."""
    known = (("source_domain", None, "the source domain's images"), ("adaptation", "none", "adaptation"))
    return [
        what for key, nothing, what in known if winner.get(key, nothing) not in (nothing, strategy.get(key, nothing))
    ]


def how_good(tone: str, gain: float) -> tuple[int, float]:
    """What comparisons of one part are ordered by, the worst news first. gain: the winner's over the control."""
    return list(Tone).index(Tone(tone)), gain


def judged(controls: Sequence[Control], *, margin: float) -> list[Verdict]:
    """What each control says, in the order given.

    margin: as from :func:`equivalence_margin`, > 0, in the metric's unit.

    Every interval is Holm's for all the controls together. ``helped`` where it lies above zero, ``harm`` where it lies
    below; ``did-not`` where it lies within the margin on both sides: then the part changes nothing that matters, and
    that is shown, not merely not seen; else ``cannot-tell``. A difference that is both above zero and within the
    margin helped, if little.
    """
    adjusted = holm_comparisons([control.comparison for control in controls])
    return [
        Verdict(control.part, _tone(wide, margin), control.name, control.comparison, margin)
        for control, wide in zip(controls, adjusted, strict=True)
    ]


def equivalence_margin(metric: Metric, value: float) -> float:
    """The difference that does not matter, for a winner with this value of the metric; > 0.

    Shares: two in a hundred, about what the same strategy gains or loses when trained again with another seed on a few
    hundred images, so that nobody could keep a smaller gain; but no more than a quarter of what is left to the best
    possible, because at 99 % right two points are all the mistakes there are. Losses: a twentieth of the value.
    """
    low, high = metric.limits
    best = high if metric.higher_is_better else low
    if metric.share:
        return max(1e-3, min(_MOST, _OF_THE_REST * abs(best - value)))
    return max(1e-3, _OF_A_LOSS * abs(value))


def _tone(gap: Comparison, margin: float) -> Tone:
    if gap.low > 0:
        return Tone.HELPED
    if gap.high < 0:
        return Tone.HARM
    return Tone.DID_NOT if -margin <= gap.low and gap.high <= margin else Tone.CANNOT_TELL
