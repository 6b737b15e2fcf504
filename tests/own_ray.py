"""A Ray of a module's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from raytl.machines.few_processes import few_processes


def begin(**options: Any) -> None:
    """Start it. options: of ``ray.init``, beside those that all have."""
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    for again in (True, True, False):
        try:
            ray.init(address="local", **quiet, **options)
            return
        except Exception as error:  # Ray gives its raylet 30 s, which a busy machine may take to start a process
            if not again or "timed out during startup" not in str(error):
                raise
            ray.shutdown()


@contextmanager
def own_ray(num_cpus: int, **options: Any) -> Iterator[None]:
    """With as few processes as that of a search. options: of :func:`begin`."""
    with few_processes():
        begin(num_cpus=num_cpus, **options)
    try:
        yield
    finally:
        ray.shutdown()
