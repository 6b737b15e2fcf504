"""Trials of an earlier version on today's scale of scores, so that old and new ones compare."""

from __future__ import annotations

from collections.abc import Sequence

from raytl.evaluation import selection
from raytl.judging.choice import BALANCED_LOG_LOSS
from raytl.search.records import TrialRecord
from raytl.training.workspace import Workspace

ROUNDING = 1e-6
"""By which a figure from what was kept may lie off the one that was told."""
ROUNDING_OF_CLASSES = 1e-3
"""The same where the loss is reckoned from kept probabilities: the least of these have few digits left."""


def rescore(records: Sequence[TrialRecord], workspace: Workspace) -> None:
    """Reckon ``score`` and ``labelled`` anew, at every epoch, in all trials before the first one of this version.

    records: by number; changed in place. What needs no labels is taken as it was told. Of a metric that counts the
    classes alike, the loss that does so is known of a trial's end alone; elsewhere the one over the images has to do.
    """
    target = workspace.data.target
    if target is None or not workspace.folds:
        return  # nothing but what needs no labels of the target, whose scale is as it was
    ends = [_at_end(record, workspace) for record in records]
    rounding = ROUNDING_OF_CLASSES if workspace.metric.by_class else ROUNDING
    count = 0
    for number, (record, end) in enumerate(zip(records, ends, strict=True)):
        if end is None:
            differs = 0 < count == number  # it cannot be told, and came next
        else:
            differs = any(abs(record.history[-1].get(name, 0.0) - end[name]) > rounding for name in end)
        count = number + 1 if differs else count
    for record, end in list(zip(records, ends, strict=True))[:count]:
        for told in record.history:
            told |= _anew(told, record, workspace) or {}
        if record.history and end is not None:
            record.history[-1] |= end
        record.metrics |= end or _anew(record.metrics, record, workspace) or {}
        if record.score is not None:
            record.score = record.metrics.get("score", record.score)


def _at_end(record: TrialRecord, workspace: Workspace) -> dict[str, float] | None:
    """The scores of its last look; None where they cannot be told to the digit."""
    target = workspace.data.target
    if target is None or not record.history:
        return None
    if not workspace.metric.by_class:
        return _anew(record.history[-1], record, workspace)
    if not len(record.predicted):
        return None
    loss = float(BALANCED_LOG_LOSS(record.predicted, target.labels[record.validated]))
    return _anew(record.history[-1], record, workspace, loss)


def _anew(
    told: dict[str, float], record: TrialRecord, workspace: Workspace, log_loss: float | None = None
) -> dict[str, float] | None:
    """The scores by one look's metrics; None of versions that told too little, or of a fold that there is no more."""
    if "target-metric" not in told or record.fold >= len(workspace.folds):
        return None
    assert workspace.data.target is not None
    labels = workspace.data.target.labels[
        record.validated if len(record.validated) else workspace.folds[record.fold][1]
    ]
    share = workspace.metric.share_of_best(told["target-metric"], labels, len(workspace.data.classes))
    return selection.scores_again(told, share, len(labels), log_loss)
