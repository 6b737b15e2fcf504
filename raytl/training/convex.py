"""Heads that are solved for instead of trained: logistic regression on what the network makes of labelled images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from raytl.adaptation.moments import match_moments, match_places
from raytl.core import stopping
from raytl.evaluation.calibration import apply_temperature
from raytl.evaluation.head_probes import solve_parts
from raytl.evaluation.near_probes import solve_near
from raytl.evaluation.other_kind import least_share
from raytl.sources.heads import StagesHead, ZeroShotHead
from raytl.sources.near_heads import NearestMeanHead, NeighboursHead
from raytl.sources.precision import autocast
from raytl.training.devices import upload
from raytl.training.network import Network
from raytl.training.pools import Pool, to_inputs
from raytl.training.roles import Roles, spread_source
from raytl.training.taught import Believed, are_heard, believe, believe_a_domain, said_by, solve_taught

BATCH = 256


@dataclass(frozen=True)
class Solved:
    """How a head was solved for.

    strengths: the penalty of each linear layer. shares: of the layers in the average. sharpness: of the average, or of
    a head that goes by what is near, else 1. believed: of the unlabelled images that it learned from, None without
    such. all_teach: whether its layers on places learned from all images. out_of_fold: (n, k), calibrated, what is
    said of each of the target's images without having seen it, NaN of those that none was; None of a head that learned
    from anything else, or that goes by what is near.
    """

    strengths: tuple[float, ...] = ()
    shares: tuple[float, ...] = ()
    sharpness: float = 1.0
    believed: Believed | None = None
    all_teach: bool = True
    out_of_fold: np.ndarray | None = None


def solve_head(network: Network, roles: Roles, *, balanced: bool, seed: int, matched: bool = False) -> Solved:
    """Put the best head of its kind for the labelled images of all roles on the network's features, in place.

    As :func:`raytl.evaluation.head_probes.solve_parts` has it, or :mod:`raytl.evaluation.near_probes`. Every role
    weighs the same, as it does in a step of training. matched: source features take on the target's moments first
    (:func:`match_moments`). balanced: every class weighs the same too. Where images have augmented views, the head
    learns from these as well, and all versions of an image weigh as much as one. Where there are unlabelled images for
    it (``roles.taught``), it learns from these too, from what is believed of them (:mod:`raytl.training.taught`). Of
    several source domains without labels of the target each has its own moments, and its own layers on the stages,
    whose average is what is believed where the head learns from unlabelled images too, as a single member. Where no
    role has labels, or the head is made of the classes' names, it stays as it is; where its features are not finite,
    FloatingPointError is raised.
    """
    head = network.model.head
    if isinstance(head, ZeroShotHead) or all(pool.labels is None for pool in roles.training.values()):
        return Solved()
    classes = outputs_of(head)
    given = _given(network, roles, classes, seed, matched=matched)
    features, labels, groups = given.features, given.labels, given.groups
    if isinstance(head, NearestMeanHead | NeighboursHead):
        near = solve_near(head, features, labels, classes, given.weights, groups, balanced=balanced, seed=seed)
        network.model.head = near.head.to(network.device)
        return Solved(sharpness=float(near.head.sharpness))
    found = solve_parts(
        features,
        labels,
        classes,
        given.weights,
        groups,
        widths=head.widths if isinstance(head, StagesHead) else None,
        peaks=head.peaks if isinstance(head, StagesHead) else (),
        places=head.places if isinstance(head, StagesHead) else (),
        balanced=balanced,
        seed=seed,
        target=given.target,
        views=given.views,
        domains=given.domains,
        at_least=_at_least(head, given, roles, classes),
    )
    believed = None
    if roles.taught is not None and isinstance(head, StagesHead):
        unlabelled = features_of(network, roles.taught)
        if not torch.isfinite(unlabelled).all():
            raise FloatingPointError("features of unlabelled images are not finite")
        said = said_by(found, head, unlabelled)
        # What is believed of labelled images is of these as they are.
        target = given.target & ~given.views
        # Neighbours go by means, of which it is known where they are right: by peaks too digits lost up to 4 points.
        means, widths = head.means(unlabelled)
        heard = are_heard(means, said, widths=widths)
        if heard and target.any():
            of_target = torch.as_tensor(target, device=features.device)
            believed = believe(
                head.means(features[of_target])[0],
                labels[target],
                means,
                said,
                apply_temperature(found.out_of_fold[target], found.temperature),
                widths=widths,
                groups=None if groups is None else groups[target],
                balanced=balanced,
                joined=not given.target.all(),
            )
        elif heard:
            believed = believe_a_domain(means, said, widths=widths)
        if believed is not None:
            found = solve_taught(
                features,
                labels,
                given.weights,
                unlabelled,
                believed,
                head=head,
                balanced=balanced,
                target=target,
            )
    if isinstance(head, StagesHead) and head.members != found.members:
        head = head.anew(classes, found.members).to(network.device)
        network.model.head = head
    found.put_into(head)
    shares = tuple(found.shares.tolist()) if isinstance(head, StagesHead) else ()
    strengths = tuple(probe.strength for probe in found.probes)
    alone = believed is None and given.target.all() and not given.views.any()
    out_of_fold = apply_temperature(found.out_of_fold, found.temperature) if alone else None
    return Solved(strengths, shares, found.sharpness, believed, found.all_teach, out_of_fold)


@dataclass(frozen=True)
class _Given:
    """What a head is solved for on: the labelled images of all roles, one role's after the other's.

    features: (n, d), finite; labels, weights: (n,); groups: (n,) or None. target, views: bool (n,), which are of the
    target, and which are augmented versions. domains: (n,), the number of the source domain that each is of, where
    there are several and nothing of the target; else None. met: features (m, d) of some unlabelled images, None without
    such or where nobody asks for them.
    """

    features: Tensor
    labels: np.ndarray
    weights: np.ndarray
    groups: np.ndarray | None
    target: np.ndarray
    views: np.ndarray
    domains: np.ndarray | None
    met: Tensor | None


def _given(network: Network, roles: Roles, classes: int, seed: int, *, matched: bool) -> _Given:
    labelled = {role: pool for role, pool in roles.training.items() if pool.labels is not None}
    several = max(1, len(roles.domain_sizes))
    kept = {
        role: np.arange(len(pool)) if role == "target" else spread_source(_labels(pool), classes, seed, several)
        for role, pool in labelled.items()
    }
    labelled = {role: pool.subset(kept[role]) for role, pool in labelled.items()}
    times = {role: 1 + len(pool.views) for role, pool in labelled.items()}
    seen = {role: _of_versions(network, pool) for role, pool in labelled.items()}
    met = None
    asked = matched or (isinstance(network.model.head, StagesHead) and "target" in labelled)
    if asked and "source" in labelled and roles.sample is not None:
        met = features_of(network, roles.sample[0])
    domains = None
    if several > 1 and list(labelled) == ["source"]:
        domains = np.tile(np.repeat(np.arange(several), roles.domain_sizes)[kept["source"]], times["source"])
    if matched and met is not None:
        own = [seen[role][: len(pool)] for role, pool in labelled.items() if role == "target"]
        head, like = network.model.head, torch.cat([met, *own])
        if isinstance(head, StagesHead):
            seen["source"] = match_places(seen["source"], like, head.widths, head.places, domains)
        else:
            seen["source"] = match_moments(seen["source"], like, domains)
    features = torch.cat(list(seen.values())) if len(seen) > 1 else next(iter(seen.values()))
    if not (torch.isfinite(features).all() and (met is None or torch.isfinite(met).all())):
        raise FloatingPointError("features are not finite")
    return _Given(
        features,
        np.concatenate([np.tile(_labels(pool), times[role]) for role, pool in labelled.items()]),
        np.concatenate(
            [np.full(len(pool) * times[role], 1.0 / (len(pool) * times[role])) for role, pool in labelled.items()]
        ),
        _groups(labelled, roles, kept),
        np.concatenate([np.full(len(pool) * times[role], role == "target") for role, pool in labelled.items()]),
        np.concatenate([np.arange(len(pool) * times[role]) >= len(pool) for role, pool in labelled.items()]),
        domains,
        met,
    )


def _at_least(head: nn.Module, given: _Given, roles: Roles, classes: int) -> float:
    """Share of the layers that learn from a source domain too, as :func:`least_share` has it; 0 without two kinds."""
    if given.met is None or not isinstance(head, StagesHead) or not given.target.any():
        return 0.0
    last = -head.widths[-1]
    return least_share(
        given.features[:, last:],
        given.labels,
        classes,
        given.met[:, last:],
        target=given.target,
        views=given.views,
        groups=(roles.groups.get("target"), roles.groups.get("sample")),
    )


@torch.inference_mode()
def features_of(network: Network, pool: Pool) -> Tensor:
    """Features (n, d) of a pool in eval mode, on the network's device."""
    network.eval()
    found = torch.empty(0, device=network.device)
    with autocast(network.device):
        for number, batch in enumerate(pool.batches(BATCH)):
            stopping.check()
            features = network.features(to_inputs(upload(batch, network.device), network))
            if not number:  # written into at once: lists of batches would be a second copy
                found = torch.empty((len(pool), *features.shape[1:]), device=network.device)
            found[number * BATCH :][: len(features)] = features
    return found


