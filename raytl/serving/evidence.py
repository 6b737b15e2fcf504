"""Is the version on trial as good as the one that is served? Looked at after every request, with one stated error.

No labels are at hand, so it is held against the served version on the same images: how often it names another label,
how sure it is, how long it takes, whether it fails, and how much more often it is right, as far as that can be told.
Each is the mean of a bounded quantity, and gets a confidence sequence: an interval that holds at all times together, so
that one may look as often as one likes (Robbins 1970; Howard, Ramdas, McAuliffe & Sekhon 2021, "Time-uniform,
nonparametric, nonasymptotic confidence sequences", Annals of Statistics 49(2)). Shares invert the mixture of likelihood
ratios against a beta distribution. Requests are taken to be independent of each other; a client that sends the same
image all the time is one that this fails on.

How much more often it is right is estimated on the images in which the two differ, with what that may be off by
(``evaluation.unseen_accuracy``). That is the candidate's: nobody is taken back for what may be the estimate's error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import Any

import numpy as np

from raytl.serving.settings import Candidate

ERROR = 0.05
"""Probability at most that any of the five intervals ever misses what it is about; each has a fifth of it."""
MAX_ERRORS = 0.01
MAX_CONFIDENCE_DROP = 0.1
MAX_ACCURACY_LOSS = 0.02
"""Estimated, and beside what the estimate may be off by."""
UNDECIDED = 10
"""A candidate that is not better known after so many times the requests that were asked for is taken back; or so many
times those without which nothing could be told."""
_MOST = 2**17
"""Compared requests that nobody waits for: a limit that takes more, or none at all, cannot be told to be kept."""

_QUANTITIES = 5
_BETS = 0.9 / 2.0 ** np.arange(6)
_PRICES = -np.log1p(-_BETS) - _BETS


@dataclass
class Tally:
    """What was counted of a trial in one replica, or in all of them.

    answered_live, answered_candidate: requests by who answered. attempts, errors: how often the candidate was asked,
        and failed or came too late where the served version answered. unseen: requests that were not compared, because
        a comparison was under way. lost: comparisons that came to nothing, though the candidate had not failed.
    compared: requests that both classified. disagreed: sum of the shares of their images with another label.
    confidence_live, confidence_candidate: sums of the mean confidences. slower: requests in which the candidate took
        longer than max_slowdown times as long. seconds_live, seconds_candidate, images: of the comparisons.
    judged: compared requests of which it could be told how probably either is right. gained: sum of how much more
        probably the candidate is, means over a request's images. excused, squares: sums of the same with what it may be
        off by added, and of its squares. unjudged: why it cannot be told, "" where it can or nothing was compared.
    """

    answered_live: int = 0
    answered_candidate: int = 0
    attempts: int = 0
    errors: int = 0
    unseen: int = 0
    lost: int = 0
    compared: int = 0
    disagreed: float = 0.0
    confidence_live: float = 0.0
    confidence_candidate: float = 0.0
    slower: int = 0
    seconds_live: float = 0.0
    seconds_candidate: float = 0.0
    images: int = 0
    judged: int = 0
    gained: float = 0.0
    excused: float = 0.0
    squares: float = 0.0
    unjudged: str = ""

    def add(self, other: Tally) -> None:
        """Count another replica's requests too."""
        unjudged = self.unjudged or other.unjudged
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))
        self.unjudged = unjudged

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Tally:
        """Inverse of :meth:`to_json`; what another version of raytl counts beside that is passed over."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})


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


def difference_sequence(total: float, squares: float, count: int, error: float) -> tuple[float, float]:
    """Bounds of the mean of independent values in [-1, 1] that hold for every ``count`` at once.

    They are close where most values are 0.
    total, squares: sums of the values and of their squares. error: probability at most that the bounds ever miss.
    For each bet b in [0, 1), exp(b x - p(b) x²) is at most 1 + b x with the price p(b) = -log(1 - b) - b (Fan, Grama &
    Liu 2015, "Exponential inequalities for martingales with applications", Electronic Journal of Probability 20). So
    what a few bets come to against a mean has at most the stated chance of ever being so much.
    """
    low = _lowest_mean(total, squares, count, error / 2)
    return low, -_lowest_mean(-total, squares, count, error / 2)


def figures(tally: Tally) -> dict[str, Any]:
    """The trial in numbers: shares with their intervals, milliseconds per image of either side.

    ``accuracy_gain`` is None where it can be told of no request, and ``why_no_accuracy`` says why. It decides with what
    it may be off by; ``estimated`` is without.
    """
    each = ERROR / _QUANTITIES
    compared = max(1, tally.compared)
    gain = tally.confidence_candidate - tally.confidence_live
    low, high = confidence_sequence((tally.compared + gain) / 2, tally.compared, each)
    return {
        "compared": tally.compared,
        "unseen": tally.unseen,
        "lost": tally.lost,
        "disagreement": _figure(tally.disagreed, tally.compared, each),
        "confidence_gain": {"value": gain / compared, "low": 2 * low - 1, "high": 2 * high - 1},
        "accuracy_gain": _accuracy_gain(tally, each),
        "why_no_accuracy": tally.unjudged or None,
        "slower": _figure(tally.slower, tally.compared, each),
        "errors": _figure(tally.errors, tally.attempts, each),
        "live": _side(tally.answered_live, tally.confidence_live, tally.seconds_live, tally),
        "candidate": _side(tally.answered_candidate, tally.confidence_candidate, tally.seconds_candidate, tally),
    }


def judge(tally: Tally, rules: Candidate) -> tuple[bool, str] | None:
    """Whether the candidate is to be promoted (else taken back), and why, in a sentence; None to go on looking."""
    known = figures(tally)
    errors, other, slower, gain = (known[key] for key in ("errors", "disagreement", "slower", "confidence_gain"))
    right = known["accuracy_gain"]
    after = f"after {tally.compared} compared requests"
    if errors["low"] > MAX_ERRORS:
        return False, f"it failed {tally.errors} of {tally.attempts} times; allowed is {MAX_ERRORS:.0%}"
    if other["low"] > rules.max_disagreement:
        return False, f"{after} it names another label in {worded(other)}; allowed are {rules.max_disagreement:.1%}"
    if gain["high"] < -MAX_CONFIDENCE_DROP:
        return False, f"{after} it is less sure by {-gain['value']:.2f} on average; allowed is {MAX_CONFIDENCE_DROP}"
    if right is not None and right["high"] < -MAX_ACCURACY_LOSS:
        return False, f"{after} it is right less often by an estimate: {_points(right)}"
    if slower["low"] > 0.5:
        return False, f"{after} it takes more than {rules.max_slowdown:g} times as long in {worded(slower)}"
    begun = tally.compared + tally.lost
    if not rules.promote_after or begun < rules.promote_after:
        return None
    as_good = other["high"] <= rules.max_disagreement and slower["high"] < 0.5
    as_good = as_good and (right is None or right["low"] >= -MAX_ACCURACY_LOSS)
    told = f"another label in {worded(other)}" + ("" if right is None else f", {_points(right)}")
    as_good = as_good and tally.compared >= rules.promote_after
    if as_good and errors["value"] <= MAX_ERRORS and gain["value"] >= -MAX_CONFIDENCE_DROP:
        return True, f"{after} it is not worse: {told}, confidence {gain['value']:+.2f}"
    least = max(least_telling(rules.max_disagreement), 0 if right is None else least_judged())
    if begun >= UNDECIDED * max(rules.promote_after, least):
        after += f" and {tally.lost} that could not be compared" if tally.lost else ""
        return False, f"{after} it still cannot be told to be as good: {told}"
    return None


def worded(share: Mapping[str, float]) -> str:
    """A share of :func:`figures` with its interval, as people read it."""
    return f"{share['value']:.1%} ({share['low']:.1%} to {share['high']:.1%})"


@cache
def least_telling(limit: float) -> int:
    """On how many compared requests without a single disagreement its interval lies below a limit; 0 of too many."""
    return _least(lambda count: confidence_sequence(0, count, ERROR / _QUANTITIES)[1] <= limit)


@cache
def least_judged() -> int:
    """The same of the accuracy: on how many without a disagreement it is known to be no worse than it may be."""
    return _least(lambda count: difference_sequence(0, 0, count, ERROR / _QUANTITIES)[0] >= -MAX_ACCURACY_LOSS)


def _least(known: Callable[[int], bool]) -> int:
    """The smallest count of which this is known, as of all above it; 0 where that is too many."""
    count = 1
    while not known(count):
        count *= 2
        if count > _MOST:
            return 0
    low, high = count // 2, count
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if known(middle) else (middle, high)
    return high


def _lowest_mean(total: float, squares: float, count: int, error: float) -> float:
    """Below which the mean is not, with this error at any time, by what some bets on more have won."""
    if count == 0:
        return -1.0
    won, limit = _BETS * total - _PRICES * squares, math.log(len(_BETS) / error)

    def excluded(mean: float) -> bool:
        return float(np.logaddexp.reduce(won - count * np.log1p(_BETS * mean))) >= limit

    low, high = -1.0, max(-1.0, min(1.0, total / count))
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if excluded(middle) else (low, middle)
    return low


def _accuracy_gain(tally: Tally, error: float) -> dict[str, float] | None:
    if not tally.judged:
        return None
    low, high = difference_sequence(tally.excused, tally.squares, tally.judged, error)
    value, estimated = tally.excused / tally.judged, tally.gained / tally.judged
    return {"value": value, "low": low, "high": high, "estimated": estimated}


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


def _points(figure: Mapping[str, float]) -> str:
    """Of the estimated accuracy, in hundredths."""
    low, high = 100 * figure["low"], 100 * figure["high"]
    said = f"estimated accuracy {100 * figure['estimated']:+.1f} points"
    return f"{said} ({low:+.1f} to {high:+.1f} with what it may be off by; {-100 * MAX_ACCURACY_LOSS:+.0f} may)"


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
