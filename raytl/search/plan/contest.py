"""How strategies stand by their trials: who leads, who is still in the race, who wins and on what grounds.

Where the target has labels, by what was said of the validation images (:mod:`raytl.judging`); else by the trials' mean
scores, which is all there is.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from raytl.evaluation.intervals import Comparison, paired_metric_interval
from raytl.judging.choice import ONE_IN_TWENTY, UNSURE, Choice, Contestant, choose, separates
from raytl.judging.one_answer import one_for_all
from raytl.judging.screening import posterior_means
from raytl.search.plan.kinds import differs_in_size, goes_astray, on_target_alone, outdone, yields_to
from raytl.search.plan.said import Labels, Said
from raytl.search.records import TrialRecord, TrialStatus
from raytl.sources.heads import ZERO_SHOT
from raytl.training.strategy import Strategy

LEAST_IMAGES = 6
"""On fewer images that all speak for one side a standard error says nothing."""
HARDLY_BETTER = 0.25
"""Of the images that a strategy was asked, the share at least that a rival was asked of which it is hardly known
worse."""
_SAME = 1e-9
_SEEN = ("labelled", "unlabelled")
"""Metrics of a trial by which it promises."""
_Trials = tuple[tuple[int, ...], ...]


class Contest:
    """The standing of all strategies.

    records: of all trials, as they come in. labels: None where there are none to judge by. apart: whether the images
    without labels are known to be of another kind than the labelled ones. frequencies: of the classes among them, empty
    where nothing is known. shown: the source model at the size at which images are to be seen, by the labels.
    """

    def __init__(self, records: Sequence[TrialRecord], labels: Labels | None) -> None:
        self.records = records
        self.apart = False
        self.frequencies: Sequence[float] = ()
        self.shown = ""
        self.said = Said(labels, self.completed)
        # What is asked for at every job, of the same trials mostly: by the trials of two, and by what cannot be had.
        self._trailing: dict[_Trials, bool] = {}
        self._lagging: dict[_Trials, bool] = {}
        self._chosen: dict[frozenset[str], tuple[Hashable, Choice | None]] = {}
        self._promised: tuple[Hashable, dict[str, float]] | None = None
        self._strategies: dict[str, Strategy] = {}

    @property
    def labels(self) -> Labels | None:
        """What strategies are judged by; None where the target has no labels."""
        return self.said.labels

    # --- by trials --------------------------------------------------------------------------------------------------

    def completed(self, key: str) -> list[TrialRecord]:
        """The completed trials of a strategy, one per fold: it may have been tried as several things."""
        found = {
            record.fold: record
            for record in self.records
            if record.strategy_key == key and record.status == TrialStatus.COMPLETED
        }
        return [found[fold] for fold in sorted(found)]

    def strategy_of(self, key: str) -> dict[str, Any]:
        """The flat values of a strategy that was tried."""
        return next(record.strategy for record in self.records if record.strategy_key == key)

    def _strategy(self, key: str) -> Strategy:
        if key not in self._strategies:
            self._strategies[key] = Strategy.from_dict(self.strategy_of(key))
        return self._strategies[key]

    def scores(self) -> dict[str, dict[int, float]]:
        """Scores of the completed trials by strategy and fold; controls take no part."""
        folds: dict[str, dict[int, float]] = defaultdict(dict)
        for record in self.records:
            if record.status == TrialStatus.COMPLETED and record.score is not None and record.kind != "control":
                folds[record.strategy_key][record.fold] = record.score
        return folds

    def evened_scores(self) -> dict[str, float]:
        """Mean scores as if all had been tried on the same folds: a fold that is easier flatters nobody.

        Each score is taken for the sum of what is the strategy's and what is the fold's, by least squares. Who was
        tried on one fold, which hundreds may have been, tells nothing of it.
        """
        return _evened(self.scores())

    def promises(self) -> dict[str, float]:
        """What the strategies promise by all folds that they were tried on, by key, as if they were the same folds.

        By the labels where there are any, helped by what is seen on images without (:meth:`leaders`); else by scores.
        """
        tried: dict[str, dict[int, TrialRecord]] = defaultdict(dict)
        for record in self.records:
            if record.status == TrialStatus.COMPLETED and record.score is not None and record.kind != "control":
                tried[record.strategy_key][record.fold] = record
        everything = [record for found in tried.values() for record in found.values()]
        if self.labels is None or not all("labelled" in record.metrics for record in everything):
            return self.evened_scores()
        labelled = {
            key: {fold: record.metrics["labelled"] for fold, record in found.items()} for key, found in tried.items()
        }
        records = {key: list(found.values()) for key, found in tried.items()}
        return _helped(_evened(labelled), records, len(self.labels.labels))

    def leaders(self, count: int) -> list[str]:
        """The strategies that promise most by the first fold, on which all were tried; best first.

        The labelled images of one fold are few. Where there are images without labels, what is seen on them counts as
        far as it has been telling so far (:func:`raytl.judging.screening.posterior_means`).
        """
        promise = self._promise()
        return sorted(promise, key=lambda key: -promise[key])[:count]

    def _completed_on(self, fold: int) -> list[TrialRecord]:
        return [
            record
            for record in self.records
            if record.fold == fold and record.status == TrialStatus.COMPLETED and record.kind != "control"
        ]

    def _promise(self) -> dict[str, float]:
        """What the strategies promise by the first fold, by key."""
        by_key = {record.strategy_key: record for record in self._completed_on(0) if record.score is not None}
        of = tuple((r.number, key, r.score, *map(r.metrics.get, _SEEN)) for key, r in by_key.items())
        if self._promised is None or self._promised[0] != of:
            self._promised = of, self._promises_of(by_key)
        return self._promised[1]

    def _promises_of(self, by_key: Mapping[str, TrialRecord]) -> dict[str, float]:
        """The same by trials, one for each key."""
        if self.labels is None or not all("labelled" in record.metrics for record in by_key.values()):
            return {key: record.score or 0.0 for key, record in by_key.items()}
        labelled = {key: record.metrics["labelled"] for key, record in by_key.items()}
        return _helped(labelled, {key: [record] for key, record in by_key.items()}, len(self.labels.labels))

    # --- by what was said of each image -----------------------------------------------------------------------------

    def trails(self, key: str, other: str) -> bool:
        """Whether a strategy is behind another beyond doubt, on the folds that both were tried on."""
        of = self._trials_of(key, other)
        if of not in self._trailing:
            both = self._both(key, other)
            self._trailing[of] = (
                both is not None
                and self.labels is not None
                and separates(*both, self.labels.labels, self.labels.metric, self.labels.groups)
            )
        return self._trailing[of]

    def lags(self, key: str, other: str) -> bool:
        """Whether a strategy is behind another by more than a standard error, on the folds that both were tried on."""
        of = self._trials_of(key, other)
        if of not in self._lagging:
            both = self._both(key, other)
            gap = None if both is None else self._gap(both[1], both[0])
            self._lagging[of] = gap is not None and bool(gap.value > gap.standard_error)
        return self._lagging[of]

    def _trials_of(self, key: str, other: str) -> _Trials:
        """Numbers of the trials of each of two strategies, on the folds that both were tried on."""
        common = self._common(key, other)
        return tuple(tuple(r.number for r in self.completed(one) if r.fold in common) for one in (key, other))

    def outdoes(self, key: str, other: str) -> bool:
        """Whether a strategy is chosen where another is the choice as well, on the folds that both were tried on."""
        common = self._common(key, other)
        return bool(common) and self._among([key, other], {key: common, other: common}).key == key

    def _both(self, key: str, other: str) -> tuple[Contestant, Contestant] | None:
        """What is known of two strategies on the folds that both were tried on; None where labels tell nothing."""
        common = self._common(key, other)
        mine, others = self._contestant(key, common), self._contestant(other, common)
        return None if self.labels is None or mine is None or others is None else (mine, others)

    def _common(self, key: str, other: str) -> set[int]:
        return {r.fold for r in self.completed(key)} & {r.fold for r in self.completed(other)}

    def _gap(self, one: Contestant, other: Contestant) -> Comparison | None:
        """How far one is ahead on the images that both were asked; None on fewer than tell a standard error."""
        assert self.labels is not None
        both = one.seen & other.seen
        if both.sum() < LEAST_IMAGES:
            return None
        labels, groups = self.labels.labels[both], None if self.labels.groups is None else self.labels.groups[both]
        rows = one.probabilities[both], other.probabilities[both]
        return paired_metric_interval(self.labels.metric, *rows, labels, groups)

    def choice(self, failed: Sequence[str] = ()) -> Choice | None:
        """The winner; None where nothing was completed. failed: keys of strategies that cannot be had.

        All that were looked at most closely are compared, on the folds that they have in common. What there was less
        time for, strategies that are trained and probes alike, has to overtake the best of them (:meth:`_overtakes`):
        one of several, on a few images, is ahead by chance.
        """
        completed = (record for record in self.records if record.status == TrialStatus.COMPLETED)
        known = self.apart, tuple(self.frequencies), self.shown
        of = known, tuple((record.number, record.strategy_key, record.score) for record in completed)
        without = frozenset(failed)
        if without not in self._chosen or self._chosen[without][0] != of:
            self._chosen[without] = of, self._choose(without)
        return self._chosen[without][1]

    def _choose(self, failed: Collection[str]) -> Choice | None:
        folds = {key: set(found) for key, found in self.scores().items() if key not in failed}
        if not folds:
            return None
        trained = max((len(found) for key, found in folds.items() if not self._is_probe(key)), default=0)
        most = max(len(found) for found in folds.values())
        known = self._among([key for key, found in folds.items() if len(found) == most], folds)
        if 0 < trained < most:
            hurried = self._among([key for key, found in folds.items() if len(found) >= trained], folds)
            if self.labels is None or self._overtakes(hurried.key, known.key):
                known = hurried
        late = [key for key in folds if self._is_probe(key) and len(folds[key]) < len(folds[known.key])]
        ahead = [key for key in late if self._overtakes(key, known.key)]
        if not ahead:
            return known
        found = self._among(ahead, folds)
        return replace(found, grounds="overtook") if found.grounds == "alone" else found

    def _overtakes(self, key: str, other: str) -> bool:
        """Whether a strategy is ahead of one that is known better by more than its fewer images give by chance.

        By one in twenty on the folds that both were tried on; by one standard error where what is seen of the
        unlabelled images says the same. Where that says it clearly, and labels nothing else, it is enough that the
        other one is not known much better: it was tried on more by chance, while this one was still to be made. The
        less it is known better the less clearly: of two that are known as well this evidence settles ties. What
        the other one yields to, or is seen at a size that labels told, need only not be behind by a standard error.
        """
        both = self._both(key, other)
        if both is None:
            return False
        mine, rival = both
        strategy = self._strategy(key)
        usual = self.yields(other, key) or self._is_shown_better(strategy, self._strategy(other))
        gap = self._gap(mine, rival)
        if gap is None:
            return usual
        if usual:
            return bool(gap.value >= -gap.standard_error)
        seen = [one.unlabelled for one in (mine, rival) if one.unlabelled is not None]
        surer = seen[0] - seen[1] if len(seen) == 2 else 0.0
        if gap.value > (1.0 if surer > 0 else ONE_IN_TWENTY) * gap.standard_error and gap.value > 0:
            return True
        if not strategy.convex and on_target_alone(strategy):
            return False  # trained on few images alone it is sure whether or not it is right
        promise, known = self._promise(), self._contestant(other, {r.fold for r in self.completed(other)})
        if known is None or promise.get(key, -np.inf) < promise.get(other, np.inf) - _SAME:
            return False
        share = (mine.seen & rival.seen).sum() / known.seen.sum()
        if share < HARDLY_BETTER or surer <= UNSURE * (1 - share):
            return False
        return self.outdoes(key, other)

    def _among(self, finalists: Sequence[str], folds: dict[str, set[int]]) -> Choice:
        """The choice among these, on the folds that all of them have."""
        common = set.intersection(*(folds[key] for key in finalists))
        contestants = [self._contestant(key, common) for key in finalists]
        known = [contestant for contestant in contestants if contestant is not None]
        if self.labels is None or not known:
            return self.by_score(finalists, common)
        known = [
            replace(one, yields_to=frozenset(key for key in finalists if self.yields(one.key, key))) for one in known
        ]
        return choose(known, self.labels.labels, self.labels.metric, self.labels.groups, apart=self.apart)

    def yields(self, key: str, other: str) -> bool:
        """Whether a strategy that was tried yields to another, of a kind that does better on task after task."""
        one, rival = self._strategy(key), self._strategy(other)
        kinds = yields_to(one, rival, apart=self.apart) and not self._is_shown_better(one, rival)
        return kinds and not self.collapses_beside(other, key)

    def _is_shown_better(self, one: Strategy, other: Strategy) -> bool:
        """Whether a strategy is another one at the size at which images are to be seen."""
        return one.source_model == self.shown and differs_in_size(one, other)

    def collapses_beside(self, key: str, other: str) -> bool:
        """Whether a strategy says the same of nearly all unlabelled images, where another does not.

        Whatever its kind does on other tasks, it does not on this one.
        """
        mine, others = (self._one_answer(which) for which in (key, other))
        return mine and not others

    def _one_answer(self, key: str) -> bool:
        answers = [record.answers for record in self.completed(key) if len(record.answers)]
        return bool(answers) and one_for_all(np.mean(answers, axis=0), self.frequencies) is not None

    def _is_probe(self, key: str) -> bool:
        return self._strategy(key).convex

    def by_score(self, keys: Sequence[str], common: Collection[int] = ()) -> Choice:
        """The choice where there are no target labels: by the scores, as far as these can tell.

        Of what is as good for all that is known, the kind that does better on task after task. Heads made of class
        names may be sure of what they get wrong: one is chosen only where it is as right, as far as can be told, on the
        source domain, which it has not learned, as those that have. Where the images without labels are of another
        kind, a head that learned from them too is taken only where there is no other. common: folds to take the scores
        of; none for all, as if all had been tried on the same.
        """
        scores = self.scores()
        if self.apart:
            keys = [key for key in keys if not goes_astray(self._strategy(key))] or keys
        named = [key for key in keys if self.strategy_of(key).get("head") == ZERO_SHOT]
        if 0 < len(named) < len(keys):
            right = {key: self._right_on_the_domain(key) for key in keys}
            learned = max(right[key] for key in keys if key not in named)
            ahead = [key for key in named if right[key] >= learned - UNSURE > 0]
            if ahead:
                # It has learned nothing of the domain that may not hold elsewhere.
                found = max(ahead, key=lambda key: right[key])
                return Choice(found, (found,), float("nan"), "usual")
            keys = [key for key in keys if key not in named]
        evened = {} if common else self.evened_scores()
        means = {key: float(np.mean([scores[key][fold] for fold in common])) if common else evened[key] for key in keys}
        best = found = max(means, key=lambda key: means[key])
        strategies = {key: self._strategy(key) for key in keys}
        while True:
            usual = [
                key
                for key in keys
                if self._yields_by_score(strategies[found], strategies[key], near=means[best] - means[key] <= UNSURE)
                and not self.collapses_beside(key, found)
            ]
            if not usual:
                break
            found = max(usual, key=lambda key: means[key])
        grounds = "highest score" if found == best else "usual"
        return Choice(found, (best,) if found == best else (found, best), float("nan"), grounds)

    def _yields_by_score(self, one: Strategy, other: Strategy, *, near: bool) -> bool:
        """near: whether the other's score is as high as the highest, for all that is known."""
        if outdone(one, other, apart=self.apart) or self._is_shown_better(other, one):
            return True
        return near and yields_to(one, other, labelled=False, apart=self.apart)

    def _right_on_the_domain(self, key: str) -> float:
        """Share of right answers on the held-out images of the source domain, 0 where it was not asked of them."""
        return max((record.metrics.get("source-accuracy", 0.0) for record in self.completed(key)), default=0.0)

    def _contestant(self, key: str, folds: set[int]) -> Contestant | None:
        predicted = self.said.judged(key, folds)
        if predicted is None:
            return None
        records = [record for record in self.completed(key) if record.fold in folds]
        unlabelled = [record.metrics["unlabelled"] for record in records if "unlabelled" in record.metrics]
        strategy = Strategy.from_dict(records[0].strategy)
        return Contestant(
            key,
            predicted,
            unlabelled=float(np.mean(unlabelled)) if unlabelled else None,
            cost=float(np.mean([record.seconds for record in records])),
            frozen=1.0 if strategy.convex else min(0.9, strategy.cut / 10),
        )


