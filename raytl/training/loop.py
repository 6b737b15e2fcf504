"""The trial loop: any strategy, from pools of unequal size, to a trained network. Pure torch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import reduce
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raytl import finetuning
from raytl.adaptation import Views
from raytl.core import stopping
from raytl.finetuning.domain_norm import running_statistics_kept
from raytl.finetuning.optimizers import Optimizer, build_optimizer, parameter_groups, set_progress
from raytl.sources.precision import autocast
from raytl.training.averaging import WeightAverage
from raytl.training.convex import solve_head
from raytl.training.devices import free_memory, out_of_memory
from raytl.training.distributed import Group
from raytl.training.trial import Report, Trial, TrialError, TrialJob, TrialResult, diverged, prepare, trial_seed
from raytl.training.validation import Seen, Validation
from raytl.training.workspace import Workspace

ACCUMULATION = "accumulation"
"""The metric that says in how many parts each batch went through; missing where it went as a whole."""
LEAST_PART = 2
"""Images of a part: batch norm has no variance of one."""

Result = TypeVar("Result")


def run_trial(workspace: Workspace, job: TrialJob, report: Report, group: Group | None = None) -> TrialResult:
    """Train one strategy to the full budget, calling ``report`` after each epoch.

    group: the worker's place among those that train this trial together, each on its share of every batch that one
    would draw. Batch norm normalises by a worker's own share, and losses that look at a whole batch look at that; what
    comes of it is, but for running statistics, what one worker comes to whose batches go through in as many parts.
    Running statistics are averaged after each epoch. Only rank 0 evaluates.

    Where a step takes more memory than there is, the trial begins again with every batch in two parts, then four, whose
    gradients are summed before the one update; ``accumulation`` among the metrics says in how many. A group does not:
    its workers would have to agree.

    The same workspace settings and job give the same numbers bit for bit on one machine type, in whichever lane and
    after whatever other trials. Raises TrialError where the loss stops being finite, UserError where the strategy does
    not fit the task.
    """
    return with_memory(workspace, lambda parts: ready(workspace, job, group, parts).run(report))


def with_memory(workspace: Workspace, attempt: Callable[[int], Result]) -> Result:
    """What comes of an attempt, told in how many parts batches go through: more of them until there is the memory."""
    parts = 1
    while True:
        try:
            return attempt(parts)
        except _StepTooLargeError:
            parts *= 2
        free_memory(workspace.device)


def ready(workspace: Workspace, job: TrialJob, group: Group | None, parts: int) -> Loop:
    """The training of a strategy, its head solved for where it begins with that; arguments as of :func:`run_trial`."""
    trial = prepare(workspace, job, group)
    inside = _solve(trial) if job.strategy.convex or job.strategy.start == "probe" else None
    return Loop(trial, parts, inside if job.strategy.convex else None)


def _solve(trial: Trial) -> np.ndarray | None:
    """Put the best linear head on the network; where a probe was on all labels, that is the one of its refit too.

    Returns what is said of the images that it was solved for on (:attr:`raytl.training.convex.Solved.out_of_fold`).
    """
    job, workspace = trial.job, trial.workspace
    whole = job.strategy.convex and not workspace.folds
    known = workspace.solved(job.strategy.key) if whole else None
    if known is not None:
        trial.network.model.head = known
        return None
    try:
        balanced = job.strategy.class_weights == "balanced"
        matched = trial.loss is not None and trial.loss.matches_moments
        seed = trial_seed(workspace, job)
        solved = solve_head(trial.network, trial.roles, balanced=balanced, seed=seed, matched=matched)
    except FloatingPointError:
        raise TrialError(f"{job.strategy.source_model}: its features of these images are not finite") from None
    if whole:
        workspace.keep_solved(job.strategy.key, trial.network.model.head)
    return solved.out_of_fold


class _StepTooLargeError(Exception):
    """There was no memory for a step, and there may be for its halves."""


class Loop:
    """Trains whatever is above the cut, with any loss, step by step."""

    def __init__(self, trial: Trial, parts: int, inside: np.ndarray | None = None) -> None:
        self.trial = trial
        self.inside = inside
        self.parts = parts
        self.workspace = trial.workspace
        self.strategy = trial.job.strategy
        self.group = trial.group
        self.budget = trial.workspace.settings.budget
        self.network = trial.network
        self.loss = trial.loss
        recalibrates = self.loss is not None and self.loss.recalibrates_norm
        self.steps = trial.steps_per_epoch
        self.class_weights = self._class_weights()
        self.validation = Validation(
            self.network,
            trial.roles,
            len(trial.classes),
            metric=trial.workspace.metric,
            frequencies=trial.job.frequencies,
            recalibrates=recalibrates,
        )
        self.regulariser = self._regulariser()

    def _regulariser(self) -> Any:
        if self.strategy.regulariser == "none":
            return None
        entry = finetuning.regularisers.get(self.strategy.regulariser)
        config = self.strategy.regulariser_config or entry.config()
        return entry.regulariser(config, self.network.stages, self.network.cut)

    def _class_weights(self) -> dict[str, Tensor]:
        """By labelled role, the weight (k,) of each class in the loss; none where all images weigh the same."""
        if self.strategy.class_weights == "none":
            return {}
        found = {}
        for role, pool in self.trial.roles.training.items():
            if pool.labels is not None:
                counts = torch.bincount(pool.labels.cpu(), minlength=len(self.trial.classes)).float()
                present = counts > 0
                weights = torch.where(present, counts.sum() / (present.sum() * counts.clamp(min=1)), 0.0)
                found[role] = weights.to(self.workspace.device)
        return found

    # --- training ---------------------------------------------------------------------------------------------------

    @property
    def trains(self) -> bool:
        """Whether there is anything to train, and images to train it on."""
        return bool(self.trial.roles.training) and not self.strategy.convex

    def run(self, report: Report) -> TrialResult:
        """Train to the full budget."""
        started = time.perf_counter()
        average = self.average()
        optimizer = self.optimizer() if self.trains else None
        history: list[dict[str, float]] = []
        epochs = self.budget.epochs if self.trains else 1
        metrics: dict[str, float] = {}
        seen = self._nothing()
        for epoch in range(1, epochs + 1):
            train_loss = self._epoch(epoch, optimizer, average) if optimizer else 0.0
            last = epoch == epochs
            with average.applied() if average and not last else nullcontext():
                if last:
                    self._finish(average)
                self._agree_on_statistics()
                looked = last or (not self.trial.job.final and self.budget.looks_at(epoch))
                if looked:
                    seen = self.look(epoch, last=last)
                if last:
                    self.group.share(self.network.model.state_dict().values())
            if not looked:
                continue
            seconds = time.perf_counter() - started
            metrics = {**seen.metrics, "train_loss": train_loss, "epoch": float(epoch), "seconds": seconds}
            if self.inside is not None:
                metrics |= self.validation.inside(self.inside, seen.probabilities)
            if self.parts > 1:
                metrics[ACCUMULATION] = float(self.parts)
            history.append(metrics)
            report({**metrics, "last": last})
        index = self.trial.roles.validation_index
        return TrialResult(self.network.model, metrics, index, seen.probabilities, seen.answers, history)

    def _agree_on_statistics(self) -> None:
        """Mean of the running batch-norm statistics over the group: every worker has seen other images."""
        buffers = [buffer for stage in self.network.stages[self.network.cut :] for buffer in stage.buffers()]
        self.group.average([buffer for buffer in buffers if buffer.is_floating_point()])

    def average(self) -> WeightAverage | None:
        """Of the weights of a training, where the strategy has one."""
        if not self.strategy.ema:
            return None
        return WeightAverage([*self.network.stages[self.network.cut :], self.network.model.head], self.strategy.ema)

    def _finish(self, average: WeightAverage | None) -> None:
        if average is not None:
            average.apply()

    def optimizer(self) -> Optimizer:
        """Of a training."""
        strategy = self.strategy
        heads: list[nn.Module] = [self.network.model.head]
        if self.loss is not None:
            heads.append(self.loss)
        groups = parameter_groups(
            self.network.stages,
            self.network.cut,
            heads,
            head_lr=strategy.head_lr,
            backbone_ratio=strategy.backbone_ratio,
            weight_decay=strategy.weight_decay,
        )
        if self.regulariser is not None and self.regulariser.replaces_weight_decay:
            for group in groups:
                if group["name"] == "backbone":
                    group["weight_decay"] = 0.0
        return build_optimizer(strategy.optimizer, groups)

    def _epoch(self, epoch: int, optimizer: Optimizer, average: WeightAverage | None) -> float:
        """One epoch of steps; returns the mean loss. Looks at it only once, so that no step waits for the device."""
        self.set_to_train()
        total = torch.zeros((), device=self.workspace.device)
        for step in range(self.steps):
            stopping.check()
            total += self.step((epoch - 1) * self.steps + step, optimizer, average)
        # Agreed upon, so that all workers of a group stop together where one of them diverges.
        mean = float(self.group.mean(total)) / self.steps
        if not math.isfinite(mean):
            raise diverged("the loss", epoch, self.strategy)
        return mean

    def set_to_train(self) -> None:
        """To be called before steps: looks leave the network set to answer."""
        self.network.train()
        if self.loss is not None:
            self.loss.train()

    def step(self, number: int, optimizer: Optimizer, average: WeightAverage | None) -> Tensor:
        """One step, of those of all epochs the one of this number; returns its loss, detached."""
        progress = number / (self.steps * self.budget.epochs)
        set_progress(optimizer, self.strategy.schedule, progress, self.strategy.warmup)
        optimizer.zero_grad()
        loss = self._gradients(progress)
        self.group.average_gradients(optimizer.parameters)
        optimizer.step()
        if average is not None:
            average.update()
        return loss

    def _gradients(self, progress: float) -> Tensor:
        """The loss of the next batch, detached; its gradients are at the parameters."""
        inputs, labels = self.trial.feed.next()
        try:
            if self.parts == 1:
                loss = self._loss(inputs, labels, progress)
                loss.backward()  # type: ignore[no-untyped-call]
                return loss.detach()
            total = torch.zeros((), device=self.workspace.device)
            for some, known in zip(_split(inputs, self.parts), _split(labels, self.parts), strict=True):
                loss = self._loss(some, known, progress) / self.parts
                loss.backward()  # type: ignore[no-untyped-call]
                total += loss.detach()
            return total
        except (RuntimeError, MemoryError) as error:
            smallest = min(map(len, inputs.values())) // (2 * self.parts)
            if not out_of_memory(error) or self.group.size > 1 or smallest < LEAST_PART:
                raise
        raise _StepTooLargeError

    def _loss(self, inputs: dict[str, Tensor], labels: dict[str, Tensor], progress: float) -> Tensor:
        strategy, device = self.strategy, self.workspace.device
        views = self._forward(inputs, device)
        terms = [
            F.cross_entropy(
                views[role][1],
                known,
                weight=self.class_weights.get(role),
                label_smoothing=strategy.label_smoothing,
            )
            for role, known in labels.items()
        ]
        if self.loss is not None and not self.loss.gradient_free:
            source = Views(*views["source"], labels["source"]) if "source" in views else None
            strong = views["strong"][1] if "strong" in views else None
            target = Views(*views["unlabelled"], None, strong)
            terms.append(self.loss.config.weight * self.loss(source, target, progress))
        if self.regulariser is not None:
            features = torch.cat([features for features, _ in views.values()])
            terms.append(self.regulariser.config.weight * self.regulariser(features))
        return reduce(torch.add, terms)

    def _forward(self, inputs: dict[str, Tensor], device: torch.device) -> dict[str, tuple[Tensor, Tensor]]:
        """Features and logits of each part. Batch norm sees one mixed batch, or each domain by itself."""
        domains = [list(inputs)]
        if self.strategy.batch_norm == "separate" and "source" in inputs and len(inputs) > 1:
            domains = [["source"], [role for role in inputs if role != "source"]]
        views: dict[str, tuple[Tensor, Tensor]] = {}
        with autocast(device):
            for domain in domains:
                # Running statistics are to follow the target, the domain that the model will be used in.
                alone = domain == ["source"] and len(domains) > 1
                with running_statistics_kept(self.network.stages) if alone else nullcontext():
                    features = self.network.features(_joined([inputs[role] for role in domain]))
                logits = self.network.head(features)
                if len(domain) == 1:
                    views[domain[0]] = (features.float(), logits.float())
                    continue
                sizes = [len(inputs[role]) for role in domain]
                split = zip(features.split(sizes), logits.split(sizes), strict=True)
                views |= {role: (f.float(), z.float()) for role, (f, z) in zip(domain, split, strict=True)}
        return views

    def _nothing(self) -> Seen:
        return Seen({}, np.empty((0, len(self.trial.classes)), dtype=np.float32), np.empty(0))

    def look(self, epoch: int, *, last: bool) -> Seen:
        """Evaluate: what is seen on rank 0, nothing on the others; where it fails, the whole group raises."""
        seen, failed = self._nothing(), False
        if self.group.rank == 0:
            try:
                seen = self.validation.run(last=last)
            except FloatingPointError:
                failed = True
        if float(self.group.mean(torch.tensor(float(failed), device=self.workspace.device))):
            raise diverged("the predictions", epoch, self.strategy)
        return seen


def _split(batch: dict[str, Tensor], parts: int) -> list[dict[str, Tensor]]:
    """A batch of every role in so many parts of about equal size."""
    chunks = {role: tensor.tensor_split(parts) for role, tensor in batch.items()}
    return [{role: pieces[number] for role, pieces in chunks.items()} for number in range(parts)]


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if len(parts) > 1 else parts[0]
