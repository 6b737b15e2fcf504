"""What the chosen candidate is worth: the winner of many flatters itself, and this takes the flattery off."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from raytl.evaluation.intervals import Interval
from raytl.evaluation.intervals.single import Spread, interval_at, spread_of
from raytl.evaluation.metrics import Metric

_RESAMPLES, _LEAST_RESAMPLES = 400, 50
_CELLS = 10**9
"""Probabilities that are looked at in all resamples together: a metric that ranks takes some ten seconds for so many.

Of larger tables there are fewer resamples, but so many at least: on that many images they all say nearly the same.
"""


@dataclass(frozen=True)
class _Table:
    """The candidates' probabilities on the items that count.

    rows: (c, n, k), anything where a candidate has none. seen: (c, n). stages: who was still in the race, from all to
    the complete ones.
    """

    rows: np.ndarray
    seen: np.ndarray
    labels: np.ndarray
    groups: np.ndarray | None
    stages: tuple[np.ndarray, ...]


def corrected_estimate(
    metric: Metric,
    candidates: Sequence[np.ndarray],
    labels: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    seed: int = 0,
) -> Interval:
    """The metric to expect of the candidate that is chosen, with its 95 % interval, from out-of-fold probabilities.

    candidates: (n, k) each, out-of-fold on the same items (repeats averaged), NaN rows where not validated. labels:
    (n,); groups: (n,) or None.

    Bootstrap bias-corrected cross-validation (Tsamardinos, Greasidou & Borboudakis, 2018): resample the items (the
    groups), choose in the bag, score the chosen out of the bag; the mean is the estimate. Of equals, and of few images
    there are many, chance chooses: the order in which they were tried would tell else. Out of the bag lies a third of
    the items, and many metrics are lower or higher on fewer of them whoever is chosen: what those chosen have more
    on all items than out of the bag on average, chosen or not, is added (:func:`_more_on_all`). So one candidate alone
    keeps its figure. The paper's percentiles are those of that third, too, and too far apart; the interval is the one
    that :func:`metric_interval` gives to a metric of that value on all items, for models like those chosen.

    Tables of very many probabilities are resampled fewer times, 50 at least: the mean of so many is off by a seventh of
    one out-of-bag score's error, which on tens of thousands of items is little beside the interval.

    The items are those that the candidates with the most validated items have in common. Candidates tried on fewer
    were left behind in a race, and the race flatters whoever won it. So it is run again in each bag: the best on the
    items that all have go on, as many as in truth went on; one that had been left behind takes the place of one that
    had not, whose predictions stand for its own on the items that it was never tried on. Raises ValueError where there
    is no candidate, or those with the most items have none in common.
    """
    table = _table(candidates, labels, groups)
    rng = np.random.default_rng(seed)
    weights = _resamples(rng, table, _count(metric, table))
    outside: dict[int, np.ndarray] = {}

    def out_of_bag(place: int) -> np.ndarray:
        if place not in outside:  # asked for by the race and by what comes after it
            outside[place] = _scores(metric, table, np.array([place]), (weights == 0).astype(np.float64))[0]
        return outside[place]

    scores, chosen = _raced(metric, table, weights, rng, out_of_bag)
    usable = np.isfinite(scores)
    value = math.nan
    if usable.any():
        found = scores[usable].mean() + _more_on_all(metric, table, chosen[usable], out_of_bag)
        value = float(np.clip(metric.oriented(float(found)), *metric.limits))
    return interval_at(metric, value, _typical(metric, table, chosen), table.labels, table.groups)


def with_all_labels(metric: Metric, estimate: Interval, share: float) -> Interval:
    """The estimate for a model trained on all labels, where those judged were trained on a share of them, in (0, 1].

    Errors fall with the number of images n as n**-a, with an exponent between 0 and 1/2 in image classification
    (Hestness et al., 2017; Viering & Loog, 2022). Which it is here nobody knows: the good end of the interval goes to
    where 1/2 leads, the rest stays.
    """
    factor = math.sqrt(share)
    best = metric.limits[1 if metric.higher_is_better else 0]
    if not math.isfinite(best):  # then there are no errors to fall
        return estimate
    if metric.higher_is_better:
        return replace(estimate, high=best - (best - estimate.high) * factor)
    return replace(estimate, low=best + (estimate.low - best) * factor)


def _table(candidates: Sequence[np.ndarray], labels: np.ndarray, groups: np.ndarray | None) -> _Table:
    if not len(candidates) or len({rows.shape for rows in candidates}) > 1 or len(candidates[0]) != len(labels):
        raise ValueError("an estimate needs candidates, each with one row of probabilities for each label")
    rows = np.stack(candidates).astype(np.float64)
    seen = np.asarray(np.isfinite(rows).all(axis=2))
    most = seen.sum(axis=1)
    kept = seen[most == most.max()].all(axis=0)
    if not kept.any():
        raise ValueError("the candidates with the most validated items have no item in common")
    rows, seen = rows[:, kept], seen[:, kept]
    counts = seen.sum(axis=1)
    stages = tuple(np.flatnonzero(counts >= count) for count in np.unique(counts[counts > 0]))
    return _Table(rows, seen, labels[kept], None if groups is None else groups[kept], stages)


def _count(metric: Metric, table: _Table) -> int:
    """How many resamples there are. Metrics that go by the label alone look at one number of an image."""
    candidates, images, classes = table.rows.shape
    cells = candidates * images * (1 if metric.by_label else classes)
    return int(min(_RESAMPLES, max(_LEAST_RESAMPLES, _CELLS // cells)))


def _resamples(rng: np.random.Generator, table: _Table, count: int) -> np.ndarray:
    """How often each item is in the bag, (b, n): all items of a group as often as the group."""
    codes = np.arange(len(table.labels))
    if table.groups is not None:
        codes = np.unique(table.groups, return_inverse=True)[1].reshape(-1)
    size = int(codes.max()) + 1
    drawn = rng.multinomial(size, np.full(size, 1 / size), size=count)
    return np.asarray(drawn[:, codes], dtype=np.float64)


def _raced(
    metric: Metric,
    table: _Table,
    weights: np.ndarray,
    rng: np.random.Generator,
    out_of_bag: Callable[[int], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Of each resample the score out of the bag, higher is better, and which complete candidate's place was chosen.

    out_of_bag: a complete candidate's scores there, (b,).
    """
    first = _scores(metric, table, table.stages[0], weights)
    if len(table.stages) == 1:
        places = table.stages[0][[_ranked(scores, rng)[0] for scores in first.T]]
        out = np.empty(len(weights))
        for place in np.unique(places):
            out[places == place] = out_of_bag(int(place))[places == place]
        return np.where(np.isfinite(out), out, math.nan), places
    outside = (weights == 0).astype(np.float64)
    found, chosen = [], []
    sign = 1 if metric.higher_is_better else -1
    for bag, out, scores in zip(weights, outside, first.T, strict=True):
        # Whose prediction each place has for each item: at first everybody's own.
        owner = np.repeat(np.arange(len(table.rows))[:, None], len(table.labels), axis=1)
        for stage, after in zip(table.stages, table.stages[1:], strict=False):
            if stage is not table.stages[0]:
                scores = np.array([_score(metric, table, owner[place], _common(table, stage), bag) for place in stage])
            ranked = stage[_ranked(scores, rng)][: len(after)]
            behind, freed = np.setdiff1d(ranked, after), np.setdiff1d(after, ranked)
            for newcomer, place in zip(behind, freed, strict=True):
                owner[place] = np.where(table.seen[newcomer], owner[newcomer], owner[place])
        last = table.stages[-1]
        everything = _common(table, last)
        scores = np.array([_score(metric, table, owner[one], everything, bag) for one in last])
        place = last[_ranked(scores, rng)[0]]
        found.append(sign * _value(metric, table, owner[place], everything, out))
        chosen.append(place)
    return np.array(found), np.array(chosen)


