"""What a task was made of, as plain values, so that a search that was interrupted can make it again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from raytl.core.errors import UserError
from raytl.core.places import expanded

DEMO = "demo"
_PLACES = ("target", "unlabelled", "test", "images")


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


def moved(given: Mapping[str, Any], moves: Mapping[str, str]) -> dict[str, Any]:
    """What a task was made of, where its data lies now.

    moves: old places by new ones: those that the task was given, or folders above them. Raises UserError for one below
    which nothing lay.
    """
    found = dict(given)
    for old, new in moves.items():
        before, now = _absolute(old).rstrip("/"), _absolute(new).rstrip("/")
        place = partial(_moved, old=before, new=now)
        after = {role: place(at) if role in _PLACES else at for role, at in found.items()}
        after["source_domain"] = {name: place(at) for name, at in found.get("source_domain", {}).items()}
        if after == {"source_domain": {}, **found}:
            known = ", ".join(places(found)) or DEMO
            raise UserError(f"--moved {old}={new}: nothing was read from {before}; it was from {known}")
        found = after
    return found


def places(given: Mapping[str, Any]) -> list[str]:
    """Where the data of a task is, each place once."""
    roles = [at for role, at in given.items() if role in _PLACES]
    return list(dict.fromkeys([*roles, *given.get("source_domain", {}).values()]))


def gone(given: Mapping[str, Any]) -> list[str]:
    """The places on this machine where nothing is any more."""
    return [place for place in places(given) if "://" not in place and not os.path.lexists(place)]


def _moved(place: str, old: str, new: str) -> str:
    return new + place[len(old) :] if place == old or place.startswith(f"{old}/") else place


def _absolute(place: str | os.PathLike[str]) -> str:
    text = os.fspath(place)
    # Path.absolute keeps links: one to this month's photos is to be followed when the task is made again.
    return text if "://" in text else str(expanded(text).absolute())
