"""How good a model is, how sure one can be of it, and how to choose without seeing what must not be seen.

:mod:`raytl.evaluation.probes` and :mod:`raytl.evaluation.class_frequencies` are to be imported by name: they bring
torch and scipy's optimisers, which reading a leaderboard does without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raytl.core.lazy import lazily

if TYPE_CHECKING:
    from raytl.evaluation import metrics, validators
    from raytl.evaluation.calibration import apply_temperature, calibration_error, fit_temperature
    from raytl.evaluation.intervals import (
        Comparison,
        Interval,
        average_repeats,
        holm,
        holm_comparisons,
        metric_interval,
        paired_metric_interval,
    )
    from raytl.evaluation.metrics import confusion, correctness, log_losses
    from raytl.evaluation.validators import Outputs, score_all

__all__ = [
    "Comparison",
    "Interval",
    "Outputs",
    "apply_temperature",
    "average_repeats",
    "calibration_error",
    "confusion",
    "correctness",
    "fit_temperature",
    "holm",
    "holm_comparisons",
    "log_losses",
    "metric_interval",
    "metrics",
    "paired_metric_interval",
    "score_all",
    "validators",
]

__getattr__ = lazily(
    __name__,
    {
        "raytl.evaluation.calibration": "apply_temperature calibration_error fit_temperature",
        "raytl.evaluation.intervals": "Comparison Interval average_repeats holm holm_comparisons "
        "metric_interval paired_metric_interval",
        "raytl.evaluation.metrics": "confusion correctness log_losses",
        "raytl.evaluation.validators": "Outputs score_all",
    },
)
