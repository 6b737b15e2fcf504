"""A whole head solved for at once: one linear layer on the last features, or one on each stage's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from raytl.evaluation.calibration import fit_temperature
from raytl.evaluation.probes import Probe, fit_logistic
from raytl.sources.heads import StagesHead

STAGE_FOLDS = 3
"""By which the strength of each stage's head is chosen: their average forgives what five would do better."""


@dataclass(frozen=True)
class SolvedHead:
    """Its layers, and how sure it is to be.

    probes: of each linear layer; sharpness: of their average, 1 of a layer alone. temperature: by which the logarithms
    of :attr:`out_of_fold` are to be divided for calibrated probabilities.
    """

    probes: tuple[Probe, ...]
    sharpness: float
    temperature: float

    @property
    def out_of_fold(self) -> np.ndarray:
        """(n, k) probabilities of each item by heads that it did not train, before any sharpness; NaN if never held."""
        return np.asarray(np.mean([probe.out_of_fold for probe in self.probes], axis=0))

    @torch.no_grad()
    def put_into(self, head: nn.Module) -> None:
        """Make these a linear head's weights, or a :class:`StagesHead`'s, in place."""
        layers = head.parts if isinstance(head, StagesHead) else [head]
        for layer, probe in zip(layers, self.probes, strict=True):
            assert isinstance(layer, nn.Linear)
            layer.weight.copy_(torch.as_tensor(probe.weight))
            layer.bias.copy_(torch.as_tensor(probe.bias))
        if isinstance(head, StagesHead):
            head.sharpness.fill_(self.sharpness)


def solve_parts(
    features: Tensor,
    labels: np.ndarray,
    classes: int,
    weights: np.ndarray,
    groups: np.ndarray | None,
    *,
    widths: Sequence[int] | None,
    balanced: bool,
    seed: int,
) -> SolvedHead:
    """The best linear head for labelled features, or the best average of one on each stage's.

    features: (n, d), finite; labels: (n,) in [0, classes); weights: (n,) of the images; groups: (n,) or None, never on
    two sides of a fold. widths: of the stages' features, which lie one after another; None for a single layer.
    balanced: whether every class weighs the same.
    """
    solve = partial(
        fit_logistic, classes=classes, sample_weight=weights, groups=groups, class_balanced=balanced, seed=seed
    )
    if widths is None:
        probe = solve(features, labels)
        return SolvedHead((probe,), 1.0, probe.temperature)
    probes = tuple(solve(seen, labels, max_folds=STAGE_FOLDS) for seen in features.split(list(widths), dim=1))
    temperature = _temperature(probes, labels, weights)
    # As the head's buffer has it, so that what is recorded is what is used.
    return SolvedHead(probes, float(np.float32(1.0 / temperature)), temperature)


def _temperature(probes: Sequence[Probe], labels: np.ndarray, weights: np.ndarray) -> float:
    """Of the probes' mean probabilities, by images that they did not train on; 1 where there are none."""
    mean = np.mean([probe.out_of_fold for probe in probes], axis=0)
    seen = np.isfinite(mean).all(axis=1)
    if not seen.any():
        return 1.0
    logs = np.log(np.clip(mean[seen], 1e-12, None))
    return fit_temperature(logs, labels[seen], weights[seen] / weights[seen].sum())
