"""All commands of ``raytl``: importing the modules registers them, in the order in which ``--help`` lists them."""

from raytl.cli import searching, planning  # isort: skip
from raytl.cli import models, endpoints, store, trying, control, jobs, catalogue, cache, doctor  # isort: skip
from raytl.cli.app import app

__all__ = [
    "app",
    "cache",
    "catalogue",
    "control",
    "doctor",
    "endpoints",
    "jobs",
    "models",
    "planning",
    "searching",
    "store",
    "trying",
]
