"""A search told to the trackers that a team has already: MLflow, TensorBoard."""

from raytl.runs.tracking.tracking import Tracking, read_switches

__all__ = ["Tracking", "read_switches"]
