"""The one number that trials are compared by while the search runs, higher is better."""

from __future__ import annotations

from collections.abc import Mapping

LOG_LOSS_SHARE = 0.1


def score(metrics: Mapping[str, float]) -> float:
    """The selection score from validation metrics.

    With target labels: accuracy on the validation fold less a tenth of its log loss (capped at 3 nats). On a few dozen
    validation images accuracy alone takes so few values that most good strategies tie; the log loss tells them apart.
    Without: the mean of source-validation accuracy, the veto against collapse, and information maximisation on the
    unlabelled images scaled to [0, 1] (by ln k, through ``information_maximisation_share``).
    """
    if "accuracy" in metrics:
        return metrics["accuracy"] - LOG_LOSS_SHARE * min(metrics["log_loss"], 3.0)
    parts = [metrics[name] for name in ("source_accuracy", "information_maximisation_share") if name in metrics]
    return sum(parts) / len(parts) if parts else 0.0
