"""Metrics: what a classifier's probabilities are worth against true labels, one file each, found by name."""

from raytl.evaluation.metrics.base import SKEWED, Metric, get, metric, names, rarer, recorded, usual_metric
from raytl.evaluation.metrics.tables import confusion, correctness, log_losses

__all__ = [
    "SKEWED",
    "Metric",
    "confusion",
    "correctness",
    "get",
    "log_losses",
    "metric",
    "names",
    "rarer",
    "recorded",
    "usual_metric",
]
