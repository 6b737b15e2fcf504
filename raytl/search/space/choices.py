"""Suggesting values for named dimensions: who is asked and how, and what is wanted anyway."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Protocol

from raytl.core.dimensions import Choice, Dimension, Float
from raytl.search.space.definition import COMPONENTS


class Suggester(Protocol):
    """What is needed of an Optuna trial: a value for a named dimension."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A real number."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """A whole number."""

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        """One of the choices."""


def choose(trial: Suggester, name: str, options: list[Any]) -> Any:
    """One of the options; a sampler is asked only where there are several."""
    return options[0] if len(options) == 1 else trial.suggest_categorical(name, options)


def sample(trial: Suggester, name: str, dimension: Dimension) -> Any:
    """A value of a dimension; a sampler is asked only where there are several."""
    if isinstance(dimension, Choice):
        return choose(trial, name, list(dimension.options))
    if dimension.low == dimension.high:
        return dimension.low
    if isinstance(dimension, Float):
        return trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)
    return trial.suggest_int(name, dimension.low, dimension.high, log=dimension.log)


def component_defaults() -> dict[str, Any]:
    """Every default of a loss or regulariser, under its dimension's name (``adaptation.mcc.weight``)."""
    return {
        f"{kind}.{name}.{spec.name}": spec.default
        for kind, components in COMPONENTS.items()
        for name in components.names()
        for spec in fields(components.get(name).config)
    }


class FirstChoices:
    """A suggester of given values, else of a loss's own defaults, else of the first or middle of a range.

    Makes whole strategies from the partial ones under a space's ``first`` key, and the default recipe.
    """

    def __init__(self, wanted: Mapping[str, Any]) -> None:
        self._wanted = {**component_defaults(), **wanted}

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """The wanted value as far as the range allows it, or the middle of the range (geometric where log)."""
        middle = (low * high) ** 0.5 if log else (low + high) / 2
        return min(max(float(self._get(name, middle)), low), high)

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """Likewise, rounded."""
        middle = (low * high) ** 0.5 if log else (low + high) / 2
        return min(max(int(self._get(name, round(middle))), low), high)

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        """The wanted value if it is among the choices, else the first choice."""
        wanted = self._get(name, choices[0])
        return wanted if wanted in choices else choices[0]

    def _get(self, name: str, default: Any) -> Any:
        """By full name, or by the name before the first ``/``."""
        return self._wanted.get(name, self._wanted.get(name.partition("/")[0], default))
