"""Heads that are solved for instead of trained: logistic regression on what the network makes of labelled images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from raytl.adaptation.moments import match_moments
from raytl.evaluation.calibration import fit_temperature
from raytl.evaluation.mixing import mixture_shares
from raytl.evaluation.probes import Probe, fit_logistic
from raytl.sources.heads import StagesHead
from raytl.training.devices import autocast, upload
from raytl.training.network import Network
from raytl.training.pools import Pool, to_inputs
from raytl.training.roles import MOST_SOURCE, Roles

BATCH = 256
STAGE_FOLDS = 3
"""By which the strength of each stage's head is chosen: their average forgives what five would do better."""


@dataclass(frozen=True)
class Solved:
    """How a head was solved for.

    strengths: the penalty of each linear layer. shares: of the layers in the average, empty without one. sharpness: of
    the average, else 1.
    """

    strengths: tuple[float, ...] = ()
    shares: tuple[float, ...] = ()
    sharpness: float = 1.0


@dataclass(frozen=True)
class _Labelled:
    """Features (n, d) of labelled images, the target's first, with labels and weights (n,); groups (n,) or None.

    own: how many are the target's.
    """

    features: Tensor
    labels: np.ndarray
    weights: np.ndarray
    groups: np.ndarray | None
    own: int

    def target(self) -> _Labelled:
        """The target's alone."""
        groups = None if self.groups is None else self.groups[: self.own]
        return _Labelled(self.features[: self.own], self.labels[: self.own], self.weights[: self.own], groups, self.own)


def solve_head(network: Network, roles: Roles, *, balanced: bool, seed: int, matched: bool = False) -> Solved:
    """Put the best linear head for the labelled images of all roles on the network's features, in place.

    Every role weighs the same, as it does in a step of training. matched: source features take on the target's moments
    first (:func:`match_moments`). balanced: every class weighs the same too. Where no role has labels, the head stays
    as it is; where its features are not finite, FloatingPointError is raised.

    A head that reads all stages gets a layer on each; where there are both roles, a second one on each: the first
    member is the target's alone, the second one's images are all. The target's images tell, out of fold, which layers
    have how much of a say, so that a source domain that is of no use is hardly heard.
    """
    labelled = _labelled(network, roles, matched=matched, seed=seed)
    if labelled is None:
        return Solved()
    if not torch.isfinite(labelled.features).all():
        raise FloatingPointError("features are not finite")
    solve = partial(fit_logistic, class_balanced=balanced, seed=seed)
    head = network.model.head
    if not isinstance(head, StagesHead):
        assert isinstance(head, nn.Linear)
        return Solved((_solve_layer(head, labelled, solve).strength,))
    members = [labelled.target(), labelled] if 0 < labelled.own < len(labelled.labels) else [labelled]
    if len(members) > 1:
        head = StagesHead(head.widths, head.parts[0].out_features, len(members)).to(network.device)  # type: ignore[arg-type]
        network.model.head = head
    solve = partial(solve, max_folds=STAGE_FOLDS)
    layers, probes = iter(head.parts), []
    for member in members:
        for seen in member.features.split(head.widths, dim=1):
            layer = next(layers)
            assert isinstance(layer, nn.Linear)
            probes.append(_solve_layer(layer, replace(member, features=seen), solve))
    # Out of fold: what the model is for where there is such a thing, else all.
    judged = labelled.target() if labelled.own else labelled
    out_of_fold = np.stack([probe.out_of_fold[: len(judged.labels)] for probe in probes])
    shares = mixture_shares(out_of_fold, judged.labels) if labelled.own else np.full(len(probes), 1 / len(probes))
    sharpness = 1.0 / _temperature(np.tensordot(shares, out_of_fold, 1), judged)
    head.shares.copy_(torch.as_tensor(shares))
    head.sharpness.fill_(sharpness)
    return Solved(tuple(probe.strength for probe in probes), tuple(shares.tolist()), float(head.sharpness))


def _labelled(network: Network, roles: Roles, *, matched: bool, seed: int) -> _Labelled | None:
    """All labelled images as the network sees them; None without any."""
    labelled = {role: pool for role, pool in roles.training.items() if pool.labels is not None}
    if not labelled:
        return None
    kept = {role: _spread(pool, seed) if role != "target" else np.arange(len(pool)) for role, pool in labelled.items()}
    labelled = {role: pool.subset(kept[role]) for role, pool in labelled.items()}
    features = {role: features_of(network, pool) for role, pool in labelled.items()}
    if matched and "source" in features and roles.sample is not None:
        like = [features_of(network, roles.sample[0]), *(seen for role, seen in features.items() if role == "target")]
        features["source"] = match_moments(features["source"], torch.cat(like))
    return _Labelled(
        torch.cat(list(features.values())),
        np.concatenate([_labels(pool) for pool in labelled.values()]),
        np.concatenate([np.full(len(pool), 1.0 / len(pool)) for pool in labelled.values()]),
        _groups(labelled, roles, kept),
        len(labelled.get("target", ())),
    )


def _solve_layer(layer: nn.Linear, images: _Labelled, solve: Callable[..., Probe]) -> Probe:
    probe = solve(
        images.features, images.labels, layer.out_features, sample_weight=images.weights, groups=images.groups
    )
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(probe.weight))
        layer.bias.copy_(torch.as_tensor(probe.bias))
    return probe


def _temperature(mean: np.ndarray, images: _Labelled) -> float:
    """Of averaged probabilities (n, k), by images that trained none of them; 1 where there are none."""
    seen = np.isfinite(mean).all(axis=1)
    if not seen.any():
        return 1.0
    logs, weights = np.log(np.clip(mean[seen], 1e-12, None)), images.weights[seen]
    return fit_temperature(logs, images.labels[seen], weights / weights.sum())


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
    """At most so many images of a source domain."""
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
