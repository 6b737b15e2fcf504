"""How far a network is to be believed that no held-out label has judged: as far as a head of another kind agrees.

What learned from images without labels is sure of its answers whether or not they are right. How often it says the same
as a head on frozen features, which learned in another way, tells how often it is right, as far as the two err
independently (Jiang et al., 2022). Of 114 networks trained on eleven tasks, without labels or with one a class, the
mean probability of the answer missed the share of right ones by 44 points on average, this share by 6; by more than 20
where the head itself was right for a fifth. Where the network is much better than the head it says too little.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raytl.evaluation.calibration import confidence_temperature
from raytl.judging.choice import Choice
from raytl.search.on_unlabelled import LEAST_SEEN, NOT_HAD, as_there_is_time
from raytl.search.plan.schedule import SearchPlan
from raytl.search.test_split import probabilities_of
from raytl.sources.checkpoint import load_checkpoint
from raytl.tasks.splits import spread
from raytl.training.roles import PROBE_SAMPLE
from raytl.training.strategy import Strategy
from raytl.training.workspace import Workspace

BELIEVED = 0.7
"""Share of the images for which a network says the same as the best head, from which on it is chosen without a label.

Below it one of the two is wrong for many images, and that is the head more seldom. On 18 tasks without labels, those of
``benchmarks/validators.py``, with all heads and five of the networks on offer, choosing so gave away 11.5 points of
accuracy on average, without it 14.2, heads alone 10.9: it was up to 21 points better, and once 7 worse, where no head
was right for more than half.
"""


@dataclass(frozen=True)
class Agreement:
    """How often a network says the same of unlabelled images as a head on frozen features.

    value: the share, of so many images. temperature: >= 1, with which the network is no surer than that on average.
    head: key of the head's strategy.
    """

    value: float
    images: int
    temperature: float
    head: str

    @classmethod
    def of(cls, plan: SearchPlan, workspace: Workspace, key: str) -> Agreement | None:
        """That of a strategy that was refitted with the best head that was.

        None of a head, of what enough held-out labels have judged, and where it cannot be had: of few images, without a
        head, without time, or where an image cannot be read any more.
        """
        strategy, images = Strategy.from_dict(plan.contest.strategy_of(key)), workspace.data.unlabelled
        head, done = _best_head(plan), plan.refits.done
        if strategy.convex or head is None or key not in done or plan.contest.said.temperature(key) is not None:
            return None
        if images is None or len(images) < LEAST_SEEN:
            return None
        # Of a large network at the end of a short budget fewer images are asked: some tell a contradiction too.
        most, left_s = min(PROBE_SAMPLE, len(images)), plan.spare_seconds() / 2
        count = as_there_is_time(plan, strategy.source_model, left_s, most, networks=2)
        if not count:
            return None
        seen = images.subset(spread(np.arange(len(images)), count))
        try:
            models = [load_checkpoint(Path(done[which]))[1] for which in (key, head)]
            said, other = (probabilities_of(model, [model.head], workspace, seen)[0] for model in models)
        except NOT_HAD:  # an image was moved since, say: no reason to lose the model
            return None
        value = float((said.argmax(axis=1) == other.argmax(axis=1)).mean())
        return cls(value, len(seen), max(1.0, confidence_temperature(said, value)), head)

    def settles(self, plan: SearchPlan, key: str) -> Choice | None:
        """The head in the place of a network that it does not confirm; None where it does, or any label speaks.

        A head that says the same of nearly all images contradicts nobody who tells them apart.
        """
        if self.value >= BELIEVED or plan.contest.said.each(key) is not None:
            return None
        if plan.contest.collapses_beside(self.head, key):
            return None
        return Choice(self.head, (self.head, key), math.nan, "agreement")


def _best_head(plan: SearchPlan) -> str | None:
    """Key of the best head on frozen features that was made a model; None without."""
    known = {record.strategy_key: Strategy.from_dict(record.strategy) for record in plan.records}
    made = [key for key in plan.refits.done if key in known and known[key].convex]
    return plan.contest.by_score(made).key if made else None
