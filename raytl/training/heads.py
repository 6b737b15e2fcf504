"""Linear heads on frozen features: strategies that differ only in how they train the head, trained side by side.

All of them see the same batches of the same features, so one product of matrices serves them all, and what a trial
costs besides (the source model's copy, the batches, the calls into torch) is paid once.
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
from torch.nn import functional as F

from raytl.core.seeding import seed_everything
from raytl.evaluation.validators import Outputs
from raytl.finetuning.optimizers import ADAM_BETAS, ADAM_EPSILON, MOMENTUM, lr_factor
from raytl.sources import SourceModel
from raytl.training.averaging import ramp
from raytl.training.network import autocast
from raytl.training.pools import Pool
from raytl.training.strategy import Strategy
from raytl.training.trial import (
    Trial,
    TrialError,
    TrialJob,
    TrialResult,
    diverged,
    prepare,
    trains_only_head,
    trial_seed,
)
from raytl.training.validation import BATCH, labels_of, scored
from raytl.training.workspace import Workspace

TOGETHER = 8
"""Heads that are worth training together: more of them save little more, and are proposed knowing less."""
TILE = 16
"""A head's rows in the stacked weights are a multiple of this. Matrix kernels work in tiles; a head that began within
one would be summed up in another order than alone, and its last digits would depend on its company."""

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
        heads = [_first_head(trial, job) for job in self._jobs]
        rows = TILE * -(-self._classes // TILE)
        self._weight = torch.zeros(len(jobs), rows, trial.network.model.feature_dim, device=trial.network.device)
        self._bias = self._weight.new_zeros(len(jobs), rows)
        for index, head in enumerate(heads):
            self._weight[index, : self._classes] = head.weight.detach()
            self._bias[index, : self._classes] = head.bias.detach()
        strategies = [job.strategy for job in self._jobs]
        self._smoothing = self._weight.new_tensor([strategy.label_smoothing for strategy in strategies])[:, None]
        self._optimizers: list[tuple[slice, _Sgd | _AdamW]] = []
        for name, kind in (("adamw", _AdamW), ("sgd", _Sgd)):
            places = [index for index, strategy in enumerate(strategies) if strategy.optimizer == name]
            if places:
                part = slice(places[0], places[-1] + 1)
                optimizer = kind(self._weight[part], self._bias[part], strategies[part], self._budget.steps)
                self._optimizers.append((part, optimizer))
        self._average = _Average(self._weight, self._bias, strategies)
        self._held: dict[int, Tensor] = {}

    @staticmethod
    def can_train(trial: Trial) -> bool:
        """Whether a linear head is all that is trained, and what it is trained on is known."""
        network, strategy = trial.network, trial.job.strategy
        alone = trial.group.size == 1 and trains_only_head(strategy, len(network.stages))
        return alone and network.entry == len(network.stages) and bool(trial.roles.training)

    def run(self, report: Callable[[int, dict[str, Any]], None]) -> list[TrialResult | TrialError]:
        """Train to the full budget, calling ``report`` with a job's place and its metrics after each epoch."""
        ends = [_Course() for _ in self._jobs]
        self._train(ends, report)
        weight, bias = self._average.weights()
        results: list[TrialResult | TrialError | None] = [None] * len(ends)
        for place, course, own_weight, own_bias in zip(self._place, ends, weight, bias, strict=True):
            if course.error is not None:
                results[place] = course.error
                continue
            model = _with_head(self._trial.network.model, own_weight[: self._classes], own_bias[: self._classes])
            index = self._trial.roles.validation_index
            results[place] = TrialResult(model, course.history[-1], index, course.probabilities, course.history)
        return [result for result in results if result is not None]

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
            for index, (job, course, loss) in enumerate(zip(self._jobs, courses, losses, strict=True)):
                if course.error is not None:
                    continue
                metrics: dict[str, float] = {}
                try:
                    if not math.isfinite(loss):
                        raise diverged("the loss", epoch, job.strategy)
                    if outputs is not None:
                        metrics, course.probabilities = scored(outputs[index], self._classes, last=last)
                except FloatingPointError:
                    course.error = diverged("the predictions", epoch, job.strategy)
                except TrialError as error:
                    course.error = error
                else:
                    metrics |= {"train_loss": loss, "epoch": float(epoch), "seconds": seconds}
                    course.history.append(metrics)
                    report(self._place[index], {**metrics, "last": last})
            if all(course.error is not None for course in courses):
                return

    # --- training ---------------------------------------------------------------------------------------------------

    def _epoch(self, epoch: int) -> list[float]:
        """Mean loss of each head."""
        steps = self._budget.steps_per_epoch
        total = self._weight.new_zeros(len(self._jobs))
        for step in range((epoch - 1) * steps, epoch * steps):
            inputs, labels = self._trial.feed.next()
            loss, by_weight, by_bias = self._gradients([(inputs[role], known) for role, known in labels.items()])
            total += loss
            for part, optimizer in self._optimizers:
                optimizer.step(step, (by_weight[part], by_bias[part]))
            self._average.update()
        mean: list[float] = (total / steps).tolist()
        return mean

    def _gradients(self, batches: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
        """Loss (h,) and its gradients by the stacked weights and biases: cross-entropy, a mean for each batch.

        batches: features (b, d) and labels (b,) of each role.
        """
        heads, rows, width = self._weight.shape
        loss = self._weight.new_zeros(heads)
        by_weight, by_bias = torch.zeros_like(self._weight), torch.zeros_like(self._bias)
        for features, labels in batches:
            known = self._logits(features, self._weight, self._bias).log_softmax(2)
            wanted = F.one_hot(labels, self._classes).float()[:, None, :]
            wanted = wanted * (1 - self._smoothing) + self._smoothing / self._classes
            # Sums run along memory, one head after the other: across it their order would depend on how many there are.
            loss -= (wanted * known).sum(2).T.contiguous().mean(1)
            by_logits = loss.new_zeros(heads, rows, len(features))
            by_logits[:, : self._classes] = ((known.exp() - wanted) / len(features)).permute(1, 2, 0)
            by_weight.view(-1, width).addmm_(by_logits.view(-1, len(features)), features.float())
            by_bias += by_logits.sum(2)
        return loss, by_weight, by_bias

    def _logits(self, features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """(n, h, k) of features (n, d)."""
        with autocast(features.device):
            stacked = F.linear(features, weight.view(-1, weight.shape[2]), bias.view(-1))
        return stacked.float().view(len(features), len(weight), -1)[:, :, : self._classes]

    # --- how they do ------------------------------------------------------------------------------------------------

    def _outputs(self, *, last: bool) -> list[Outputs]:
        """What each head says of the validation images, the held-out source images and a sample without labels."""
        roles = self._trial.roles
        sample = roles.sample if last else roles.quick_sample
        target, source = self._predict(roles.validation), self._predict(roles.source_validation)
        still, moved = (self._predict(pool) for pool in sample or (None, None))
        features = None if sample is None else self._features(sample[0]).cpu().numpy()
        return [
            Outputs(
                target_probabilities=target[index],
                target_labels=labels_of(roles.validation),
                source_probabilities=source[index],
                source_labels=labels_of(roles.source_validation),
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
        said = self._logits(self._features(pool), *self._average.weights()).softmax(2).transpose(0, 1)
        return list(said.cpu().numpy())

    def _features(self, pool: Pool) -> Tensor:
        """(n, d), gathered once."""
        if id(pool) not in self._held:
            device = self._weight.device
            self._held[id(pool)] = torch.cat([batch.to(device).float() for batch in pool.batches(BATCH)])
        return self._held[id(pool)]


class _Sgd:
    """As :class:`torch.optim.SGD` with Nesterov momentum, for some of the stacked heads, each with its own settings.

    weight: (n, rows, d), bias: (n, rows); changed in place.
    """

    def __init__(self, weight: Tensor, bias: Tensor, strategies: Sequence[Strategy], steps: int) -> None:
        self._parameters = (weight, bias)
        self._velocity = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._rates = _rates(strategies, steps).to(weight.device)
        self._decay = _decay(strategies).to(weight.device)

    def step(self, number: int, gradients: Sequence[Tensor]) -> None:
        """The step of that number, from 0, against gradients of the parameters' shapes."""
        rates = self._rates[number]
        for parameter, gradient, velocity in zip(self._parameters, gradients, self._velocity, strict=True):
            if parameter.ndim == 3:  # biases do not decay
                gradient = gradient.add(parameter * _beside(self._decay, parameter))
            velocity.mul_(MOMENTUM).add_(gradient)
            parameter.sub_(gradient.add(velocity, alpha=MOMENTUM).mul_(_beside(rates, parameter)))


class _AdamW:
    """As :class:`torch.optim.AdamW`, likewise."""

    def __init__(self, weight: Tensor, bias: Tensor, strategies: Sequence[Strategy], steps: int) -> None:
        self._parameters = (weight, bias)
        self._means = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._squares = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._rates = _rates(strategies, steps).to(weight.device)
        self._decay = _decay(strategies).to(weight.device)

    def step(self, number: int, gradients: Sequence[Tensor]) -> None:
        """Likewise."""
        first, second = ADAM_BETAS
        rates = self._rates[number]
        step_size = rates / (1 - first ** (number + 1))
        correction = (1 - second ** (number + 1)) ** 0.5
        moments = zip(self._parameters, gradients, self._means, self._squares, strict=True)
        for parameter, gradient, mean, square in moments:
            if parameter.ndim == 3:
                parameter.mul_(_beside(1 - rates * self._decay, parameter))
            mean.mul_(first).add_(gradient, alpha=1 - first)
            square.mul_(second).add_(gradient * gradient, alpha=1 - second)
            parameter.sub_((mean / (square.sqrt() / correction + ADAM_EPSILON)).mul_(_beside(step_size, parameter)))


class _Average:
    """As :class:`raytl.training.averaging.WeightAverage`, of each head with its own decay; 0 follows the weights."""

    def __init__(self, weight: Tensor, bias: Tensor, strategies: Sequence[Strategy]) -> None:
        self._live = (weight, bias)
        self._decays = torch.tensor([strategy.ema for strategy in strategies], device=weight.device)
        self._kept = (weight.clone(), bias.clone()) if self._decays.any() else None
        self._steps = 0

    def update(self) -> None:
        """Take in the weights after a step."""
        if self._kept is None:
            return
        self._steps += 1
        decays = self._decays.clamp(max=ramp(self._steps))
        for kept, live in zip(self._kept, self._live, strict=True):
            kept.mul_(_beside(decays, kept)).add_(live * _beside(1 - decays, live))

    def weights(self) -> tuple[Tensor, Tensor]:
        """What is evaluated, and left at the end."""
        return self._kept or self._live


def _rates(strategies: Sequence[Strategy], steps: int) -> Tensor:
    """Learning rates (steps, n)."""
    return torch.tensor([
        [s.head_lr * lr_factor(s.schedule, step / steps, s.warmup) for s in strategies] for step in range(steps)
    ])  # fmt: skip


def _decay(strategies: Sequence[Strategy]) -> Tensor:
    return torch.tensor([strategy.weight_decay for strategy in strategies])


def _beside(values: Tensor, parameter: Tensor) -> Tensor:
    """One value for each head, (n,), in a shape that multiplies the head's parameters."""
    return values.view(-1, *[1] * (parameter.ndim - 1))


def _first_head(trial: Trial, job: TrialJob) -> nn.Linear:
    """What a job's head starts from: as its own trial would, taken over from the source model or drawn by its seed."""
    model = trial.network.model
    if job is not trial.job and not trial.network.inherits_head:
        seed_everything(trial_seed(trial.workspace, job))
        return nn.Linear(model.feature_dim, len(trial.classes))
    assert isinstance(model.head, nn.Linear)
    return model.head


def _with_head(model: SourceModel, weight: Tensor, bias: Tensor) -> SourceModel:
    """The model with another head; the stages are the same ones, which are frozen."""
    head = nn.Linear(model.feature_dim, len(bias), device=weight.device)
    head.load_state_dict({"weight": weight, "bias": bias})
    twin = copy.copy(model)
    twin._modules = {**model._modules, "head": head}
    return twin
