"""Before a search: what of a space applies to a task, what promises most, what it will take."""

from __future__ import annotations

import time
from collections.abc import Sequence

from raytl.core.errors import UserError
from raytl.core.gpus import usable_gpus
from raytl.core.machine import cores
from raytl.search.cluster_quote import ClusterQuote, NodeType, read_cluster, reckon
from raytl.search.lanes.sizing import Lanes, plan_lanes, with_head_lanes
from raytl.search.planning import SearchSettings, make_workspace_settings
from raytl.search.propose.ranking import RankedSource, labelled_images
from raytl.search.propose.ranking import rank_sources as rank
from raytl.search.quote import Quote
from raytl.search.quote import quote as make_quote
from raytl.search.space.binding import BoundSpace
from raytl.search.space.definition import SearchSpace, load_space
from raytl.tasks import Task
from raytl.training.workspace import Workspace

__all__ = ["ClusterQuote", "NodeType", "bind", "quote", "rank_sources", "read_cluster", "reckon"]


def bind(task: Task, space: str | SearchSpace, assignments: Sequence[str] = ()) -> BoundSpace:
    """What of a space applies to a task; its ``problems`` tell what does not. Fetches published weights.

    Raises UserError where they do not fit together.
    """
    bound = BoundSpace(load_space(space, assignments) if isinstance(space, str) else space, task.data)
    bound.problems += bound.known.judge_test(task.test)
    return bound


def rank_sources(
    task: Task, space: str | SearchSpace | BoundSpace = "vision-small", *, seed: int = 0
) -> list[RankedSource]:
    """Which source models, frozen up to which cut, promise most for a task: best first, without training the target.

    Source models that learn a source domain first are trained here, and kept for the search.
    Raises UserError where no labelled image has the task's classes.
    """
    bound = space if isinstance(space, BoundSpace) else bind(task, space)
    workspace, _ = _on_this_machine(bound, SearchSettings(seed=seed))
    images = labelled_images(workspace)
    if images is None:
        raise UserError(
            "no labelled image to rank source models by; pass --target, or a --source-domain with its labels"
        )
    return rank(workspace, bound, images)


def quote(
    task: Task,
    space: str | SearchSpace | BoundSpace = "vision-small",
    *,
    trials: int | None = None,
    lanes: int | None = None,
    gpus_per_trial: float = 0.0,
    time_budget_s: float | None = None,
    seed: int = 0,
    probe_s: float | None = None,
    begun: float | None = None,
) -> Quote:
    """What :func:`search` with these arguments would take on this machine, from about ``probe_s`` seconds of probing.

    By default a minute, and with a time budget half of that at most; the question is then how much it would come to
    try. What the probe computes is kept for the search.
    begun: a moment of ``time.monotonic()`` from before the data was read, which takes a search as long; this call by
    default. Raises UserError where data and space do not fit together.
    """
    spent_s = 0.0 if begun is None else time.monotonic() - begun
    bound = space if isinstance(space, BoundSpace) else bind(task, space)
    settings = SearchSettings(
        trials=trials, lanes=lanes, gpus_per_trial=gpus_per_trial, time_budget_s=time_budget_s, seed=seed
    )
    workspace, planned = _on_this_machine(bound, settings)
    test = bound.known.unseen(task.test)
    return make_quote(
        workspace, bound, settings, planned,
        test_images=0 if test is None else len(test), probe_s=probe_s, spent_s=spent_s,
    )  # fmt: skip


def _on_this_machine(bound: BoundSpace, settings: SearchSettings) -> tuple[Workspace, Lanes]:
    """What a lane of a search here would have, without starting Ray."""
    machine = (float(max(cores(), settings.lanes or 1)), float(len(usable_gpus())))
    lanes = with_head_lanes(plan_lanes(settings.lanes, settings.gpus_per_trial, 1, [machine]), [machine])
    return Workspace(bound.data, make_workspace_settings(bound.data, bound.space, settings, lanes)), lanes
