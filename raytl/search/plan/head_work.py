"""Which jobs a lane without a GPU does beside lanes that have one: what costs a CPU little.

Heads that are solved for are solved on the CPU wherever they are, up to some thousand images; what they stand on is a
network's pass over all images, which takes a GPU seconds and a CPU minutes. So such a lane reads the features that a
lane with a GPU has made on its node, and never makes them: made on a CPU they would differ in their last digits from
those that other strategies are held against. Plain features need no network, and are made wherever they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable

from raytl.search.jobs import TRIALS, JobKind, JobResult, LaneJob, times_forward, times_step
from raytl.sources.heads import ZERO_SHOT
from raytl.training.strategy import Strategy

Takes = Callable[[JobKind, Strategy, int | None], bool]
"""Whether a lane takes a job: by its kind, its strategy and its fold."""

_Features = tuple[str, str | None, str, str, int]


def anything(kind: JobKind, strategy: Strategy, fold: int | None) -> bool:
    """What a lane takes that all jobs are for."""
    return True


class HeadWork:
    """Where there are such lanes, and what they can do.

    few: whether there are so few labelled images that heads are solved for on the CPU. nodes: names of those that have
    such a lane, as lanes are named after them; kept up by who runs the lanes. None: all lanes are alike.
    """

    def __init__(self, *, few: bool) -> None:
        self.nodes: set[str] = set()
        self.few = few
        self._made: dict[str, dict[_Features, str]] = {}

    def suits(self, node: str, kind: JobKind, strategy: Strategy, fold: int | None) -> bool:
        """Whether a job is for a lane without a GPU on a node."""
        if not strategy.convex or strategy.head == ZERO_SHOT or not self.few:
            return False
        if _is_plain(strategy):
            return True
        # How long a network takes for an image is to be measured where networks are trained.
        timed = times_forward(kind, fold) or times_step(kind, strategy.head, fold)
        return not timed and bool(self.device_of(node, strategy))

    def leaves(self, kind: JobKind, strategy: Strategy, fold: int | None) -> bool:
        """Whether a lane with a GPU takes a job while there is something else for it: not what others do as well.

        A model is waited for: whoever is free makes it.
        """
        return kind == JobKind.REFIT or not any(self.suits(node, kind, strategy, fold) for node in self.nodes)

    def device_of(self, node: str, strategy: Strategy) -> str:
        """The kind of device whose features a node has for a strategy's head; empty for plain ones, or for none."""
        if _is_plain(strategy):
            return ""
        return self._made.get(node, {}).get(_features(strategy)) or self._made.get("", {}).get(_features(strategy), "")

    def ended(self, job: LaneJob, result: JobResult | None) -> None:
        """Take in the end of a job: the features that it made are on its lane's node."""
        if result is None or result.reason is not None or job.features_of or job.kind not in (*TRIALS, JobKind.REFIT):
            return
        strategy = Strategy.from_dict(job.strategy)
        if strategy.convex and result.device:
            # What the driver did before there were lanes it did on the only node that there is.
            self._made.setdefault(result.lane.rpartition("-")[0], {})[_features(strategy)] = result.device

    def absent(self, job: LaneJob, node: str) -> None:
        """A lane did not find them: not before another one has made them there."""
        for place in (node, ""):
            self._made.get(place, {}).pop(_features(Strategy.from_dict(job.strategy)), None)


def _is_plain(strategy: Strategy) -> bool:
    return strategy.source_model.startswith("plain:")


def _features(strategy: Strategy) -> _Features:
    """What all strategies with the same value find the same features for."""
    views = (strategy.augmentation, strategy.cached_views) if strategy.cached_views else ("none", 0)
    return strategy.source_model, strategy.source_domain, strategy.adaptation, *views
