"""A trial: what is asked of it, what comes of it, and what it is made of before it trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from raytl import adaptation
from raytl.adaptation import AdaptationLoss
from raytl.core.errors import UserError, nearest
from raytl.core.seeding import derive_seed, seed_everything
from raytl.sources import SourceModel
from raytl.tasks import TrainingData
from raytl.tasks.task import Role
from raytl.training.distributed import Group
from raytl.training.feed import Feed
from raytl.training.network import Network
from raytl.training.roles import STRONG_VIEW, Roles, make_roles
from raytl.training.strategy import Strategy
from raytl.training.workspace import Workspace

Report = Callable[[dict[str, Any]], None]


class TrialError(Exception):
    """The strategy could not be trained; the message says why. The search goes on without it."""


@dataclass(frozen=True)
class TrialJob:
    """One strategy to train.

    fold: index of the validation fold; None trains on all labelled target images and validates on none of them.
    final: only the trained network counts, so that only the last epoch is evaluated.
    frequencies: of the classes among the target images as far as they are known; none given where they are not.
    set_aside: source domains whose labels look wrong, on which nothing is measured. looks: whether a head that learns
    from the target's images alone is asked of those without labels as well: at many pixels these take most of its time.
    """

    strategy: Strategy
    fold: int | None = 0
    final: bool = False
    frequencies: tuple[float, ...] = ()
    set_aside: tuple[str, ...] = ()
    looks: bool = True


@dataclass
class TrialResult:
    """A trained network and how it did.

    metrics: of the last epoch. validation_index, validation_probabilities: (v,), (v, k), the target images of the
    validation fold and what the network said of them; empty without one. answers: (k,), the share of the unlabelled
    target images that each class was the answer for; empty without such images.
    """

    model: SourceModel
    metrics: dict[str, float]
    validation_index: np.ndarray
    validation_probabilities: np.ndarray
    answers: np.ndarray
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass
class Trial:
    """A trial that is ready to train. loss: of adaptation, None without one."""

    workspace: Workspace
    job: TrialJob
    group: Group
    network: Network
    loss: AdaptationLoss | None
    roles: Roles
    feed: Feed

    @property
    def classes(self) -> tuple[str, ...]:
        """Of the task."""
        return self.workspace.data.classes

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps."""
        return self.workspace.settings.budget.steps_for(self.roles.largest)


def prepare(workspace: Workspace, job: TrialJob, group: Group | None = None) -> Trial:
    """Load the source model, fit a head to the task and find the images, or what the frozen stages make of them.

    group: the worker's place among those that train this trial together.
    Raises UserError where the strategy does not fit the task.
    """
    group = group or Group()
    strategy = job.strategy
    _check_fits(strategy, workspace.data)
    model, weights = workspace.source_model(strategy.source_model)
    # Only now: loading or pretraining the model draws numbers as well, but not in a lane that has it already.
    seed_everything(trial_seed(workspace, job))
    network = Network(
        model,
        workspace.data.classes,
        strategy.cut,
        device=workspace.device,
        head=strategy.head,
        images=workspace.images,
    )
    if strategy.convex and strategy.cut != len(network.stages):
        raise UserError(
            f"strategy: a head of kind '{strategy.head}' stands on frozen stages only; set cut to {len(network.stages)}"
        )
    loss = _adaptation_loss(workspace, strategy, network)
    # Every node has made its own: where a time budget ended that, not the same. Activations go by rank 0's as well.
    group.share([*network.model.state_dict().values(), *(loss.state_dict().values() if loss else ())])
    weights = group.agreed(weights, workspace.device)
    looks = job.looks or not strategy.convex or strategy.source_domain is not None
    roles = make_roles(workspace, network, weights, strategy, job.fold, loss, job.set_aside, looks=looks)
    return Trial(workspace, job, group, network, loss, roles, _feed(workspace, job, group, network, roles))


def trial_seed(workspace: Workspace, job: TrialJob) -> int:
    """What everything random in a trial is drawn from."""
    return derive_seed(workspace.settings.seed, job.strategy.key, job.fold)


def diverged(what: str, epoch: int, strategy: Strategy) -> TrialError:
    """The error of a trial whose numbers are not finite any more."""
    return TrialError(
        f"{what} stopped being finite in epoch {epoch} "
        f"(head_lr {strategy.head_lr:g}, {strategy.optimizer}, {strategy.adaptation}): "
        "lower the learning rate or the weight of the adaptation loss"
    )


def _feed(workspace: Workspace, job: TrialJob, group: Group, network: Network, roles: Roles) -> Feed:
    strategy, seed = job.strategy, trial_seed(workspace, job)
    # The same ones in all workers of a group, each of which takes its share of every batch.
    generator = torch.Generator().manual_seed(derive_seed(seed, 0))
    on_device = generator
    if workspace.device.type != "cpu":
        on_device = torch.Generator(workspace.device).manual_seed(derive_seed(seed, 0, "device"))
    batch_size = max(1, workspace.settings.budget.batch_for(roles.largest) // group.size) * group.size
    policies = (strategy.augmentation, STRONG_VIEW)
    return Feed(roles.training, roles.strong, batch_size, network, policies, generator, on_device, group)


def _adaptation_loss(workspace: Workspace, strategy: Strategy, network: Network) -> AdaptationLoss | None:
    if strategy.adaptation == "none":
        return None
    entry = adaptation.get(strategy.adaptation)
    config = strategy.adaptation_config or entry.config()
    loss = entry.loss(config, network.model.feature_dim, len(workspace.data.classes))
    return loss.to(workspace.device)


def _check_fits(strategy: Strategy, data: TrainingData) -> None:
    """Raise UserError where the strategy needs what the task does not have."""
    domain = strategy.source_domain
    if domain is not None and not data.domains_of(domain):
        raise UserError(f"strategy: no source domain '{domain}'{nearest(domain, data.source_domains)}")
    if domain is not None and not set(data.domains_of(domain)) <= set(data.joinable):
        raise UserError(f"strategy: source domain '{domain}' has labels that the task does not know; it cannot join")
    if strategy.adaptation != "none":
        needs = adaptation.get(strategy.adaptation).needs
        if not (strategy.convex or adaptation.get(strategy.adaptation).trains):
            raise UserError(
                f"strategy: adaptation '{strategy.adaptation}' goes with a head that is solved for; set head to "
                "'logistic' or 'stages', and cut to the number of stages"
            )
        taught = adaptation.get(strategy.adaptation).loss.propagates_labels
        labelled = data.target is not None and strategy.target_labels
        if taught and (strategy.head != "stages" or not (labelled or domain is not None)):
            raise UserError(
                f"strategy: adaptation '{strategy.adaptation}' goes with head 'stages', and with the target's labels "
                "or a source_domain; set head to 'stages', and name a source_domain where there are no target labels"
            )
        if Role.SOURCE_DOMAIN in needs and domain is None:
            raise UserError(f"strategy: adaptation '{strategy.adaptation}' needs a source_domain; name one")
        if Role.UNLABELLED in needs and data.unlabelled is None:
            raise UserError(f"strategy: adaptation '{strategy.adaptation}' needs unlabelled images; add --unlabelled")
