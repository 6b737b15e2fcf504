"""What training a strategy comes to, before any was trained: how often an image passes through its network."""

from __future__ import annotations

from dataclasses import dataclass

from raytl import adaptation
from raytl.search.space.binding import BoundSpace
from raytl.training.roles import MOST_RECALIBRATED, MOST_TAUGHT, most_source, unlabelled_sample
from raytl.training.strategy import Strategy
from raytl.training.workspace import Budget

TRAINED_SHARE = 0.8
"""Of the labelled target images, while a fold is held out."""


@dataclass(frozen=True)
class Passes:
    """Of an image through a whole network, as if every image passed all of it: forward only, and in training steps.

    looked: of a head that is solved for, what looking at images without labels comes to, on the first fold.
    """

    forward: float
    trained: float
    looked: float = 0.0


class Effort:
    """Of full trainings on a task.

    space: bound to the task. budget: of the full training. Which of a strategy's images can be run through its frozen
    stages beforehand is what makes the difference; stages are taken to cost the same unless it is said.
    """

    def __init__(self, space: BoundSpace, budget: Budget) -> None:
        self._space = space
        self._budget = budget

    def passes(self, strategy: Strategy, frozen: float | None = None) -> Passes:
        """Of a full training, evaluation included. frozen: share of a pass that the frozen stages take, where known."""
        pools = self._pools(strategy)
        if strategy.convex or not pools:
            versions = 1 + (strategy.cached_views if strategy.augmentation != "none" else 0)
            passed = sum(count * (versions if role in ("target", "source") else 1) for role, count in pools.items())
            return Passes(float(passed), 0.0, float(self._unlabelled_looked_at(strategy)))
        largest = max(pools.values())
        strong = strategy.adaptation != "none" and adaptation.get(strategy.adaptation).loss.wants_strong_view
        drawn = self._budget.epochs * self._budget.steps_for(largest) * self._budget.batch_for(largest)
        trained = drawn * (len(pools) + strong)
        if frozen is None:
            frozen = min(1.0, strategy.cut / max(1, self._space.stage_count(strategy.source_model)))
        beforehand = frozen > 0 and (strategy.cached_views > 0 or (strategy.augmentation == "none" and not strong))
        looked, looks = self._looked_at(strategy), len(self._budget.looks) + 1
        kept = sum(pools.values()) * (1 + strategy.cached_views) + looked if beforehand else trained + looks * looked
        first = sum(pools.values()) if strategy.start == "probe" else 0  # its head is solved for on what they all show
        return Passes(frozen * kept + (1 - frozen) * (first + looks * looked), (1 - frozen) * trained)

    def _pools(self, strategy: Strategy) -> dict[str, int]:
        """Images by role that train."""
        data, found = self._space.data, {}
        if data.target is not None and strategy.target_labels:
            found["target"] = round(TRAINED_SHARE * len(data.target))
        if strategy.source_domain is not None:
            sizes = [len(data.source_domains[name]) for name in data.domains_of(strategy.source_domain)]
            found["source"] = sum(min(most_source(len(data.classes)), n) if strategy.convex else n for n in sizes)
        adapts = strategy.adaptation != "none" and not adaptation.get(strategy.adaptation).loss.gradient_free
        if adapts and data.unlabelled is not None:
            found["unlabelled"] = len(data.unlabelled)
        if strategy.adaptation != "none" and adaptation.get(strategy.adaptation).loss.propagates_labels:
            found["taught"] = 0 if data.unlabelled is None else min(MOST_TAUGHT, len(data.unlabelled))
        return {role: count for role, count in found.items() if count}

    def _looked_at(self, strategy: Strategy) -> int:
        """Images that an evaluation passes through the network, the moved versions included."""
        data = self._space.data
        images = 0 if data.target is None else round((1 - TRAINED_SHARE) * len(data.target))
        if data.unlabelled is not None:
            images += self._unlabelled_looked_at(strategy)
            if strategy.adaptation != "none" and adaptation.get(strategy.adaptation).loss.recalibrates_norm:
                images += min(MOST_RECALIBRATED, len(data.unlabelled))
        return images

    def _unlabelled_looked_at(self, strategy: Strategy) -> int:
        """Of an evaluation, the images without labels, still and moved."""
        data = self._space.data
        most = unlabelled_sample(strategy, validates=data.target is not None)
        return 2 * min(most, 0 if data.unlabelled is None else len(data.unlabelled))
