"""Typed settings that say which of their fields can be searched, and over what.

A component's config is a frozen dataclass; a field made with :func:`searchable` carries its own range. The search
space, ``--set`` and the docs table read the ranges from there, so no second list of hyperparameters exists to go stale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, TypeVar

from raytl.core.errors import UserError, nearest

C = TypeVar("C")


@dataclass(frozen=True)
class Float:
    """Real numbers in [low, high], uniform, or log-uniform where ``log``."""

    low: float
    high: float
    log: bool = False

    def contains(self, value: object) -> bool:
        """Whether ``value`` is a finite number inside the range."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return math.isfinite(value) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"a number from {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Int:
    """Whole numbers in [low, high]."""

    low: int
    high: int
    log: bool = False

    def contains(self, value: object) -> bool:
        """Whether ``value`` is a whole number inside the range."""
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"a whole number from {self.low} to {self.high}"


@dataclass(frozen=True)
class Choice:
    """One of ``options`` (strings, numbers or booleans)."""

    options: tuple[Any, ...]

    def contains(self, value: object) -> bool:
        """Whether ``value`` is one of the options (``True`` is not ``1``)."""
        return any(value == option and isinstance(value, bool) == isinstance(option, bool) for option in self.options)

    def __str__(self) -> str:
        return f"one of {', '.join(map(str, self.options))}"


Dimension = Float | Int | Choice


def uniform(low: float, high: float) -> Float:
    """Uniform on [low, high]."""
    return Float(low, high)


def log_uniform(low: float, high: float) -> Float:
    """Log-uniform on [low, high], low > 0."""
    return Float(low, high, log=True)


def choice(*options: Any) -> Choice:
    """One of the given options."""
    return Choice(options)


def searchable(default: Any, dimension: Dimension) -> Any:
    """A dataclass field with a default and the range that the search may vary it over."""
    return field(default=default, metadata={"dimension": dimension})


def dimensions(config: type) -> dict[str, Dimension]:
    """The searchable fields of a config class and their ranges, in order of definition."""
    return {f.name: f.metadata["dimension"] for f in fields(config) if "dimension" in f.metadata}


def build(config: type[C], values: Mapping[str, Any], where: str) -> C:
    """Make a config from plain values.

    where: what the values belong to, for the error ("adaptation 'coral'").
    Raises UserError for an unknown key (naming the nearest) or a value of the wrong type. A searchable field takes any
    value of its kind, inside the range or not: the range says where to search, not what is possible.
    """
    known = {f.name: f for f in fields(config)}  # type: ignore[arg-type]
    typed: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise UserError(f"{where}: unknown key '{key}'{nearest(key, known)}")
        _check_type(known[key].metadata.get("dimension"), known[key], value, f"{where}: '{key}'")
        typed[key] = as_default(known[key], value)
    return config(**typed)


def as_default(spec: Any, value: Any) -> Any:
    """``value`` as the type of the dataclass field's default where that is a real number: 1 and 1.0 are one setting."""
    return float(value) if isinstance(spec.default, float) and type(value) is int else value


def _check_type(dimension: Dimension | None, spec: Any, value: Any, where: str) -> None:
    if isinstance(dimension, Choice):
        if not dimension.contains(value):
            raise UserError(f"{where} is {value!r}; give {dimension}")
        return
    default = spec.default
    if default is MISSING or default is None:
        return
    numeric = isinstance(default, int | float) and not isinstance(default, bool)
    if numeric and (isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value)):
        raise UserError(f"{where} is {value!r}; give a number")
    if isinstance(default, int) and not isinstance(default, bool) and not isinstance(value, int):
        raise UserError(f"{where} is {value!r}; give a whole number")
    if isinstance(default, bool) and not isinstance(value, bool):
        raise UserError(f"{where} is {value!r}; give true or false")
    if isinstance(default, str) and not isinstance(value, str):
        raise UserError(f"{where} is {value!r}; give a word")
