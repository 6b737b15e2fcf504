"""What a provider of source models is, and how the catalogue finds it."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pkgutil import iter_modules
from threading import RLock
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from raytl.core.errors import UserError, nearest
from raytl.core.plugins import Plugin, plugins, warn_left_out
from raytl.core.seeding import derive_seed
from raytl.sources.heads import ZeroShotHead
from raytl.sources.licences import UNKNOWN
from raytl.sources.model import SourceInfo, SourceModel
from raytl.tasks.preprocessing import Preprocessing


class WeightsMissingError(UserError):
    """Published weights that are not on this machine and cannot be fetched, or the package that builds their network.

    A search goes on without the model.
    """


@dataclass(frozen=True)
class Request:
    """What a caller asks of a provider.

    channels: of the task's images, 1 or 3. image_size: wished side of the input, pixels; None for the model's own.
    seed: of untrained weights.
    """

    channels: int = 3
    image_size: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Built:
    """An untrained model, and what its tensors are called outside raytl.

    renames: name in the original network's state dict -> name in ``model.state_dict()``; empty where they agree.
    """

    model: SourceModel
    renames: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SourceEntry:
    """One line of the catalogue.

    parameters, image_size (pixels), stages: None where finding out would mean building the model.
    weights: name of the published weights, or None for an untrained architecture.
    cached: whether those weights are on this machine already; None where there are none or it cannot be told.
    size_bytes: of the published weights, where known.
    licence: of the weights, as :mod:`raytl.sources.licences` has it.
    preprocessing: at ``image_size``, where it is known without building the model.
    install: the command that puts the weights on this machine, where raytl does not fetch them itself.
    trainable: whether anything but the head can be trained.
    """

    uri: str
    parameters: int | None
    stages: tuple[str, ...] | None
    image_size: int | None
    weights: str | None = None
    cached: bool | None = None
    size_bytes: int | None = None
    licence: str = UNKNOWN
    preprocessing: Preprocessing | None = None
    install: str | None = None
    trainable: bool = True


class Provider(ABC):
    """A place that source models come from; ``name`` is what stands behind the colon of the URI.

    listed: whether the catalogue shows its entries unasked.
    """

    listed = True

    @abstractmethod
    def load(self, name: str, request: Request) -> SourceModel:
        """The model with its weights, in eval mode. Raises UserError."""

    @abstractmethod
    def info(self, name: str, request: Request) -> SourceInfo:
        """What is known without loading weights. Raises UserError."""

    @abstractmethod
    def build(self, name: str, request: Request) -> Built:
        """The untrained architecture, exactly at ``request.image_size``. Raises UserError."""

    @abstractmethod
    def untrained(self, name: str) -> str | None:
        """URI of the same architecture without any learned weights, for a control from scratch; itself if it has none.

        None where nothing in it is ever learned. Raises UserError for an unknown model.
        """

    def zero_shot_head(self, name: str, classes: Sequence[str], templates: Sequence[str]) -> ZeroShotHead:
        """A head made of what the model's text tower makes of class names, one row for each.

        templates: sentences with ``{}`` for the name. For models whose info has ``text_tower``. Raises UserError.
        """
        raise UserError(
            f"source model '{name}' has no text tower, so that class names mean nothing to it; take another head"
        )

    @abstractmethod
    def names(self) -> Iterable[str]:
        """What the catalogue lists of this provider; a URI is its name, a colon and one of these.

        None where the user names the models; then any of them can be asked for.
        """

    @abstractmethod
    def entry(self, name: str) -> SourceEntry:
        """The catalogue's line for a listed name, or for one that the user gave. Raises UserError."""

    def licence(self, name: str) -> str:
        """Under which licence a model's weights are, as :mod:`raytl.sources.licences` has it. Raises UserError."""
        return self.entry(name).licence


