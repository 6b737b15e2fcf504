"""Which of the heads that were tried lead, at whatever size they see images, and what they say of the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raytl.search.jobs import JobKind
from raytl.search.plan.contest import Contest
from raytl.search.plan.kinds import is_on_the_middle
from raytl.search.records import TrialStatus
from raytl.training.strategy import Strategy


def leading_head(contest: Contest) -> Strategy | None:
    """What promises most of all heads that were tried on the most folds, at more pixels or on views included.

    Of those at the size at which images are to be seen, where one is told; all of the images in view only where labels
    bear it out.
    """
    heads = {
        record.strategy_key: Strategy.from_dict(record.strategy)
        for record in contest.records
        if record.kind == JobKind.PROBE and record.status == TrialStatus.COMPLETED
    }
    if not heads:
        return None
    heads = {key: one for key, one in heads.items() if one.source_model == contest.shown} or heads
    left = [key for key, one in heads.items() if not _is_seen_as_well(contest, key, one, heads)]
    promises = contest.promises()
    most = max(left or heads, key=lambda key: (len(contest.completed(key)), promises.get(key, float("-inf"))))
    return heads[most]


def has_looked(contest: Contest, uri: str) -> bool:
    """Whether images without labels have passed a source model."""
    return any(len(record.answers) for record in contest.records if record.strategy["source_model"] == uri)


def trails(contest: Contest, strategy: Strategy, best: Strategy) -> bool:
    """Whether a strategy is behind the best beyond doubt."""
    return strategy != best and contest.trails(strategy.key, best.key)


def usually_best(contest: Contest, ranked: Sequence[Strategy]) -> Strategy:
    """The best, or what does better than its kind on task after task, unless the images speak against it.

    ranked: best first.
    """
    best = ranked[0]
    if contest.labels is None:
        usual = contest.by_score([strategy.key for strategy in ranked]).key
        return next(strategy for strategy in ranked if strategy.key == usual)
    while True:
        better = (s for s in ranked if contest.yields(best.key, s.key) and not trails(contest, s, ranked[0]))
        next_best = next(better, None)
        if next_best is None:
            return best
        best = next_best


def labels_doubted_by(contest: Contest, keys: Sequence[str]) -> int:
    """How many labels all of these strategies doubt."""
    if contest.labels is None:
        return 0
    from raytl.evaluation.wrong_labels import doubted_by_all  # torch: the plan does without elsewhere

    told = (contest.said.out_of_fold(key) for key in keys)
    judges = [probabilities for probabilities in told if probabilities is not None]
    return len(doubted_by_all(judges, contest.labels.labels, contest.labels.classes))


def _is_seen_as_well(contest: Contest, key: str, one: Strategy, heads: Mapping[str, Strategy]) -> bool:
    """Whether the middle of the images does as well as all of them, for all that labels tell."""
    twins = [other for other, strategy in heads.items() if is_on_the_middle(strategy, one)]
    return any(not contest.outdoes(key, twin) for twin in twins)
