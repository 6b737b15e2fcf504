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
from raytl.evaluation.transferability import h_score, log_me, rank_aggregate
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
    "h_score",
    "holm",
    "holm_comparisons",
    "log_losses",
    "log_me",
    "metric_interval",
    "metrics",
    "paired_interval",
    "paired_metric_interval",
    "rank_aggregate",
    "score_all",
    "validators",
]
