"""A strategy that a person puts together: what they say, the rest from one that was tried, all of it in the space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raytl.core.dimensions import Choice, Dimension, Float, Int
from raytl.core.errors import UserError, nearest
from raytl.search.space.binding import BoundSpace
from raytl.search.space.choices import FirstChoices
from raytl.search.space.definition import ALL, COMPONENTS, NONE, STRATEGY_KEYS
from raytl.search.space.files import parse_assignment
from raytl.training.strategy import Strategy


def complete(bound: BoundSpace, assignments: Sequence[str], like: Mapping[str, Any] | None = None) -> Strategy:
    """A strategy of the space by ``key=value`` assignments, as ``--set`` takes them.

    like: flat values that it has otherwise, as far as they go with the others; None for the space's defaults.
    Raises UserError for a key that there is not, a value that the space does not have, and one that would do nothing.
    """
    given = {".".join(keys): (value, text) for text in assignments for keys, value in [parse_assignment(text)]}
    for key, (_, text) in given.items():
        if key.partition(".")[0] not in STRATEGY_KEYS:
            raise UserError(f"--set {text}: unknown key '{key}'{nearest(key, STRATEGY_KEYS)}")
    wanted = _named({**(like or {}), **{key: value for key, (value, _) in given.items()}})
    cut, model = wanted.get("cut"), wanted.get("source_model", bound.source_models[0])
    if model in bound.stages and (cut == ALL or (isinstance(cut, int) and cut < 0)):
        wanted["cut"] = bound.stages[model] + (0 if cut == ALL else cut)
    asked = _Noting(wanted)
    strategy = bound.suggest(asked)
    flat = {**strategy.to_dict(), "source_domain": strategy.source_domain or NONE}
    for key, (value, text) in given.items():
        name = _flat_name(key, flat)
        if name in flat and flat[name] == (wanted["cut"] if key == "cut" else value):
            continue
        offered = asked.offered.get(key) or asked.offered.get(_full_name(name, flat) or "")
        if offered is not None:
            raise UserError(f"--set {text}: '{key}' is {value!r}; give {offered}")
        if name in flat and name in bound.space.plain | bound.space.components | dict.fromkeys(["head"]):
            raise UserError(f"--set {text}: '{key}' can only be {flat[name]} here")
        raise UserError(f"--set {text}: '{key}' is not searched over, or does nothing beside the other settings")
    return strategy


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    """Flat values by the names of the space's dimensions: ``adaptation.weight`` as ``adaptation.mcc.weight``."""
    named = {_full_name(key, values) or key: value for key, value in values.items()}
    named["source_domain"] = values.get("source_domain") or NONE
    return named


def _full_name(key: str, values: Mapping[str, Any]) -> str | None:
    kind, dot, setting = key.partition(".")
    return f"{kind}.{values.get(kind)}.{setting}" if dot and kind in COMPONENTS and "." not in setting else None


def _flat_name(key: str, flat: Mapping[str, Any]) -> str:
    kind, _, rest = key.partition(".")
    name, dot, setting = rest.partition(".")
    return f"{kind}.{setting}" if dot and flat.get(kind) == name else key


class _Noting(FirstChoices):
    """Notes what there was to choose from, by dimension."""

    def __init__(self, wanted: Mapping[str, Any]) -> None:
        super().__init__({name: value for name, value in wanted.items() if isinstance(value, int | float | str)})
        self.offered: dict[str, Dimension] = {}

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        self.offered[name.partition("/")[0]] = Float(low, high)
        wanted = self._get(name, low)
        if isinstance(wanted, str):
            return low
        return super().suggest_float(name, low, high, log=log)

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        self.offered[name.partition("/")[0]] = Int(low, high)
        wanted = self._get(name, low)
        if isinstance(wanted, str):
            return low
        return super().suggest_int(name, low, high, log=log)

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        self.offered[name.partition("/")[0]] = Choice(tuple(choices))
        return super().suggest_categorical(name, choices)
