"""Linear heads on frozen features: strategies that differ only in how they train the head, trained side by side.

All of them see the same batches of the same features, so one product of matrices serves them all, and what a trial
costs besides (the source model's copy, the batches, the calls into torch) is paid once. Heads with a hidden layer are
trained one by one: their products are wide already, and eight of them took longer together than alone.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from raytl.core.seeding import seed_everything
from raytl.evaluation.validators import Outputs
from raytl.sources import SourceModel
from raytl.training.devices import upload
from raytl.training.pools import Pool
from raytl.training.stacked_optimizers import StackedAverage, StackedOptimizer
from raytl.training.stacks import LinearStack
from raytl.training.strategy import Strategy
from raytl.training.trial import (
    Trial,
    TrialError,
    TrialJob,
    TrialResult,
    diverged,
    prepare,
    trains_linear_head,
    trial_seed,
)
from raytl.training.validation import BATCH, labels_of, scored
from raytl.training.workspace import Workspace

TOGETHER = 8
"""Heads that are worth training together: more of them save little more, and are proposed knowing less."""
HEAD_SETTINGS = frozenset({
    "head_lr", "optimizer", "weight_decay", "schedule", "warmup", "label_smoothing", "ema",
    "backbone_ratio", "batch_norm",  # of stages that are frozen
})  # fmt: skip
"""What heads that are trained together may differ in."""


def common_settings(strategy: Strategy) -> dict[str, Any]:
    """The settings that strategies must have in common if their heads are to be trained together."""
    return {key: value for key, value in strategy.to_dict().items() if key not in HEAD_SETTINGS}


def train_together(workspace: Workspace, jobs: Sequence[TrialJob]) -> list[TrialResult | TrialError]:
    """What became of each job, in their order; nothing where their heads cannot be trained together after all.

    jobs: of strategies with the same :func:`common_settings`, on the same fold. The numbers are those that
    :func:`raytl.training.loop.run_trial` gives for each job alone, bit for bit on the CPU.
    """
    trial = prepare(workspace, jobs[0])
    common = common_settings(jobs[0].strategy)
    alike = all(common_settings(job.strategy) == common and job.fold == jobs[0].fold for job in jobs)
    if not alike or not StackedHeads.can_train(trial):
        return []
    return StackedHeads(trial, jobs).run(lambda index, metrics: None)


@dataclass
class _Course:
    """What became of one head so far."""

    history: list[dict[str, float]] = field(default_factory=list)
    probabilities: np.ndarray = field(default_factory=lambda: np.empty((0, 0), dtype=np.float32))
    error: TrialError | None = None


class StackedHeads:
    """The heads of some jobs, stacked.

    trial: the first job's, whose features and batches serve all.
    """

    def __init__(self, trial: Trial, jobs: Sequence[TrialJob]) -> None:
        self._trial = trial
        # Those with one optimizer stand beside each other: it moves a slice of the stack.
        self._place = sorted(range(len(jobs)), key=lambda index: jobs[index].strategy.optimizer)
        self._jobs = [jobs[index] for index in self._place]
        self._classes = len(trial.classes)
        self._budget = trial.workspace.settings.budget
        strategies = [job.strategy for job in self._jobs]
        self._stack = LinearStack([_first_head(trial, job) for job in self._jobs])
        self._optimizer = StackedOptimizer(self._stack.parameters, strategies, self._budget.steps)
        self._average = StackedAverage(self._stack.parameters, strategies)
        self._smoothing = torch.tensor([s.label_smoothing for s in strategies], device=trial.network.device)
        self._held: dict[int, Tensor] = {}

    @staticmethod
    def can_train(trial: Trial) -> bool:
        """Whether a linear head is all that is trained, and what it is trained on is known."""
        network, strategy = trial.network, trial.job.strategy
        alone = trial.group.size == 1 and trains_linear_head(strategy, len(network.stages))
        return alone and network.entry == len(network.stages) and bool(trial.roles.training)

    def run(self, report: Callable[[int, dict[str, Any]], None]) -> list[TrialResult | TrialError]:
        """Train to the full budget, calling ``report`` with a job's place and its metrics after each epoch."""
        courses = [_Course() for _ in self._jobs]
        self._train(courses, report)
        parameters = self._average.parameters()
        results: dict[int, TrialResult | TrialError] = {}
        for index, (place, course) in enumerate(zip(self._place, courses, strict=True)):
            if course.error is not None:
                results[place] = course.error
                continue
            model = _with_head(self._trial.network.model, self._stack.head(index, parameters))
            validated = self._trial.roles.validation_index
            results[place] = TrialResult(model, course.history[-1], validated, course.probabilities, course.history)
        return [results[place] for place in range(len(courses))]

    @torch.inference_mode()
    def _train(self, courses: list[_Course], report: Callable[[int, dict[str, Any]], None]) -> None:
        started = time.perf_counter()
        self._trial.network.eval()
        for epoch in range(1, self._budget.epochs + 1):
            losses = self._epoch(epoch)
            last = epoch == self._budget.epochs
            evaluated = last or not all(job.final for job in self._jobs)
            outputs = self._outputs(last=last) if evaluated else None
            seconds = (time.perf_counter() - started) / len(courses)
            for index, (course, loss) in enumerate(zip(courses, losses, strict=True)):
                if course.error is not None:
                    continue
                try:
                    metrics = self._measured(index, epoch, loss, outputs, course)
                except TrialError as error:
                    course.error = error
                    continue
                metrics |= {"train_loss": loss, "epoch": float(epoch), "seconds": seconds}
                course.history.append(metrics)
                report(self._place[index], {**metrics, "last": last})
            if all(course.error is not None for course in courses):
                return

    def _measured(
        self, index: int, epoch: int, loss: float, outputs: list[Outputs] | None, course: _Course
    ) -> dict[str, float]:
        """The head's metrics, none where nothing was evaluated; raises TrialError where it has diverged."""
        strategy = self._jobs[index].strategy
        if not math.isfinite(loss):
            raise diverged("the loss", epoch, strategy)
        if outputs is None:
            return {}
        try:
            metrics, course.probabilities = scored(outputs[index], self._classes, last=epoch == self._budget.epochs)
        except FloatingPointError:
            raise diverged("the predictions", epoch, strategy) from None
        return metrics

    # --- training ---------------------------------------------------------------------------------------------------

    def _epoch(self, epoch: int) -> list[float]:
        """Mean loss of each head."""
        steps = self._budget.steps_per_epoch
        total = torch.zeros_like(self._smoothing)
        for step in range((epoch - 1) * steps, epoch * steps):
            inputs, labels = self._trial.feed.next()
            gradients: list[Tensor] = []
            for role, known in labels.items():
                loss, own = self._stack.gradients(inputs[role], known, self._smoothing)
                total += loss
                gradients = [a + b for a, b in zip(gradients, own, strict=True)] if gradients else list(own)
            self._optimizer.step(step, gradients)
            self._average.update()
        mean: list[float] = (total / steps).tolist()
        return mean

    # --- how they do ------------------------------------------------------------------------------------------------

    def _outputs(self, *, last: bool) -> list[Outputs]:
        """What each head says of the validation images, the held-out source images and a sample without labels."""
        roles = self._trial.roles
        sample, held_out = roles.evaluated(last=last)
        target, source = self._predict(roles.validation), self._predict(held_out)
        still, moved = (self._predict(pool) for pool in sample or (None, None))
        features = self._features(sample[0]).cpu().numpy() if sample and len(sample[0]) else None
        return [
            Outputs(
                target_probabilities=target[index],
                target_labels=labels_of(roles.validation),
                source_probabilities=source[index],
                source_labels=labels_of(held_out),
                unlabelled_probabilities=still[index],
                unlabelled_features=features,
                unlabelled_moved_probabilities=moved[index],
            )
            for index in range(len(self._jobs))
        ]

    def _predict(self, pool: Pool | None) -> list[np.ndarray | None]:
        """Probabilities (n, k) by each head; None where there are no images."""
        if pool is None or not len(pool):
            return [None] * len(self._jobs)
        said = self._stack.logits(self._features(pool), self._average.parameters()).softmax(2).transpose(0, 1)
        return list(said.cpu().numpy())

    def _features(self, pool: Pool) -> Tensor:
        """(n, d), gathered once."""
        if id(pool) not in self._held:
            device = self._trial.network.device
            self._held[id(pool)] = torch.cat([upload(batch, device).float() for batch in pool.batches(BATCH)])
        return self._held[id(pool)]


def _first_head(trial: Trial, job: TrialJob) -> nn.Linear:
    """What a job's head starts from: as its own trial would, taken over from the source model or drawn by its seed."""
    model = trial.network.model
    if job is not trial.job and not trial.network.inherits_head:
        seed_everything(trial_seed(trial.workspace, job))
        return nn.Linear(model.feature_dim, len(trial.classes))
    assert isinstance(model.head, nn.Linear)
    return model.head


def _with_head(model: SourceModel, head: nn.Module) -> SourceModel:
    """The model with another head; the stages are the same ones, which are frozen."""
    twin = copy.copy(model)
    twin._modules = {**model._modules, "head": head}
    return twin
