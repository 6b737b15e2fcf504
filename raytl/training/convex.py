"""Heads that are solved for instead of trained: logistic regression on what the network makes of labelled images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from raytl.evaluation.calibration import fit_temperature
from raytl.evaluation.probes import Probe, fit_logistic
from raytl.sources.heads import StagesHead
from raytl.training.devices import autocast, upload
from raytl.training.network import Network
from raytl.training.pools import Pool, to_inputs
from raytl.training.roles import Roles

BATCH = 256
STAGE_FOLDS = 3
"""By which the strength of each stage's head is chosen: their average forgives what five would do better."""
MOST_SOURCE = 600
"""Images of a source domain that a head is solved for on."""


@dataclass(frozen=True)
class Solved:
    """How a head was solved for. strengths: the penalty of each linear layer; sharpness: of their average, else 1."""

    strengths: tuple[float, ...] = ()
    sharpness: float = 1.0


def solve_head(network: Network, roles: Roles, *, balanced: bool, seed: int) -> Solved:
    """Put the best linear head for the labelled images of all roles on the network's features, in place.

    One on each stage where the head reads all stages. Every role weighs the same, as it does in a step of training.
    balanced: so does every class. Where no role has labels, or its features are not finite, the head stays as it is or
    FloatingPointError is raised.
    """
    labelled = {role: pool for role, pool in roles.training.items() if pool.labels is not None}
    if not labelled:
        return Solved()
    kept = {role: _spread(pool, seed) if role != "target" else np.arange(len(pool)) for role, pool in labelled.items()}
    labelled = {role: pool.subset(kept[role]) for role, pool in labelled.items()}
    features = torch.cat([features_of(network, pool) for pool in labelled.values()])
    if not torch.isfinite(features).all():
        raise FloatingPointError("features are not finite")
    labels = np.concatenate([_labels(pool) for pool in labelled.values()])
    weights = np.concatenate([np.full(len(pool), 1.0 / len(pool)) for pool in labelled.values()])
    head = network.model.head
    own = head.parts if isinstance(head, StagesHead) else [head]
    widths = head.widths if isinstance(head, StagesHead) else [features.shape[1]]
    solve = partial(
        fit_logistic, sample_weight=weights, groups=_groups(labelled, roles, kept), class_balanced=balanced, seed=seed
    )
    if isinstance(head, StagesHead):
        solve = partial(solve, max_folds=STAGE_FOLDS)
    probes = []
    for layer, seen in zip(own, features.split(widths, dim=1), strict=True):
        assert isinstance(layer, nn.Linear)
        probe = solve(seen, labels, layer.out_features)
        with torch.no_grad():
            layer.weight.copy_(torch.as_tensor(probe.weight))
            layer.bias.copy_(torch.as_tensor(probe.bias))
        probes.append(probe)
    if isinstance(head, StagesHead):
        head.sharpness.fill_(1.0 / _temperature(probes, labels, weights))
    sharpness = float(head.sharpness) if isinstance(head, StagesHead) else 1.0
    return Solved(tuple(probe.strength for probe in probes), sharpness)


def _temperature(probes: list[Probe], labels: np.ndarray, weights: np.ndarray) -> float:
    """Of the probes' mean probabilities, by images that they did not train on; 1 where there are none."""
    mean = np.mean([probe.out_of_fold for probe in probes], axis=0)
    seen = np.isfinite(mean).all(axis=1)
    if not seen.any():
        return 1.0
    logs = np.log(np.clip(mean[seen], 1e-12, None))
    return fit_temperature(logs, labels[seen], weights[seen] / weights[seen].sum())


@torch.inference_mode()
def features_of(network: Network, pool: Pool) -> Tensor:
    """Features (n, d) of a pool in eval mode, on the network's device."""
    network.eval()
    with autocast(network.device):
        batches = [network.features(to_inputs(upload(batch, network.device), network)) for batch in pool.batches(BATCH)]
    return torch.cat(batches).float()


def _labels(pool: Pool) -> np.ndarray:
    assert pool.labels is not None
    return pool.labels.cpu().numpy()


def _spread(pool: Pool, seed: int) -> np.ndarray:
    """At most so many images of a source domain: the target's few count as much, and more would say no more."""
    if len(pool) <= MOST_SOURCE:
        return np.arange(len(pool))
    return np.sort(np.random.default_rng(seed).choice(len(pool), MOST_SOURCE, replace=False))


def _groups(labelled: dict[str, Pool], roles: Roles, kept: dict[str, np.ndarray]) -> np.ndarray | None:
    """Group numbers over all roles; None where every image is its own."""
    if all(roles.groups.get(role) is None for role in labelled):
        return None
    found: list[np.ndarray] = []
    start = 0
    for role, pool in labelled.items():
        own = roles.groups.get(role)
        numbers = np.arange(len(pool)) if own is None else np.unique(own[kept[role]], return_inverse=True)[1]
        found.append(numbers + start)
        start += int(numbers.max(initial=-1)) + 1
    return np.concatenate(found)
