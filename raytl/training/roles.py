"""The pools of one trial by what they are for: what trains it, and what it is scored on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from raytl.adaptation import AdaptationLoss
from raytl.tasks import Images, LabelledImages
from raytl.tasks.splits import spread, spread_by_class
from raytl.training.material import EVALUATION_SAMPLE
from raytl.training.network import Network
from raytl.training.pools import Pool, PoolMaker, together
from raytl.training.strategy import Strategy
from raytl.training.workspace import Workspace

PROBE_SAMPLE = 128
QUICK_SAMPLE = 256
"""Unlabelled images looked at before the last epoch: enough to tell who falls behind, at half the price."""
MOST_TAUGHT = 1000
"""Unlabelled images that a head is solved for on."""
MOST_RECALIBRATED = 2000
"""Unlabelled images that batch norm takes its statistics from, at each evaluation: means of more are no others."""
LEAST_SOURCE, MOST_SOURCE, SOURCE_A_CLASS, LEAST_A_CLASS = 200, 600, 30, 10
"""Images of a source domain that a head is solved for on, by how many classes there are: the target's few count as
much, and more say no more. Of each class there are some, be they hundreds."""
STRONG_VIEW = "strong"
"""The augmentation policy of the second view that consistency losses ask for."""


def unlabelled_sample(strategy: Strategy, *, validates: bool) -> int:
    """How many unlabelled images a strategy is evaluated on. validates: whether labelled ones are held out as well.

    Each is two passes through the network. Where labels decide and nothing adapts, little is to be learned from many.
    """
    return PROBE_SAMPLE if strategy.convex or (validates and strategy.adaptation == "none") else EVALUATION_SAMPLE


def sample_index(workspace: Workspace, strategy: Strategy, *, validates: bool) -> np.ndarray:
    """Which unlabelled images these are."""
    images = workspace.data.unlabelled
    return spread(np.arange(0 if images is None else len(images)), unlabelled_sample(strategy, validates=validates))


def taught_index(workspace: Workspace) -> np.ndarray:
    """Which unlabelled images a head is solved for on."""
    images = workspace.data.unlabelled
    return spread(np.arange(0 if images is None else len(images)), MOST_TAUGHT)


def recalibrated_index(workspace: Workspace) -> np.ndarray:
    """Which unlabelled images batch norm takes its statistics from, where a loss has it do so (AdaBN)."""
    images = workspace.data.unlabelled
    return spread(np.arange(0 if images is None else len(images)), MOST_RECALIBRATED)


def source_index(workspace: Workspace, strategy: Strategy) -> np.ndarray:
    """Which images of its source domain a strategy trains on; of several, by their place in all together."""
    found, first = [np.empty(0, dtype=np.int64)], 0
    for images, index in source_parts(workspace, strategy):
        found.append(index + first)
        first += len(images)
    return np.concatenate(found)


def source_parts(workspace: Workspace, strategy: Strategy) -> list[tuple[LabelledImages, np.ndarray]]:
    """Each source domain that a strategy joins, with the task's classes, and which of its images it trains on."""
    classes, found = workspace.data.classes, []
    for name in workspace.data.domains_of(strategy.source_domain or ""):
        images, index = workspace.data.source_domains[name].with_classes(classes), workspace.source_split(name)[0]
        if strategy.convex:
            index = np.asarray(index[spread_source(images.labels[index], len(classes), 0)])
        found.append((images, index))
    return found


def most_source(classes: int) -> int:
    """Images of a source domain with so many classes that a head is solved for on."""
    return max(LEAST_SOURCE, min(MOST_SOURCE, SOURCE_A_CLASS * classes), LEAST_A_CLASS * classes)


def held_out_for(workspace: Workspace, strategy: Strategy, set_aside: Collection[str] = ()) -> LabelledImages | None:
    """The held-out images of the source domains that a strategy is looked at on; None without.

    These would take longer to pass than a head to be solved for: it has none where folds of the target tell what is
    right, and fewer where unlabelled images tell most of it.
    """
    held_out = workspace.held_out_source_images(set_aside)
    if held_out is None or not strategy.convex:
        return held_out
    if workspace.folds:
        return None
    few = workspace.data.unlabelled is not None
    return held_out.subset(spread(np.arange(len(held_out)), PROBE_SAMPLE)) if few else held_out


