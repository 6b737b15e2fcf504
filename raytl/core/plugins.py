"""Components from other installed packages, found by their entry points."""

from __future__ import annotations

import sys
import warnings
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from raytl.core.errors import UserError


class PluginWarning(UserWarning):
    """A component of an installed package was left out, because the package cannot be imported."""


class Plugin:
    """A component that an installed package announces; nothing of the package is imported before :meth:`load`.

    name: of the component. package: the distribution, as pip knows it.
    """

    def __init__(self, entry_point: EntryPoint) -> None:
        self._entry_point = entry_point
        self.name = entry_point.name
        self.package = entry_point.dist.name if entry_point.dist is not None else entry_point.module

    def __str__(self) -> str:
        return f"'{self.name}' of package '{self.package}'"

    def load(self) -> None:
        """Import what the entry point names, whose decorators register the component. Raises UserError naming it."""
        try:
            self._entry_point.load()
        # Whatever somebody else's module may raise: the user can neither tell from a traceback nor mend it.
        except Exception as error:
            raise UserError(
                f"{self} cannot be imported from {self._entry_point.value} ({type(error).__name__}: {error}); "
                f"mend, upgrade or uninstall {self.package}"
            ) from error


def plugins(group: str) -> dict[str, Plugin]:
    """What installed packages announce under an entry point group, by name.

    Raises UserError where two packages announce the same name.
    """
    found: dict[str, Plugin] = {}
    for entry_point in _installed(tuple(sys.path)).select(group=group):
        plugin = Plugin(entry_point)
        other = found.setdefault(plugin.name, plugin)
        if other is not plugin:
            raise UserError(f"{group}: {plugin} has the name of {other}; uninstall one of the two")
    return found


def warn_left_out(why: str) -> None:
    """Say that a component is not there, and why."""
    warnings.warn(f"left out: {why}", PluginWarning, stacklevel=2)


@cache
def _installed(path: tuple[str, ...]) -> Any:
    """All entry points on the module path: reading them takes a moment, and several registries ask."""
    return entry_points()
