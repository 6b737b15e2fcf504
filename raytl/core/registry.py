"""One registry class for all exchangeable parts: losses, regularisers, validators, providers, readers."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules
from typing import Generic, TypeVar

from raytl.core.errors import UserError, nearest

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to components. A component registers itself where it is written, with one decorator.

    kind: what the entries are called in an error ("adaptation loss").
    package: the package whose modules hold the components; all of it is imported at the first look-up,
        so that adding a component is adding a file.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self._package = package
        self._entries: dict[str, T] = {}
        self._loaded = False

    def add(self, name: str, entry: T) -> T:
        """Register ``entry``; a name taken twice is a programming error."""
        if name in self._entries:
            raise ValueError(f"{self.kind} '{name}' is registered twice")
        self._entries[name] = entry
        return entry

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator form of :meth:`add`."""
        return lambda entry: self.add(name, entry)

    def get(self, name: str) -> T:
        """The entry called ``name``. Raises UserError that names the nearest known one."""
        self._load()
        try:
            return self._entries[name]
        except KeyError:
            raise UserError(f"unknown {self.kind} '{name}'{nearest(name, self._entries)}") from None

    def names(self) -> list[str]:
        """All names, sorted."""
        self._load()
        return sorted(self._entries)

    def _load(self) -> None:
        if self._loaded:
            return
        package = import_module(self._package)
        for module in iter_modules(package.__path__):
            import_module(f"{self._package}.{module.name}")
        self._loaded = True
