"""A task made again of what it was made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raytl.tasks.build import Task
from raytl.tasks.demo import demo_task
from raytl.tasks.given import DEMO


def make_task(given: Mapping[str, Any]) -> Task:
    """The task again. Raises UserError where its data is not there any more."""
    return demo_task(int(given[DEMO])) if DEMO in given else Task(**given)
