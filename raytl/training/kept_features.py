"""What the winner's network makes of its images, gathered while they are at hand."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from raytl import adaptation
from raytl.adaptation.moments import match_moments, match_places
from raytl.evaluation.image_statistics import image_statistics, thumbnails
from raytl.judging.kept_features import MOST_IMAGES, MOST_UNLABELLED, KeptFeatures, most_unlabelled
from raytl.sources import SourceModel
from raytl.sources.heads import StagesHead
from raytl.tasks import Images, LabelledImages
from raytl.tasks.splits import spread, spread_by_class
from raytl.training.convex import features_of
from raytl.training.network import Network
from raytl.training.pools import PoolMaker
from raytl.training.roles import sample_index, source_parts, spread_source
from raytl.training.strategy import Strategy
from raytl.training.trial import TrialJob, trial_seed
from raytl.training.workspace import Workspace


def gather_features(workspace: Workspace, strategy: Strategy, model: SourceModel) -> KeptFeatures | None:
    """Features of the labelled images that the strategy learns from, as many as are kept; None where there are none.

    With them those of some images without labels, where the task has such.

    model: the strategy's trained network, whose last stage (all stages, where its head reads them) is taken. Where
    nothing of it was trained, the activations that the search has cached are used.
    """
    seed = trial_seed(workspace, TrialJob(strategy, None))
    cached = strategy.convex
    weights = ""
    if cached:
        model, weights = workspace.source_model(strategy.source_model)
    else:
        model = copy.deepcopy(model)
    classes = workspace.data.classes
    network = Network(
        model, classes, len(model.stage_names), device=workspace.device, head=strategy.head, images=workspace.images
    )
    labelled = _labelled(workspace, strategy, seed)
    if not labelled:
        return None
    found = []
    for images, every, target, share in labelled:
        index = every[spread_by_class(images.labels[every], MOST_IMAGES)]  # no more pass the network than may be kept
        maker = PoolMaker(
            workspace, network, weights, cached=cached and workspace.settings.activation_cache, images=len(images)
        )
        # The search has made and kept what the frozen stages make of all the target's images.
        pool = maker.make(images).subset(index) if cached and target else maker.make(images.subset(index))
        pixels = workspace.pixels(images.subset(index), model.preprocessing).numpy()
        groups = np.arange(len(images)) if images.groups is None else images.groups
        found.append(
            KeptFeatures(
                features=features_of(network, pool).cpu().numpy().astype(np.float32),
                labels=images.labels[index],
                weights=np.full(len(index), share / len(index)),
                target=np.full(len(index), target),
                groups=np.unique(groups[index], return_inverse=True)[1].astype(np.int64),
                digests=np.stack([_bytes(images.items[i].digest) for i in index]),
                thumbnails=thumbnails(pixels),
                statistics=image_statistics(pixels),
                frozen=strategy.convex or strategy.cut >= len(model.stage_names),
                balanced=strategy.class_weights == "balanced",
                unlabelled=np.empty((0, 0), dtype=np.float32),
            )
        )
    joined = found[0]
    for more in found[1:]:
        joined = joined.joined(more)
    without = _of_unlabelled(workspace, network, weights, strategy)
    unlabelled = joined.features[:0] if without is None else without
    matched = strategy.adaptation != "none" and adaptation.get(strategy.adaptation).loss.matches_moments
    if matched and not joined.target.all():
        parts = np.repeat(np.arange(len(found)), [len(part) for part in found])
        joined = _matched(joined, unlabelled, None if joined.target.any() else parts, network.model.head)
    some = spread(np.arange(len(unlabelled)), most_unlabelled(unlabelled.shape[1]))
    return replace(joined.bounded(), unlabelled=unlabelled[some])


def images_to_pass(workspace: Workspace, strategy: Strategy) -> int:
    """How many images have to pass the strategy's network for :func:`gather_features`, at most.

    Where nothing of it was trained, those whose activations this node has not kept.
    """
    labelled = [role[:3] for role in _labelled(workspace, strategy, trial_seed(workspace, TrialJob(strategy, None)))]
    unlabelled = workspace.data.unlabelled
    without = _unlabelled_index(workspace, strategy)
    if not strategy.convex:
        return len(without) + sum(min(len(every), MOST_IMAGES) for _, every, _ in labelled)
    parts: list[Images] = [images if target else images.subset(every) for images, every, target in labelled]
    if unlabelled is not None:
        parts.append(unlabelled.subset(without))
    return sum(min(lacking(workspace, strategy, part), MOST_IMAGES) for part in parts)


def lacking(workspace: Workspace, strategy: Strategy, images: Images, views: int = 0) -> int:
    """How many of some images, views counted, a head's network has to see that this node has not kept activations of.

    Raises UserError where its source model cannot be had.
    """
    model, weights = workspace.source_model(strategy.source_model)
    stages = len(model.stage_names)
    network = Network(
        model, workspace.data.classes, stages, device=workspace.device, head=strategy.head, images=workspace.images
    )
    cached, count = workspace.settings.activation_cache, (1 + views) * len(images)
    maker = PoolMaker(workspace, network, weights, cached=cached, images=count)
    return maker.lacking(images, strategy.augmentation, views)


def _unlabelled_index(workspace: Workspace, strategy: Strategy) -> np.ndarray:
    """Which images without labels; of frozen stages those that the trial was evaluated on, which have passed them."""
    seen = sample_index(workspace, strategy, validates=False)
    return seen if strategy.convex else spread(seen, MOST_UNLABELLED)


def _of_unlabelled(workspace: Workspace, network: Network, weights: str, strategy: Strategy) -> np.ndarray | None:
    """What the head reads of them, float32 (m, d); None without such."""
    images = workspace.data.unlabelled
    if images is None or not len(images):
        return None
    seen, cached = images.subset(_unlabelled_index(workspace, strategy)), strategy.convex
    maker = PoolMaker(
        workspace, network, weights, cached=cached and workspace.settings.activation_cache, images=len(seen)
    )
    return features_of(network, maker.make(seen)).cpu().numpy().astype(np.float32)


def _matched(kept: KeptFeatures, unlabelled: np.ndarray, parts: np.ndarray | None, head: nn.Module) -> KeptFeatures:
    """The same with the source domain's features as its head has learned from them.

    unlabelled: (m, d). parts: (n,), of which domain each is, where these have the target's moments each by itself.
    """
    like = np.concatenate([unlabelled, kept.features[kept.target]])
    features = kept.features.copy()
    source = torch.from_numpy(features[~kept.target])
    if isinstance(head, StagesHead):
        moved = match_places(source, torch.from_numpy(like), head.widths, head.places, parts)
    else:
        moved = match_moments(source, torch.from_numpy(like), parts)
    features[~kept.target] = moved.numpy()
    return replace(kept, features=features)


def _labelled(
    workspace: Workspace, strategy: Strategy, seed: int
) -> list[tuple[LabelledImages, np.ndarray, bool, float]]:
    """(images, which of them, whether they are the target's, share of their role) as a head is solved for on them."""
    data, found = workspace.data, []
    if data.target is not None and strategy.target_labels:
        found.append((data.target, np.arange(len(data.target)), True, 1.0))
    parts = [
        (images, train[spread_source(images.labels[train], len(data.classes), seed)])
        for images, train in source_parts(workspace, strategy)
    ]
    total = sum(len(index) for _, index in parts)
    found += [(images, index, False, len(index) / max(1, total)) for images, index in parts]
    return [role for role in found if len(role[1])]


def _bytes(digest: str) -> np.ndarray:
    """The 32 bytes of a hash; zeros of an image without one."""
    return np.frombuffer(bytes.fromhex(digest or "00" * 32), dtype=np.uint8)
