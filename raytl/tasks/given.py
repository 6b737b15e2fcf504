"""What a task was made of, as plain values, so that a search that was interrupted can make it again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raytl.tasks.build import Task

DEMO = "demo"


def given_paths(
    roles: Mapping[str, Any],
    domains: Mapping[str, Any],
    name: str,
    seed: int,
    holdout: float | None,
    chosen: Mapping[str, str | None],
) -> dict[str, Any] | None:
    """The arguments of a task as JSON values, local paths absolute; None where images were given in memory.

    roles: by the argument's name. domains: places of the source domains by name. chosen: the split
    and the columns that were asked for by name.
    """
    places = {role: place for role, place in roles.items() if place is not None}
    if not all(isinstance(place, str | os.PathLike) for place in (*places.values(), *domains.values())):
        return None
    found: dict[str, Any] = {role: _absolute(place) for role, place in places.items()}
    found["source_domain"] = {key: _absolute(place) for key, place in domains.items()}
    named = {key: value for key, value in chosen.items() if value is not None}
    return found | {"name": name, "seed": seed, "holdout": holdout} | named


def make_task(given: Mapping[str, Any]) -> Task:
    """The task again. Raises UserError where its data is not there any more."""
    from raytl.tasks.build import Task  # which imports this module
    from raytl.tasks.demo import demo_task

    return demo_task(int(given[DEMO])) if DEMO in given else Task(**given)


def _absolute(place: str | os.PathLike[str]) -> str:
    text = os.fspath(place)
    # Path.absolute keeps links: one to this month's photos is to be followed when the task is made again.
    return text if "://" in text else str(Path(text).expanduser().absolute())
