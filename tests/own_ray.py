"""A Ray of a module's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from raytl.machines.few_processes import few_processes


@contextmanager
def own_ray(num_cpus: int, **options: Any) -> Iterator[None]:
    """With as few processes as that of a search. options: of ``ray.init``, beside those that all have."""
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    with few_processes():
        ray.init(address="local", num_cpus=num_cpus, **quiet, **options)
    try:
        yield
    finally:
        ray.shutdown()
