"""What a lane needs to know besides the data: how long training may take, and where it computes."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

SMALLEST_BATCH = 8
"""Fewer images are too few for batch norm's statistics."""
LEAST_STEPS, MOST_STEPS = 10, 40
"""Of an epoch whose steps follow from the data."""


@dataclass(frozen=True)
class Budget:
    """How long training may take.

    epochs: of the full budget, the largest fidelity: what strategies are compared at is the share of their own budget.
    steps_per_epoch: optimizer steps, 0 for as many as what the strategy trains on asks for (:meth:`steps_for`).
    batch_size: images per step and role. looks: epochs after which a trial is evaluated, besides its last; none given
    for all: evaluating can cost as much as training, and where nothing is decided it is for nothing.
    """

    epochs: int = 12
    steps_per_epoch: int = 20
    batch_size: int = 64
    looks: tuple[int, ...] = ()

    def steps_for(self, images: int) -> int:
        """Steps of an epoch for a strategy whose largest role has so many images: one pass, within bounds.

        Fewer than the least teach nothing; a pass over thousands of unlabelled images is no better an epoch than a part
        of one, and takes the time of many strategies.
        """
        if self.steps_per_epoch:
            return self.steps_per_epoch
        return min(MOST_STEPS, max(LEAST_STEPS, math.ceil(images / self.batch_size)))

    def batch_for(self, images: int) -> int:
        """Images a step and role for a strategy whose largest role has so many: at least two steps to a pass.

        Where there are few, a full batch would be all of them over and over at several times the cost of a step.
        """
        return min(self.batch_size, max(SMALLEST_BATCH, math.ceil(images / 2)))

    def looks_at(self, epoch: int) -> bool:
        """Whether a trial is evaluated after this epoch."""
        return not self.looks or epoch in self.looks or epoch == self.epochs


@dataclass(frozen=True)
class PretrainSettings:
    """How a source model is trained on a source domain.

    steps: optimizer steps; head_lr: peak rate of SGD with a cosine schedule; augmentation: name of the policy.
    """

    steps: int = 300
    batch_size: int = 64
    head_lr: float = 0.05
    weight_decay: float = 5e-4
    augmentation: str = "shift"


@dataclass(frozen=True)
class WorkspaceSettings:
    """All that a lane needs to know besides the data.

    image_size: side of the network input in pixels, None for each source model's own; see
        :meth:`raytl.training.material.Material.image_size`.
    folds: (n_folds, repeats) of the cross-validation; (0, 0) where the target cannot be split.
    gpu_share: of its GPU that this process may take, where several lanes are packed on one.
    threads: of torch in this lane, at most as many as there are cores; None to leave as it is, of a lane with a GPU for
    as many as its node leaves it. activation_cache: whether frozen stages are cached.
    pretrain_s: seconds that pretraining a source model may take, with fewer steps where it must; None for any.
    hurried: source models to take as they were made in less than all steps, though there be better ones by now.
    metric: what the user means by good; a name of :mod:`raytl.evaluation.metrics`.
    """

    seed: int = 0
    budget: Budget = Budget()
    pretrain: PretrainSettings = PretrainSettings()
    image_size: int | None = None
    folds: tuple[int, int] = (5, 1)
    device: str = "auto"
    gpu_share: float = 1.0
    threads: int | None = None
    activation_cache: bool = True
    pretrain_s: float | None = None
    hurried: tuple[str, ...] = ()
    metric: str = "accuracy"

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a run's record."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> WorkspaceSettings:
        """Inverse of :meth:`to_json`."""
        return cls(
            **{
                **values,
                "budget": Budget(**{**values["budget"], "looks": tuple(values["budget"].get("looks", ()))}),
                "pretrain": PretrainSettings(**values["pretrain"]),
                "folds": tuple(values["folds"]),
                "hurried": tuple(values.get("hurried", ())),
            }
        )