def spread_source(labels: np.ndarray, classes: int, seed: int, domains: int = 1) -> np.ndarray:
    """Which images of a source domain or so many, with labels (n,), a head is solved for on."""
    return spread_by_class(labels, domains * most_source(classes), least=domains * LEAST_A_CLASS // 2, seed=seed)


@dataclass
class Roles:
    """A trial's pools; None for what the task or the strategy does without.

    training: by role (``target``, ``source``, ``unlabelled``), none of them empty. groups: of the labelled ones, by
    role, and of the sample; None where every image is its own. strong: the unlabelled images for the strong view.
    unlabelled: those that training or batch norm's statistics take; taught: those that a head is solved for on. sample:
    some of them, and slightly moved versions, where these are looked at; quick_sample: fewer.
    domain_sizes: images of each source domain that joins, one's after the other's in their pool.
    validation: the target images of the validation fold; validation_index: which ones (v,), empty without a fold.
    source_sample: held-out images of the source domains that may join a training, whether or not one joins this one, so
    that trials with and without are scored alike; of a head fewer, and none where folds of the target say better what
    is right. quick_source_sample: fewer, and None where a validation fold says better who falls behind.
    """

    training: dict[str, Pool] = field(default_factory=dict)
    groups: dict[str, np.ndarray | None] = field(default_factory=dict)
    domain_sizes: tuple[int, ...] = ()
    strong: Pool | None = None
    unlabelled: Pool | None = None
    taught: Pool | None = None
    sample: tuple[Pool, Pool] | None = None
    quick_sample: tuple[Pool, Pool] | None = None
    validation: Pool | None = None
    validation_index: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    source_sample: Pool | None = None
    quick_source_sample: Pool | None = None

    @property
    def largest(self) -> int:
        """Images of the largest role that trains."""
        return max((len(pool) for pool in self.training.values()), default=0)

    def evaluated(self, *, last: bool) -> tuple[tuple[Pool, Pool] | None, Pool | None]:
        """The images without labels, still and moved, and the source images to look at after an epoch, or the last."""
        return (self.sample, self.source_sample) if last else (self.quick_sample, self.quick_source_sample)


def make_roles(
    workspace: Workspace,
    network: Network,
    weights: str,
    strategy: Strategy,
    fold: int | None,
    loss: AdaptationLoss | None,
    set_aside: Collection[str] = (),
    *,
    looks: bool = True,
) -> Roles:
    """The pools of a trial, of activations wherever the frozen stages can be run beforehand.

    set_aside: source domains on which nothing is measured. looks: whether anything is on unlabelled images.
    """
    data = workspace.data
    domain = None if strategy.source_domain is None else data.domain(strategy.source_domain)
    augments = strategy.augmentation != "none"
    second_view = loss is not None and loss.wants_strong_view
    held_out = held_out_for(workspace, strategy, set_aside)
    maker = PoolMaker(
        workspace,
        network,
        weights,
        cached=workspace.settings.activation_cache and (strategy.cached_views > 0 or not (augments or second_view)),
        images=_images_to_pass(workspace, strategy, loss, held_out, looks=looks),
    )

    def make(images: Images, labels: np.ndarray | None = None) -> Pool:
        return maker.make(images, labels, strategy.augmentation, strategy.cached_views if augments else 0)

    roles = Roles()
    training: dict[str, Pool] = {}
    if data.target is not None:
        everything = make(data.target, data.target.labels)
        train = np.arange(len(data.target))
        if fold is not None and workspace.folds:
            train, roles.validation_index = workspace.folds[fold]
            roles.validation = everything.subset(roles.validation_index)
        if strategy.target_labels:
            training["target"] = everything.subset(train)
            roles.groups["target"] = None if data.target.groups is None else data.target.groups[train]
    if domain is not None:
        relabelled = domain.with_classes(data.classes)
        train = source_index(workspace, strategy)
        of_each = [images.subset(index) for images, index in source_parts(workspace, strategy)]
        roles.domain_sizes = tuple(len(images) for images in of_each)
        if strategy.convex:  # the others would pass through the network for nothing, and those of a domain pass it once
            training["source"] = together([make(images, images.labels) for images in of_each])
        else:
            training["source"] = make(relabelled, relabelled.labels).subset(train)
        roles.groups["source"] = None if domain.groups is None else domain.groups[train]
    if held_out is not None:
        roles.source_sample = maker.make(held_out, held_out.labels)
        if roles.validation is None:
            roles.quick_source_sample = roles.source_sample.subset(spread(np.arange(len(held_out)), QUICK_SAMPLE))
    if data.unlabelled is not None and loss is not None and loss.propagates_labels:
        roles.taught = maker.make(data.unlabelled.subset(taught_index(workspace)))
    if data.unlabelled is not None and looks:
        chosen = sample_index(workspace, strategy, validates=roles.validation is not None)
        seen = data.unlabelled.subset(chosen)
        roles.groups["sample"] = seen.groups
        if strategy.adaptation == "none" or strategy.convex:
            still = maker.make(seen)
        elif loss is not None and not loss.gradient_free:
            training["unlabelled"] = roles.unlabelled = make(data.unlabelled)
            still = roles.unlabelled.subset(chosen)
        else:
            roles.unlabelled = maker.make(data.unlabelled.subset(recalibrated_index(workspace)))
            still = maker.make(seen)
        if second_view:
            roles.strong = maker.make(data.unlabelled, None, STRONG_VIEW, strategy.cached_views)
        moved = maker.make_moved(seen)
        few = spread(np.arange(len(chosen)), QUICK_SAMPLE)
        roles.sample, roles.quick_sample = (still, moved), (still.subset(few), moved.subset(few))
    roles.training = {role: pool for role, pool in training.items() if len(pool)}
    return roles


def _images_to_pass(
    workspace: Workspace,
    strategy: Strategy,
    loss: AdaptationLoss | None,
    held_out: LabelledImages | None,
    *,
    looks: bool,
) -> int:
    """How many images the pools of a trial pass through its network, views of them counted."""
    data = workspace.data
    domain = None if strategy.source_domain is None else data.domain(strategy.source_domain)
    augments = strategy.augmentation != "none"
    second_view = loss is not None and loss.wants_strong_view
    views = strategy.cached_views * (augments + second_view)
    if not strategy.convex:
        roles = [images for images in (data.target, data.unlabelled, domain, held_out) if images is not None]
        return (1 + views) * sum(len(images) for images in roles)
    # It makes views of nothing but what it learns from.
    learned = len(source_index(workspace, strategy)) + (0 if data.target is None else len(data.target))
    looked_at = 2 * PROBE_SAMPLE if looks else 0
    looked_at += MOST_TAUGHT if loss is not None and loss.propagates_labels else 0
    unlabelled = 0 if data.unlabelled is None else min(looked_at, 3 * len(data.unlabelled))
    return (1 + views) * learned + unlabelled + (0 if held_out is None else len(held_out))
