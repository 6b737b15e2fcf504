"""Intervals: how sure a figure on few examples can be, and a difference of two."""

from raytl.evaluation.intervals.comparisons import Comparison, holm, holm_comparisons, paired_metric_interval
from raytl.evaluation.intervals.means import Interval
from raytl.evaluation.intervals.repeats import average_repeats
from raytl.evaluation.intervals.single import metric_interval

__all__ = [
    "Comparison",
    "Interval",
    "average_repeats",
    "holm",
    "holm_comparisons",
    "metric_interval",
    "paired_metric_interval",
]