class Providers:
    """The providers by name; unlike :class:`raytl.core.registry.Registry` it imports only the one that is asked for.

    torchvision takes seconds to import, and a process that serves a ``scratch:`` model never needs it. Those of other
    installed packages are found by their entry points in the group ``raytl.providers``.
    """

    def __init__(self, package: str, group: str = "raytl.providers") -> None:
        self._package = package
        self._group = group
        self._entries: dict[str, Provider] = {}

    def add(self, name: str, entry: Provider) -> None:
        """Register ``entry``. Raises ValueError where the name is taken."""
        if name in self._entries:
            raise ValueError(f"source model provider '{name}' is registered twice")
        self._entries[name] = entry

    def names(self) -> list[str]:
        """All names, sorted. Raises UserError where an installed package takes a built-in one's."""
        return sorted({*self._own(), *self._announced(), *self._entries})

    def get(self, name: str) -> Provider:
        """The provider called ``name``. Raises UserError with the nearest known one, or the package that fails."""
        if name not in self._entries:
            announced = self._announced()
            if name in self._own():
                import_module(f"{self._package}.{name}")
            elif name in announced:
                self._load(announced[name])
            else:
                raise UserError(f"unknown source model provider '{name}'{nearest(name, self.names())}")
        return self._entries[name]

    def listed(self) -> list[str]:
        """Those whose entries the catalogue shows unasked. An installed package that fails costs a warning."""
        found = []
        for name in self.names():
            try:
                if self.get(name).listed:
                    found.append(name)
            except UserError as error:
                warn_left_out(str(error))
        return found

    def _own(self) -> set[str]:
        return {module.name for module in iter_modules(import_module(self._package).__path__)}

    def _announced(self) -> dict[str, Plugin]:
        found = plugins(self._group)
        for name in sorted(self._own() & set(found)):
            raise UserError(
                f"source model provider {found[name]} has the name of a built-in one ({self._package}.{name}); rename "
                f"it, or uninstall {found[name].package}"
            )
        return found

    def _load(self, plugin: Plugin) -> None:
        try:
            plugin.load()
        except UserError as error:
            raise UserError(f"source model provider {error}") from error
        if plugin.name not in self._entries:
            raise UserError(
                f"source model provider {plugin} is announced, but importing it registers none of that name; the entry "
                f"point of {plugin.package} must have the name that is registered"
            )


providers = Providers("raytl.sources.providers")


def provider(name: str) -> Callable[[type[Provider]], type[Provider]]:
    """Class decorator that registers a provider for URIs that begin with ``name:``.

    Its module in ``raytl/sources/providers/``, or its entry point, has the same name.
    """

    def register(kind: type[Provider]) -> type[Provider]:
        providers.add(name, kind())
        return kind

    return register


_GENERATOR = RLock()


@contextmanager
def seeded(*parts: object) -> Iterator[None]:
    """Draw weights from a seed made of ``parts``, and leave torch's own generator as it was."""
    # The generator belongs to the process: two threads that build models at once would draw from each other's seed.
    with _GENERATOR, torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(*parts))
        yield


def hint(word: str, known: Iterable[str]) -> str:
    """:func:`nearest`, but no list of hundreds of names."""
    text = nearest(word, known)
    return text if len(text) <= 300 else "; `raytl sources list` shows what there is"


class Hollow(TorchFunctionMode):
    """Within it, parameters take no memory: what ``torch.empty`` makes lies on the meta device.

    Not ``torch.device("meta")``, under which networks that compute their layout with small tensors cannot be built.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Send ``torch.empty`` to the meta device and leave out initialisations of what lies there."""
        settings = dict(kwargs or {})
        if func is torch.empty:
            settings["device"] = "meta"
        elif args and isinstance(args[0], Tensor) and args[0].is_meta and _IN_PLACE.fullmatch(func.__name__):
            return args[0]
        return func(*args, **settings)


_IN_PLACE = re.compile(r"[a-z][a-z_]*[a-z]_")
