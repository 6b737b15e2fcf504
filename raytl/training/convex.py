"""Heads that are solved for instead of trained: logistic regression on what the network makes of labelled images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from raytl.evaluation.head_probes import solve_parts
from raytl.sources.heads import StagesHead
from raytl.training.devices import autocast, upload
from raytl.training.network import Network
from raytl.training.pools import Pool, to_inputs
from raytl.training.roles import Roles

BATCH = 256
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
    kept = {
        role: spread_source(len(pool), seed) if role != "target" else np.arange(len(pool))
        for role, pool in labelled.items()
    }
    labelled = {role: pool.subset(kept[role]) for role, pool in labelled.items()}
    features = torch.cat([features_of(network, pool) for pool in labelled.values()])
    if not torch.isfinite(features).all():
        raise FloatingPointError("features are not finite")
    labels = np.concatenate([_labels(pool) for pool in labelled.values()])
    weights = np.concatenate([np.full(len(pool), 1.0 / len(pool)) for pool in labelled.values()])
    head = network.model.head
    widths = head.widths if isinstance(head, StagesHead) else None
    first = head.parts[0] if isinstance(head, StagesHead) else head
    assert isinstance(first, nn.Linear)
    found = solve_parts(
        features, labels, first.out_features, weights, _groups(labelled, roles, kept),
        widths=widths, balanced=balanced, seed=seed,
    )  # fmt: skip
    found.put_into(head)
    return Solved(tuple(probe.strength for probe in found.probes), found.sharpness)


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


def spread_source(count: int, seed: int) -> np.ndarray:
    """Which of so many images of a source domain: the target's few count as much, and more would say no more."""
    if count <= MOST_SOURCE:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, MOST_SOURCE, replace=False))


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