def _ranked(scores: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Places by their scores, the best first, equals in an order of chance."""
    return np.lexsort((rng.random(len(scores)), -scores))


def _more_on_all(metric: Metric, table: _Table, chosen: np.ndarray, out_of_bag: Callable[[int], np.ndarray]) -> float:
    """What those chosen score higher on all items than out of the bag, the mean over the resamples; (b,) places.

    out_of_bag: a complete candidate's scores there, (b,).

    That is the fewer items' doing and not the choice's: the F1 of a class falls, and its average precision rises, with
    every image less.
    """
    picks, often = np.unique(chosen, return_counts=True)
    everything = _scores(metric, table, picks, np.ones((1, len(table.labels))))[:, 0]
    outside = [out_of_bag(int(pick)) for pick in picks]
    alone = [scores[np.isfinite(scores)].mean() for scores in outside]
    return float(often @ (everything - alone) / often.sum())


def _common(table: _Table, stage: np.ndarray) -> np.ndarray:
    return np.flatnonzero(table.seen[stage].all(axis=0))


def _scores(metric: Metric, table: _Table, stage: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """On the items that all of the stage have, higher is better, minus infinity where undefined: (stage, b)."""
    items = _common(table, stage)
    if not len(items):
        return np.zeros((len(stage), len(weights)))
    sign = 1 if metric.higher_is_better else -1
    values = [metric.values(table.rows[one][items], table.labels[items], weights[:, items]) for one in stage]
    return np.where(np.isfinite(values), sign * np.array(values), -math.inf)


def _score(metric: Metric, table: _Table, owner: np.ndarray, items: np.ndarray, weights: np.ndarray) -> float:
    value = metric.oriented(_value(metric, table, owner, items, weights))
    return value if math.isfinite(value) else -math.inf


def _value(metric: Metric, table: _Table, owner: np.ndarray, items: np.ndarray, weights: np.ndarray) -> float:
    if not len(items):
        return math.nan
    return metric(table.rows[owner[items], items], table.labels[items], weights[items])


def _typical(metric: Metric, table: _Table, chosen: np.ndarray) -> Spread:
    """How one model's metric varies: the mean over those chosen.

    Not how the estimate varies, which is steadier where candidates fail on different items: what is asked is the
    worth of the one candidate that was chosen in truth.
    """
    picks, often = np.unique(chosen, return_counts=True)
    spreads = [spread_of(metric, table.rows[pick], table.labels, table.groups) for pick in picks]
    best = spreads[int(often.argmax())]
    share = often / often.sum()
    expected = share @ np.stack([spread.expected for spread in spreads])
    smoothed = float(share @ np.array([spread.smoothed for spread in spreads]))
    flattery = float(share @ np.array([spread.flattery for spread in spreads]))
    return Spread(best.influence, expected, smoothed, best.guess, best.df, flattery)
