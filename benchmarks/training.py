"""Images per second of the trial loop against a bare torch loop.

    python benchmarks/training.py

The bare loop has the least that training needs: ready tensors on the device, a random batch of them, forward, backward,
SGD step; in the same precision and memory layout, with no schedule, no metrics and no look at the loss. The trial loop
starts from uint8 pixels (uncached) or from cached activations of the frozen stages. The two take turns; medians of
epochs, each loop's first epoch left out. Runs on the CPU and, if there is one, on the GPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from common import finish, median, say, scratch_home, shapes, task_of
from torch import Tensor
from torch.nn import functional as F

from raytl.training.loop import run_trial
from raytl.training.network import Network
from raytl.training.strategy import Strategy
from raytl.training.trial import TrialJob
from raytl.training.workspace import Budget, Workspace, WorkspaceSettings

MODEL = "torchvision:resnet18@none"
CUTS = {"uncached, nothing frozen": 0, "cached, last stage trains": 4, "cached, probe": 5}


def trial_epochs(workspace: Workspace, cut: int) -> list[float]:
    """Seconds of each epoch of a trial, the first left out."""
    ends: list[float] = []

    def report(metrics: dict[str, Any]) -> None:
        ends.append(time.perf_counter())

    # No validation fold: what is compared is training.
    run_trial(workspace, TrialJob(Strategy(MODEL, cut=cut, head_lr=0.01, backbone_ratio=1.0), fold=None), report)
    return [after - before for before, after in pairwise(ends)]


def bare_epochs(workspace: Workspace, cut: int) -> list[float]:
    """Seconds of each epoch of the bare loop, the first left out."""
    device, budget, target = workspace.device, workspace.settings.budget, workspace.data.target
    assert target is not None
    network = Network(workspace.source_model(MODEL)[0], target.classes, cut, device=device)
    inputs, labels = _ready(workspace, network, cut), torch.as_tensor(target.labels).to(device)
    network.entry = cut
    optimizer = torch.optim.SGD(network.trainable(), 0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    network.train()
    ends: list[float] = []
    for _ in range(budget.epochs):
        for _ in range(budget.steps_per_epoch):
            index = torch.randint(len(inputs), (budget.batch_size,), device=device)
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext():
                logits = network.head(network.features(inputs[index]))
            F.cross_entropy(logits.float(), labels[index]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        ends.append(time.perf_counter())
    return [after - before for before, after in pairwise(ends)]


@torch.no_grad()
def _ready(workspace: Workspace, network: Network, cut: int) -> Tensor:
    """What the stage after the cut takes in, for all images."""
    assert workspace.data.target is not None
    pixels = workspace.pixels(workspace.data.target, network.preprocessing)
    network.eval()
    chunks = [network.preprocessing.normalise(chunk.to(workspace.device)) for chunk in pixels.split(128)]
    inputs = torch.cat([network.model.run(chunk, 0, cut) if cut else chunk for chunk in chunks])
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.ndim == 4 else inputs


def main(
    images: int = 512,
    side: Annotated[int, typer.Option(help="pixels")] = 64,
    batch: int = 32,
    steps: Annotated[int, typer.Option(help="of an epoch on the CPU; ten times as many on a GPU and for a probe")] = 10,
    epochs: int = 4,
    turns: int = 3,
    threads: int = 2,
    device: Annotated[str, typer.Option(help="cpu or cuda; by default both, where there is a GPU")] = "",
) -> None:
    """Measure on each device."""
    data = task_of(shapes(images, side))
    devices = [device] if device else ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    loops: dict[str, Callable[[Workspace, int], list[float]]] = {"raytl": trial_epochs, "bare": bare_epochs}
    rows, figures = [], {}
    with scratch_home() as home:
        for where in devices:
            for name, cut in CUTS.items():
                count = steps * (10 if where == "cuda" or name == "cached, probe" else 1)
                settings = WorkspaceSettings(
                    budget=Budget(epochs, count, batch), image_size=side, folds=(0, 0), device=where, threads=threads
                )
                workspace = Workspace(data, settings, Path(home))
                seconds: dict[str, list[float]] = {kind: [] for kind in loops}
                for _ in range(turns):
                    for kind, loop in loops.items():
                        seconds[kind] += loop(workspace, cut)
                rate = {kind: batch * count / median(values) for kind, values in seconds.items()}
                figures[f"{where}, {name}"] = {**rate, "ratio": rate["raytl"] / rate["bare"]}
                rows.append(
                    [where, name, f"{rate['raytl']:.0f}", f"{rate['bare']:.0f}", f"{rate['raytl'] / rate['bare']:.2f}"]
                )
                say(" ".join(rows[-1]))
    header = ["device", "loop", "raytl images/s", "bare images/s", "ratio"]
    extra = {"model": MODEL, "pixels": side, "batch": batch, "threads": threads, "loops": figures}
    finish("training", "The trial loop against a bare torch loop", header, rows, extra)


if __name__ == "__main__":
    typer.run(main)
