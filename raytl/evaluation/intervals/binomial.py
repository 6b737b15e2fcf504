"""The interval of a share of right answers."""

from __future__ import annotations

import math

from scipy.optimize import brentq
from scipy.special import betainc

_TAIL = 0.025
_Z = 1.959963984540054


def share_interval(share: float, answers: float, z: float = _Z) -> tuple[float, float]:
    """Both ends of the 95 % interval of a share in [0, 1] among so many independent answers, at least 1, whole or not.

    Clopper and Pearson's with half the probability of what was seen in each tail (mid-P; Lancaster, 1961), which covers
    about as often as is said. Wilson's does on average, but of a model that is right nine times in ten it is too low in
    up to one case of six with ten answers, and one of ten with a hundred: its upper end is drawn to the middle.

    z: quantile to use for the normal's, larger where the variance itself is not well known: counts as fewer answers
    (Korn & Graubard, 1998).
    """
    n = max(1.0, answers * (_Z / z) ** 2)
    right = share * n
    low, high = 0.0, 1.0
    if share > 0:
        low = brentq(lambda p: _at_least(right, n, p) - _TAIL, 0.0, share)
    if share < 1:
        high = 1 - brentq(lambda p: _at_least(n - right, n, p) - _TAIL, 0.0, 1 - share)
    return low, high


def _at_least(right: float, n: float, p: float) -> float:
    """Probability of more right answers than these, and half of that of as many; continued to what is not whole."""
    as_many_or_more = float(betainc(right, n - right + 1, p))
    more = float(betainc(right + 1, n - right, p)) if right < n else 0.0
    return math.fsum((as_many_or_more, more)) / 2
