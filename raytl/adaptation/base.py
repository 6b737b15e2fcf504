"""What a domain-adaptation loss is: settings, needs, and a scalar from two domains' views of one batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from enum import StrEnum

import torch
from torch import Tensor, nn

from raytl.core.dimensions import log_uniform, searchable
from raytl.core.registry import Registry
from raytl.tasks.task import Role


class ActsOn(StrEnum):
    """What of a network a loss moves; where all of that is frozen, the loss does nothing and is not offered."""

    FEATURES = "features"
    """Through a gradient at the features: the stages above the cut."""
    LOGITS = "logits"
    """Through a gradient at the logits: the head, which always trains, and the stages above the cut."""
    BATCH_NORM = "batch_norm"
    """The running statistics of batch norm above the cut."""
    SOLVED_HEAD = "solved_head"
    """What a head is solved for on, where all stages are frozen; nothing of a network that trains."""


@dataclass(frozen=True)
class AdaptationConfig:
    """Settings that every loss has.

    weight: trade-off against the task loss, > 0; the training loop multiplies by it. The losses' own scales differ by
        orders of magnitude, so each loss whose values are not of order one states a range of its own: the middle of
        every range is about where the loss matters as much as the task.
    """

    weight: float = searchable(1.0, log_uniform(0.03, 3.0))


@dataclass(frozen=True)
class Views:
    """One domain's half of a batch as the network sees it, in training mode.

    features: (n, d), the input of the head; logits: (n, k); labels: int64 (n,) where known;
    strong_logits: (n, k), logits of a more strongly augmented version of the same images, where the loss asks for one.
    """

    features: Tensor
    logits: Tensor
    labels: Tensor | None = None
    strong_logits: Tensor | None = None

    def full_precision(self) -> Views:
        """The same views with half-precision tensors in float32."""
        strong = None if self.strong_logits is None else _full(self.strong_logits)
        return replace(self, features=_full(self.features), logits=_full(self.logits), strong_logits=strong)


class AdaptationLoss(nn.Module, ABC):
    """A domain-adaptation loss. May hold parameters (a discriminator); they train with the head.

    Called as a module it computes in float32 whatever precision the network ran in, autocast included: covariances,
    pairwise distances and entropies lose their meaning in half precision.

    wants_strong_view: whether ``target.strong_logits`` must be given.
    gradient_free: True where nothing is differentiated and :meth:`forward` is never called (AdaBN).
    recalibrates_norm: True where batch-norm statistics are to be re-estimated on the unlabelled images after training.
    matches_moments: True where source features take on the target's moments before a head is solved for.
    propagates_labels: True where such a head learns from the unlabelled images too, by what their neighbours are.
    """

    wants_strong_view = False
    gradient_free = False
    recalibrates_norm = False
    matches_moments = False
    propagates_labels = False

    def __init__(self, config: AdaptationConfig, feature_dim: int, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.feature_dim = feature_dim
        self.num_classes = num_classes

    def __call__(self, source: Views | None, target: Views, progress: float) -> Tensor:
        """:meth:`forward` in full precision."""
        with torch.autocast(target.features.device.type, enabled=False):
            views = source.full_precision() if source is not None else None
            loss: Tensor = super().__call__(views, target.full_precision(), progress)
            return loss

    @abstractmethod
    def forward(self, source: Views | None, target: Views, progress: float) -> Tensor:
        """Scalar loss, unweighted.

        source: the labelled side; None where the loss does not need a source domain. The two sides may differ in size.
        target: unlabelled images of the target domain.
        progress: share of the full training budget done, in [0, 1]; never of a rung.
        """


@dataclass(frozen=True)
class AdaptationEntry:
    """A registered loss: its class, its settings, the roles without which it cannot run, and what it moves."""

    name: str
    loss: type[AdaptationLoss]
    config: type[AdaptationConfig]
    needs: frozenset[Role]
    acts_on: frozenset[ActsOn] = frozenset({ActsOn.FEATURES, ActsOn.LOGITS})

    def can_act(self, *, features: bool, batch_norm: bool) -> bool:
        """Whether the loss does anything to a network with a trainable head, by what of the rest is not frozen.

        features: whether any stage trains. batch_norm: whether any of those that do holds batch norm.
        """
        moved = {ActsOn.FEATURES: features, ActsOn.LOGITS: True, ActsOn.BATCH_NORM: batch_norm}
        return any(moved.get(what, False) for what in self.acts_on)

    @property
    def trains(self) -> bool:
        """Whether it goes with a network that trains, and not with a head that is solved for alone."""
        return self.acts_on != {ActsOn.SOLVED_HEAD}


registry: Registry[AdaptationEntry] = Registry("adaptation loss", "raytl.adaptation")


def adaptation(
    name: str,
    *,
    config: type[AdaptationConfig],
    needs: set[Role],
    acts_on: Collection[ActsOn] = (ActsOn.FEATURES, ActsOn.LOGITS),
) -> Callable[[type[AdaptationLoss]], type[AdaptationLoss]]:
    """Class decorator that registers a loss under ``name``.

    acts_on: what the loss moves; a search offers it only where some of that is not frozen.
    """

    def register(loss: type[AdaptationLoss]) -> type[AdaptationLoss]:
        registry.add(name, AdaptationEntry(name, loss, config, frozenset(needs), frozenset(acts_on)))
        return loss

    return register


def names() -> list[str]:
    """The registered losses."""
    return registry.names()


def get(name: str) -> AdaptationEntry:
    """The entry for ``name``. Raises UserError that names the nearest known loss."""
    return registry.get(name)


def _full(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
