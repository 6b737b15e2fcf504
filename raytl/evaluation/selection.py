"""The one number that trials are compared by while the search runs, higher is better."""

from __future__ import annotations

import math
from collections.abc import Mapping

LOG_LOSS_SHARE = 0.1
LOG_LOSS_CAP = 3.0


def score(metrics: Mapping[str, float], num_classes: int) -> float:
    """The selection score from the validators' scores.

    With target labels: accuracy on the validation fold less a tenth of its log loss (capped at 3 nats). On a few dozen
    validation images accuracy alone takes so few values that most good strategies tie; the log loss tells them apart.
    Without: the mean of source-validation accuracy, the veto against collapse, and information maximisation on the
    unlabelled images as a share of its maximum, ln k. Zero where neither can be had.
    """
    if "target-accuracy" in metrics:
        return metrics["target-accuracy"] - LOG_LOSS_SHARE * min(-metrics["target-log-loss"], LOG_LOSS_CAP)
    parts = []
    if "source-accuracy" in metrics:
        parts.append(metrics["source-accuracy"])
    if "information-maximisation" in metrics:
        parts.append(metrics["information-maximisation"] / math.log(max(2, num_classes)))
    return sum(parts) / len(parts) if parts else 0.0
