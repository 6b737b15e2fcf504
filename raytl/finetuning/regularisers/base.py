"""What a regulariser is: settings, and a scalar from the trainable stages and their features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from raytl.core.dimensions import log_uniform, searchable
from raytl.core.registry import Registry


@dataclass(frozen=True)
class RegulariserConfig:
    """Settings that every regulariser has.

    weight: trade-off against the task loss, > 0; the training loop multiplies by it.
    """

    weight: float = searchable(1e-2, log_uniform(1e-4, 1e-1))


class Regulariser(ABC):
    """A penalty on the trainable stages. Made once, before the first step, so that it can remember where they started.

    stages: of the source model, input side first; cut: number of frozen ones. The head is never part of them.
    replaces_weight_decay: True where the stages must not be decayed towards zero beside it; the head still is.
    """

    replaces_weight_decay = False

    def __init__(self, config: RegulariserConfig, stages: Sequence[nn.Module], cut: int) -> None:
        self.config = config
        self.stages = stages
        self.cut = cut

    @abstractmethod
    def __call__(self, features: Tensor) -> Tensor:
        """Scalar penalty, unweighted, float32.

        features: (n, d), the input of the head in this step's forward pass.
        """


@dataclass(frozen=True)
class RegulariserEntry:
    """A registered regulariser: its class and its settings."""

    name: str
    regulariser: type[Regulariser]
    config: type[RegulariserConfig]


registry: Registry[RegulariserEntry] = Registry("regulariser", "raytl.finetuning.regularisers")


def regulariser(name: str, *, config: type[RegulariserConfig]) -> Callable[[type[Regulariser]], type[Regulariser]]:
    """Class decorator that registers a regulariser under ``name``."""

    def register(cls: type[Regulariser]) -> type[Regulariser]:
        registry.add(name, RegulariserEntry(name, cls, config))
        return cls

    return register


def names() -> list[str]:
    """The registered regularisers."""
    return registry.names()


def get(name: str) -> RegulariserEntry:
    """The entry for ``name``. Raises UserError that names the nearest known regulariser."""
    return registry.get(name)
