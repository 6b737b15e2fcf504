"""How good a model is, how sure one can be of it, and how to choose without seeing what must not be seen."""

from raytl.evaluation import metrics, validators
from raytl.evaluation.intervals import Interval, bootstrap_interval, paired_interval
from raytl.evaluation.metrics import classification_metrics, confusion, correctness, log_losses
from raytl.evaluation.validators import Outputs, score_all

__all__ = [
    "Interval",
    "Outputs",
    "bootstrap_interval",
    "classification_metrics",
    "confusion",
    "correctness",
    "log_losses",
    "metrics",
    "paired_interval",
    "score_all",
    "validators",
]