def _of_versions(network: Network, pool: Pool) -> Tensor:
    """Features of the images, then of each of their views."""
    versions = pool.versions()
    found = features_of(network, versions[0])
    if len(versions) == 1:
        return found
    everything = torch.empty((len(versions) * len(pool), *found.shape[1:]), device=found.device)
    everything[: len(pool)] = found
    for number, version in enumerate(versions[1:], start=1):
        everything[number * len(pool) :][: len(pool)] = features_of(network, version)
    return everything


def outputs_of(head: nn.Module) -> int:
    """Classes of a head that is solved for."""
    if isinstance(head, NearestMeanHead | NeighboursHead):
        return head.outputs
    layer = head.parts[0] if isinstance(head, StagesHead) else head
    assert isinstance(layer, nn.Linear)
    return layer.out_features


def _labels(pool: Pool) -> np.ndarray:
    assert pool.labels is not None
    return pool.labels.cpu().numpy()


def _groups(labelled: dict[str, Pool], roles: Roles, kept: dict[str, np.ndarray]) -> np.ndarray | None:
    """Group numbers over all roles, views in their image's; None where every image is its own."""
    if all(roles.groups.get(role) is None and not pool.views for role, pool in labelled.items()):
        return None
    found: list[np.ndarray] = []
    start = 0
    for role, pool in labelled.items():
        own = roles.groups.get(role)
        numbers = np.arange(len(pool)) if own is None else np.unique(own[kept[role]], return_inverse=True)[1]
        found.append(np.tile(numbers + start, 1 + len(pool.views)))
        start += int(numbers.max(initial=-1)) + 1
    return np.concatenate(found)
