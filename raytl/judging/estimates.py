"""TEMP"""

from raytl.evaluation.intervals import metric_interval


def corrected_estimate(metric, candidates, labels, groups=None, *, choose=None, seed=0):
    return max((metric_interval(metric, c, labels, groups) for c in candidates), key=lambda i: metric.oriented(i.value))
