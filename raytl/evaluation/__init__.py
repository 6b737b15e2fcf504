"""How good a model is, how sure one can be of it, and how to choose without seeing what must not be seen.

:mod:`raytl.evaluation.probes` and :mod:`raytl.evaluation.class_frequencies` are to be imported by name: they bring
torch and scipy's optimisers, which reading a leaderboard does without.
"""

from raytl.evaluation import validators
from raytl.evaluation.calibration import apply_temperature, calibration_error, fit_temperature
from raytl.evaluation.intervals import Interval, bootstrap_interval, paired_interval
from raytl.evaluation.metrics import classification_metrics, confusion, correctness, log_losses
from raytl.evaluation.transferability import h_score, log_me, rank_aggregate
from raytl.evaluation.validators import Outputs, score_all

__all__ = [
    "Interval",
    "Outputs",
    "apply_temperature",
    "bootstrap_interval",
    "calibration_error",
    "classification_metrics",
    "confusion",
    "correctness",
    "fit_temperature",
    "h_score",
    "log_losses",
    "log_me",
    "paired_interval",
    "rank_aggregate",
    "score_all",
    "validators",
]
