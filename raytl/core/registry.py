"""One registry class for all exchangeable parts: losses, regularisers, validators, providers, readers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules
from typing import Generic, TypeVar

from raytl.core.errors import UserError, nearest
from raytl.core.plugins import Plugin, plugins, warn_left_out

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to components. A component registers itself where it is written, with one decorator.

    At the first look-up all modules of ``package`` are imported, so that adding a component is adding a file, and what
    other installed packages announce as entry points of ``group``: the entry point's name is the component's, its value
    the module or class to import. An installed package that cannot be imported costs a warning, and an error for who
    asks for its component; one that takes the name of another component is an error.

    kind: what the entries are called in an error ("adaptation loss").
    package: the package whose modules hold the components.
    group: of entry points; by default ``raytl.`` and the last part of the package's name.
    """

    def __init__(self, kind: str, package: str, group: str | None = None) -> None:
        self.kind = kind
        self.group = group or "raytl." + package.rpartition(".")[2]
        self._package = package
        self._entries: dict[str, T] = {}
        self._origins: dict[str, str] = {}
        self._packages: dict[str, str] = {}
        self._broken: dict[str, str] = {}
        self._loaded = False

    def add(self, name: str, entry: T) -> T:
        """Register ``entry``; a name taken twice is a programming error."""
        origin = _registering_module()
        if name in self._entries:
            raise ValueError(f"{self.kind} '{name}' is registered twice, by {self._origins[name]} and by {origin}")
        self._entries[name] = entry
        self._origins[name] = origin
        return entry

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator form of :meth:`add`."""
        return lambda entry: self.add(name, entry)

    def get(self, name: str) -> T:
        """The entry called ``name``. Raises UserError that names the nearest known one, or the package that fails."""
        self._load()
        if name in self._entries:
            return self._entries[name]
        if name in self._broken:
            raise UserError(self._broken[name])
        raise UserError(f"unknown {self.kind} '{name}'{nearest(name, self._entries)}")

    def names(self) -> list[str]:
        """All names, sorted."""
        self._load()
        return sorted(self._entries)

    def brought_by(self, name: str) -> str | None:
        """Whose an entry is that is not built in, as in "of package 'x'"; None of one that is, or is not registered."""
        if name in self._packages:
            return f"package '{self._packages[name]}'"
        origin = self._origins.get(name, f"{self._package}.")
        return None if origin.startswith(f"{self._package}.") else f"module '{origin}'"

    def _load(self) -> None:
        if self._loaded:
            return
        package = import_module(self._package)
        for module in iter_modules(package.__path__):
            import_module(f"{self._package}.{module.name}")
        announced = plugins(self.group)
        for plugin in announced.values():
            self._check_name(plugin)
        # From here on, so that a plugin may look at what is there while it is imported.
        self._loaded = True
        for plugin in announced.values():
            self._add_plugin(plugin)

    def _check_name(self, plugin: Plugin) -> None:
        """Raise UserError where the name is a built-in component's; it may be there already, imported by the user."""
        origin = self._origins.get(plugin.name, "")
        if origin.startswith(f"{self._package}."):
            raise UserError(
                f"{self.kind} {plugin} has the name of a built-in one ({origin}); rename it, or uninstall "
                f"{plugin.package}"
            )

    def _add_plugin(self, plugin: Plugin) -> None:
        before = dict(self._entries), dict(self._origins)
        try:
            plugin.load()
            if plugin.name not in self._entries:
                raise UserError(
                    f"{plugin} is announced, but importing it registers no {self.kind} of that name; the entry point "
                    f"of {plugin.package} must have the name that is registered"
                )
            self._packages[plugin.name] = plugin.package
        except UserError as error:
            # A module that fails half-way is imported anew by whoever tries again, and must not meet itself.
            self._entries, self._origins = before
            self._broken[plugin.name] = f"{self.kind} {error}"
            warn_left_out(self._broken[plugin.name])


def _registering_module() -> str:
    """Name of the module whose code calls for a registration, through decorators and helpers of other modules."""
    frame = sys._getframe(2)
    while frame.f_code.co_name != "<module>" and frame.f_back is not None:
        frame = frame.f_back
    return str(frame.f_globals.get("__name__", "?"))
