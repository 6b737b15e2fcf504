"""Options that several commands have: declared once, and how what was given is read."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from raytl.cli.app import (
    ClassesOf,
    GroupBy,
    Holdout,
    ImageColumn,
    ImagesFolder,
    LabelColumn,
    SourceDomain,
    Split,
    Target,
    Test,
    Unlabelled,
)
from raytl.core.errors import UserError

if TYPE_CHECKING:
    from raytl.api import Task

F = TypeVar("F", bound=Callable[..., Any])


def with_options_of(command: Callable[..., Any], *, first: bool = False) -> Callable[[F], F]:
    """Give a function the parameters of ``command`` too, as far as it has none of that name; it gets them as ``**``.

    Help and errors of the options are then the same, and a new option of ``command`` is one of both.
    first: whether they stand before the function's own.
    """

    def decorate(function: F) -> F:
        own = {
            name: parameter
            for name, parameter in inspect.signature(function, eval_str=True).parameters.items()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        }
        theirs = inspect.signature(command, eval_str=True).parameters
        more = [parameter for name, parameter in theirs.items() if name not in own]
        parameters = [*more, *own.values()] if first else [*own.values(), *more]
        parameters.sort(key=lambda parameter: parameter.default is not inspect.Parameter.empty)  # as Python has it
        function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        function.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return function

    return decorate


def data_options(
    target: Target = None,
    source_domain: SourceDomain = None,
    unlabelled: Unlabelled = None,
    test: Test = None,
    split: Split = None,
    images: ImagesFolder = None,
    label: LabelColumn = None,
    image_column: ImageColumn = None,
    group_by: GroupBy = None,
    classes_of: ClassesOf = None,
    holdout: Holdout = None,
) -> None:
    """The options that say what data a task is made of, for :func:`with_options_of`."""


def task_of(data: Mapping[str, Any], seed: int) -> Task:
    """The task of :func:`data_options` as they were given."""
    from raytl import api

    return api.Task(**{**data, "source_domain": data["source_domain"] or []}, seed=seed)


def given_options(context: typer.Context, names: Iterable[str]) -> dict[str, Any]:
    """What of these options was given on the command line, by the names of their parameters."""
    found = {}
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            found[name] = context.params[name]
    return found


def parse_seconds(option: str, text: str, sign: str = "") -> float:
    """``90``, ``90s``, ``10m``, ``2h`` to seconds. sign: that may stand before it."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    bare = text.removeprefix(sign)
    number, unit = (bare[:-1], bare[-1]) if bare[-1:] in units else (bare, "s")
    try:
        seconds = float(number) * units[unit]
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UserError(f"{option} {text}: give a time above zero, such as 90s, 10m or 2h")
    return seconds
