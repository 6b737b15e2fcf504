"""When to stop searching: what another trial can be expected to bring."""

from __future__ import annotations

import math
from collections.abc import Sequence

LEAST = 5
"""Full trials that an expectation needs; with fewer anything may come."""


def expected_gain(scores: Sequence[float], tried: int) -> float:
    """By how much the next trial is expected to raise the best score; infinite where too little is known.

    scores: of the fully trained trials. tried: all trials so far, those stopped early included.

    Above its upper quantiles a score falls off about exponentially, with a scale that the leaders' mean excess over the
    best one behind them estimates (Weissman, 1978); the maximum of n + 1 such draws is on average scale / (n + 1) above
    that of n. A sampler that learns does better than draws at random, so the estimate is taken over all trials, the
    early, uninformed ones among them, whose scores are wider spread.
    """
    ordered = sorted(scores, reverse=True)
    leaders = max(2, math.ceil(math.sqrt(len(ordered))))
    if len(ordered) < max(LEAST, leaders + 1):
        return math.inf
    scale = sum(ordered[:leaders]) / leaders - ordered[leaders]
    return scale / (max(tried, len(ordered)) + 1)
