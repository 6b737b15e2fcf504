"""Metrics: what a classifier's probabilities are worth against true labels, one file each, found by name."""

from raytl.evaluation.metrics.base import Metric, get, metric, names, usual_metric
from raytl.evaluation.metrics.tables import classification_metrics, confusion, correctness, log_losses

__all__ = [
    "Metric",
    "classification_metrics",
    "confusion",
    "correctness",
    "get",
    "log_losses",
    "metric",
    "names",
    "usual_metric",
]
