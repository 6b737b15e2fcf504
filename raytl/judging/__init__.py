"""From predictions on the same items to what they mean, as data: the choice, what it is worth, and what helped."""

from raytl.judging.choice import Choice, Contestant, choose, separates
from raytl.judging.estimates import corrected_estimate
from raytl.judging.verdict import Control, Part, Tone, Verdict, equivalence_margin, verdicts

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
    "separates",
    "verdicts",
]
