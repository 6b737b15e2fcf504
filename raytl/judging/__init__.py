"""From predictions on the same items to what they mean, as data: the choice, what it is worth, and what helped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raytl.core.lazy import lazily

if TYPE_CHECKING:
    from raytl.judging.choice import Choice, Contestant, choose, separates
    from raytl.judging.estimates import corrected_estimate, with_all_labels
    from raytl.judging.verdict import Control, Part, Tone, Verdict, equivalence_margin, how_good, judged

__all__ = [
    "Choice",
    "Contestant",
    "Control",
    "Part",
    "Tone",
    "Verdict",
    "choose",
    "corrected_estimate",
    "equivalence_margin",
    "how_good",
    "judged",
    "separates",
    "with_all_labels",
]

__getattr__ = lazily(
    __name__,
    {
        "raytl.judging.choice": "Choice Contestant choose separates",
        "raytl.judging.estimates": "corrected_estimate with_all_labels",
        "raytl.judging.verdict": "Control Part Tone Verdict equivalence_margin how_good judged",
    },
)