def _evened(scores: Mapping[str, Mapping[int, float]]) -> dict[str, float]:
    """Means of scores by strategy and fold as if all had been tried on the same folds."""
    folds = sorted({fold for found in scores.values() for fold in found})
    several = [found for found in scores.values() if len(found) > 1]
    rows = [(place, fold, score) for place, found in enumerate(several) for fold, score in found.items()]
    design = np.zeros((len(rows) + 1, len(several) + len(folds)))
    for row, (place, fold, _) in enumerate(rows):
        design[row, place] = design[row, len(several) + folds.index(fold)] = 1.0
    design[-1, len(several) :] = 1.0  # the folds' parts come to nothing
    solved = np.linalg.lstsq(design, np.array([*(score for _, _, score in rows), 0.0]), rcond=None)[0]
    easy = dict(zip(folds, solved[len(several) :].tolist(), strict=True))
    return {
        key: round(float(np.mean([score - easy[fold] for fold, score in found.items()])), 9)
        for key, found in scores.items()
    }


def _helped(
    labelled: Mapping[str, float], records: Mapping[str, Sequence[TrialRecord]], labels: int
) -> dict[str, float]:
    """What strategies promise by their figures on labelled images, and by what their trials saw on others; by key.

    labels: how many labelled images there are; repeats are of the same ones.
    """
    if not labelled:
        return {}
    images = [max(1, min(labels, sum(len(record.validated) for record in records[key]))) for key in labelled]
    seen = [[r.metrics["unlabelled"] for r in records[key] if "unlabelled" in r.metrics] for key in labelled]
    known = np.array([np.mean(one) if one else math.nan for one in seen])
    means = posterior_means(np.array(list(labelled.values())), np.array(images), known)
    return dict(zip(labelled, map(float, means), strict=True))
