"""Is the version on trial as good as the one that is served? Looked at after every request, with one stated error.

No labels are at hand, so it is held against the served version on the same images: how often it names another label,
how sure it is, how long it takes, and whether it fails. Each is the mean of a quantity in [0, 1], and gets a confidence
sequence: an interval that holds at all times together, so that one may look as often as one likes (Robbins 1970;
Howard, Ramdas, McAuliffe & Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic confidence sequences", Annals of
Statistics 49(2)). It inverts the mixture of likelihood ratios against a beta distribution. Requests are taken to be
independent of each other; a client that sends the same image all the time is one that this fails on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import Any

from raytl.serving.settings import Candidate

ERROR = 0.05
"""Probability at most that any of the four intervals ever misses what it is about."""
MAX_ERRORS = 0.01
MAX_CONFIDENCE_DROP = 0.1
UNDECIDED = 10
"""A candidate that is not better known after so many times the requests that were asked for is taken back; or so many
times those without which nothing could be told."""
_MOST = 2**17
"""Compared requests that nobody waits for: a limit that takes more, or none at all, cannot be told to be kept."""

_QUANTITIES = 4


@dataclass
class Tally:
    """What was counted of a trial in one replica, or in all of them.

    answered_live, answered_candidate: requests by who answered. attempts, errors: how often the candidate was asked,
        and failed or came too late where the served version answered. unseen: requests that were not compared, because
        a comparison was under way.
    compared: requests that both classified. disagreed: sum of the shares of their images with another label.
    confidence_live, confidence_candidate: sums of the mean confidences. slower: requests in which the candidate took
        longer than max_slowdown times as long. seconds_live, seconds_candidate, images: of the comparisons.
    """

    answered_live: int = 0
    answered_candidate: int = 0
    attempts: int = 0
    errors: int = 0
    unseen: int = 0
    compared: int = 0
    disagreed: float = 0.0
    confidence_live: float = 0.0
    confidence_candidate: float = 0.0
    slower: int = 0
    seconds_live: float = 0.0
    seconds_candidate: float = 0.0
    images: int = 0

    def add(self, other: Tally) -> None:
        """Count another replica's requests too."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Tally:
        """Inverse of :meth:`to_json`."""
        return cls(**values)


def confidence_sequence(total: float, count: int, error: float) -> tuple[float, float]:
    """Bounds of the mean of independent values in [0, 1] that hold for every ``count`` at once.

    total: sum of the values. error: probability at most that the bounds ever miss the mean.
    Where values lie between 0 and 1 the likelihood ratio is at most what it bets, and the bounds hold as well.
    """
    if count == 0:
        return 0.0, 1.0
    half = 0.5
    mixed = _log_beta(total + half, count - total + half) - _log_beta(half, half)
    limit = -math.log(error)

    def excluded(mean: float) -> bool:
        return mixed - total * math.log(mean) - (count - total) * math.log1p(-mean) >= limit

    best = total / count
    return _bound(0.0, best, excluded), _bound(1.0, best, excluded)


def figures(tally: Tally) -> dict[str, Any]:
    """The trial in numbers: shares with their intervals, milliseconds per image of either side."""
    each = ERROR / _QUANTITIES
    compared = max(1, tally.compared)
    gain = tally.confidence_candidate - tally.confidence_live
    low, high = confidence_sequence((tally.compared + gain) / 2, tally.compared, each)
    return {
        "compared": tally.compared,
        "unseen": tally.unseen,
        "disagreement": _figure(tally.disagreed, tally.compared, each),
        "confidence_gain": {"value": gain / compared, "low": 2 * low - 1, "high": 2 * high - 1},
        "slower": _figure(tally.slower, tally.compared, each),
        "errors": _figure(tally.errors, tally.attempts, each),
        "live": _side(tally.answered_live, tally.confidence_live, tally.seconds_live, tally),
        "candidate": _side(tally.answered_candidate, tally.confidence_candidate, tally.seconds_candidate, tally),
    }


def judge(tally: Tally, rules: Candidate) -> tuple[bool, str] | None:
    """Whether the candidate is to be promoted (else taken back), and why, in a sentence; None to go on looking."""
    known = figures(tally)
    errors, other, slower, gain = (known[key] for key in ("errors", "disagreement", "slower", "confidence_gain"))
    after = f"after {tally.compared} compared requests"
    if errors["low"] > MAX_ERRORS:
        return False, f"it failed {tally.errors} of {tally.attempts} times; allowed is {MAX_ERRORS:.0%}"
    if other["low"] > rules.max_disagreement:
        return False, f"{after} it names another label in {_share(other)}; allowed are {rules.max_disagreement:.1%}"
    if gain["high"] < -MAX_CONFIDENCE_DROP:
        return False, f"{after} it is less sure by {-gain['value']:.2f} on average; allowed is {MAX_CONFIDENCE_DROP}"
    if slower["low"] > 0.5:
        return False, f"{after} it takes more than {rules.max_slowdown:g} times as long in {_share(slower)}"
    if not rules.promote_after or tally.compared < rules.promote_after:
        return None
    as_good = other["high"] <= rules.max_disagreement and slower["high"] < 0.5
    if as_good and errors["value"] <= MAX_ERRORS and gain["value"] >= -MAX_CONFIDENCE_DROP:
        return True, f"{after} it is not worse: another label in {_share(other)}, confidence {gain['value']:+.2f}"
    if tally.compared >= UNDECIDED * max(rules.promote_after, least_telling(rules.max_disagreement)):
        return False, f"{after} it still cannot be told to be as good: another label in {_share(other)}"
    return None


@cache
def least_telling(limit: float) -> int:
    """On how many compared requests without a single disagreement its interval lies below a limit; 0 of too many."""
    count = 1
    while confidence_sequence(0, count, ERROR / _QUANTITIES)[1] > limit:
        count *= 2
        if count > _MOST:
            return 0
    low, high = count // 2, count
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if confidence_sequence(0, middle, ERROR / _QUANTITIES)[1] <= limit else (middle, high)
    return high


def _figure(total: float, count: int, error: float) -> dict[str, float]:
    low, high = confidence_sequence(total, count, error)
    return {"value": total / max(1, count), "low": low, "high": high}


def _side(answered: int, confidence: float, seconds: float, tally: Tally) -> dict[str, Any]:
    compared = tally.compared or None
    return {
        "answered": answered,
        "confidence": confidence / compared if compared else None,
        "ms_per_image": 1000 * seconds / tally.images if tally.images else None,
    }


def _share(figure: Mapping[str, float]) -> str:
    return f"{figure['value']:.1%} ({figure['low']:.1%} to {figure['high']:.1%})"


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _bound(outside: float, inside: float, excluded: Any) -> float:
    """Where exclusion begins between the best value and an end of [0, 1]; outwards of it."""
    for _ in range(50):
        middle = (outside + inside) / 2
        if not 0 < middle < 1:
            return outside
        if excluded(middle):
            outside = middle
        else:
            inside = middle
    return outside
