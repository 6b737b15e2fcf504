"""How good a model is, how sure one can be of it, and how to choose without seeing what must not be seen."""

from raytl.evaluation import metrics, validators
from raytl.evaluation.intervals import (
    Comparison,
    Interval,
    average_repeats,
    bootstrap_interval,
    holm,
    holm_comparisons,
    metric_interval,
    paired_interval,
    paired_metric_interval,
)
from raytl.evaluation.metrics import classification_metrics, confusion, correctness, log_losses
from raytl.evaluation.validators import Outputs, score_all

__all__ = [
    "Comparison",
    "Interval",
    "Outputs",
    "average_repeats",
    "bootstrap_interval",
    "classification_metrics",
    "confusion",
    "correctness",
    "holm",
    "holm_comparisons",
    "log_losses",
    "metric_interval",
    "metrics",
    "paired_interval",
    "paired_metric_interval",
    "score_all",
    "validators",
]
