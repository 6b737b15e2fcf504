"""How long a training takes, told by some of its steps."""

from __future__ import annotations

import time
from dataclasses import dataclass

from raytl.core import stopping
from raytl.training.devices import finish
from raytl.training.loop import Loop, ready, with_memory
from raytl.training.trial import TrialJob
from raytl.training.workspace import Workspace

LEAST_STEPS = 3
"""Taken however long they take; the first one, which has more to do than the others, is left out of the pace."""


@dataclass(frozen=True)
class Timed:
    """How long a full training takes.

    seconds: of all of it. epochs: how much of it was done to tell, not in whole ones.
    """

    seconds: float
    epochs: float


def time_training(workspace: Workspace, job: TrialJob, at_most_s: float) -> Timed:
    """Train for so many seconds, look once at what came of it as a trial does after an epoch, and reckon the rest.

    Where a step takes longer, for :data:`LEAST_STEPS` all the same. An epoch may take a minute, and is not waited for.
    What is made of the images to train on them is kept in the cache.
    Raises TrialError where the predictions are not finite, UserError where the strategy does not fit the task.
    """
    return with_memory(workspace, lambda parts: _timed(workspace, job, at_most_s, parts))


def _timed(workspace: Workspace, job: TrialJob, at_most_s: float, parts: int) -> Timed:
    started = time.perf_counter()
    loop = ready(workspace, job, None, parts)
    if not loop.trains:
        loop.look(1, last=True)
        return Timed(time.perf_counter() - started, 1.0)
    every = loop.steps * loop.budget.epochs
    ended = _steps(loop, every, started + at_most_s)
    look_s = _look_seconds(loop)
    if look_s < at_most_s / 4:  # the first one has more to do than the others
        look_s = _look_seconds(loop)
    looks = sum(loop.budget.looks_at(epoch) for epoch in range(1, loop.budget.epochs + 1))
    step_s = (ended[-1] - ended[0]) / (len(ended) - 1) if len(ended) > 1 else 0.0
    return Timed(ended[-1] - started + (every - len(ended)) * step_s + looks * look_s, len(ended) / loop.steps)


def _look_seconds(loop: Loop) -> float:
    started = time.perf_counter()
    loop.look(1, last=False)
    finish(loop.workspace.device)
    return time.perf_counter() - started


def _steps(loop: Loop, every: int, until: float) -> list[float]:
    """Take steps, at most all, until that time; when each of them had ended."""
    loop.set_to_train()
    optimizer, average = loop.optimizer(), loop.average()
    ended: list[float] = []
    while len(ended) < every and (len(ended) < LEAST_STEPS or time.perf_counter() < until):
        stopping.check()
        loop.step(len(ended), optimizer, average)
        finish(loop.workspace.device)
        ended.append(time.perf_counter())
    return ended
