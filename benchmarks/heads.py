"""Whether training linear heads on the same frozen features together, in one batched pass, would pay.

    python benchmarks/heads.py

Each head has its own learning rate and its own batches' loss, as different strategies would have; all see the same
features. The last column is what stacking could save of a whole linear-probe trial of the search (its features in the
cache, evaluation included): the reason why raytl trains such strategies one by one.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

import torch
import typer
from common import finish, median, say, scratch_home, shapes, task_of
from torch import Tensor, nn
from torch.nn import functional as F

from raytl.training.loop import run_trial
from raytl.training.strategy import Strategy
from raytl.training.trial import TrialJob
from raytl.training.workspace import Budget, Workspace, WorkspaceSettings

CLASSES = 10
BATCH = 64
MODELS = {512: "torchvision:resnet18@none", 2048: "torchvision:resnet50@none"}


def alone(dim: int, steps: int) -> float:
    """Seconds per step of one head, as the trial loop does it."""
    features, labels = _data(dim)
    head = nn.Linear(dim, CLASSES)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, nesterov=True)
    started = time.perf_counter()
    for step in range(steps):
        batch = _batch(step)
        for parameter in head.parameters():
            parameter.grad = None
        F.cross_entropy(head(features[batch]), labels[batch]).backward()
        optimizer.step()
    return (time.perf_counter() - started) / steps


def stacked(dim: int, heads: int, steps: int) -> float:
    """Seconds per step and head of so many heads in one batched matrix product."""
    features, labels = _data(dim)
    weight = torch.randn(heads, dim, CLASSES).mul_(0.01).requires_grad_()
    bias = torch.zeros(heads, 1, CLASSES, requires_grad=True)
    rates = torch.linspace(0.01, 0.1, heads)[:, None, None]
    velocity = [torch.zeros_like(weight), torch.zeros_like(bias)]
    started = time.perf_counter()
    for step in range(steps):
        batch = _batch(step)
        weight.grad = bias.grad = None
        logits = torch.baddbmm(bias, features[batch].expand(heads, -1, -1), weight)
        loss = F.cross_entropy(logits.reshape(-1, CLASSES), labels[batch].repeat(heads))
        (loss * heads).backward()
        with torch.no_grad():
            for parameter, speed in zip((weight, bias), velocity, strict=True):
                gradient = parameter.grad.add(parameter, alpha=5e-4)  # type: ignore[union-attr]
                speed.mul_(0.9).add_(gradient)
                parameter -= rates * gradient.add(speed, alpha=0.9)
    return (time.perf_counter() - started) / steps / heads


def trial_seconds(dim: int, epochs: int, steps_per_epoch: int) -> float:
    """Of a linear probe in the product's loop, its features known from an earlier trial."""
    data = task_of(shapes(200, 64))
    settings = WorkspaceSettings(budget=Budget(epochs, steps_per_epoch, BATCH), image_size=64, threads=1)
    with scratch_home() as home:
        workspace = Workspace(data, settings, home)
        times = []
        for rate in (0.01, 0.02, 0.04, 0.08):
            started = time.perf_counter()
            job = TrialJob(Strategy(MODELS[dim], cut=_stages(workspace, MODELS[dim]), head_lr=rate))
            run_trial(workspace, job, lambda metrics: None)
            times.append(time.perf_counter() - started)
    return median(times[1:])


def _stages(workspace: Workspace, uri: str) -> int:
    return len(workspace.source_model(uri)[0].stage_names)


def _data(dim: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(400, dim, generator=generator), torch.randint(CLASSES, (400,), generator=generator)


def _batch(step: int) -> Tensor:
    return torch.randperm(400, generator=torch.Generator().manual_seed(step))[:BATCH]


def main(
    epochs: int = 10,
    steps_per_epoch: Annotated[int, typer.Option(help="of a trial")] = 20,
    steps: Annotated[int, typer.Option(help="measured at a time")] = 400,
) -> None:
    """Measure."""
    torch.set_num_threads(1)
    rows: list[list[str]] = []
    figures: dict[str, Any] = {}
    for dim in MODELS:
        whole = trial_seconds(dim, epochs, steps_per_epoch)
        counts = (1, 8, 32)
        single: list[float] = []
        several: dict[int, list[float]] = {count: [] for count in counts}
        for _ in range(5):
            single.append(alone(dim, steps))
            for count in counts:
                several[count].append(stacked(dim, count, max(20, steps // count)))
        for count in counts:
            saved = (median(single) - median(several[count])) * epochs * steps_per_epoch / whole
            rows.append([
                str(dim), str(count), f"{1e3 * median(single):.3f}", f"{1e3 * median(several[count]):.3f}",
                f"{1e3 * whole:.0f}", f"{100 * saved:+.0f} %",
            ])  # fmt: skip
            figures[f"{dim}x{count}"] = {
                "alone_ms": 1e3 * median(single),
                "stacked_ms": 1e3 * median(several[count]),
                "trial_s": whole,
                "saved_share": saved,
            }
        say(f"{dim} features done")
    header = ["features", "heads", "alone, ms/step", "stacked, ms/step/head", "whole trial, ms", "saved of a trial"]
    finish("heads", "Linear heads one by one and stacked", header, rows, {"figures": figures})


if __name__ == "__main__":
    typer.run(main)
