"""What the activation cache saves: the same strategies with and without it.

    python benchmarks/cache.py

A ResNet-18 at 64 pixels, 10 epochs, on rendered shapes: all stages frozen (probe), all but the last, all but the last
two; each at several learning rates, as a search tries them. The two ways take turns, strategy by strategy. Every cut
starts with an empty cache, and what fills it counts in the total; the ratio per epoch leaves it out. Scores must agree.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from common import finish, median, say, shapes, task_of

from raytl.training.loop import run_trial
from raytl.training.strategy import Strategy
from raytl.training.trial import TrialJob
from raytl.training.workspace import Budget, Workspace, WorkspaceSettings

MODEL = "torchvision:resnet18@none"
STAGES = 5
CUTS = {"probe": STAGES, "last stage": STAGES - 1, "last two stages": STAGES - 2}
RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


def timed(workspace: Workspace, strategy: Strategy) -> tuple[float, float, float]:
    """Seconds of the trial, median seconds of its epochs after the first, and its score."""
    ends: list[float] = []

    def report(metrics: dict[str, Any]) -> None:
        ends.append(time.perf_counter())

    started = time.perf_counter()
    result = run_trial(workspace, TrialJob(strategy), report)
    total = time.perf_counter() - started
    epochs = [after - before for before, after in pairwise(ends)]
    return total, median(epochs), result.metrics["score"]


def main(
    images: Annotated[int, typer.Option(help="labelled images, a fifth of them for validation")] = 300,
    rates: Annotated[int, typer.Option(help="learning rates per cut")] = 3,
    epochs: int = 10,
    device: str = "cpu",
    threads: Annotated[int, typer.Option(help="of torch; a search on two cores has two lanes of one thread")] = 1,
) -> None:
    """Measure each cut."""
    target = shapes(images, 64)
    data = task_of(target)
    batch = 32
    steps = max(1, images * 4 // 5 // batch)
    settings = WorkspaceSettings(
        budget=Budget(epochs, steps, batch), image_size=64, folds=(5, 1), device=device, threads=threads
    )
    rows, figures = [], {}
    for name, cut in CUTS.items():
        totals, per_epoch, gap = {True: 0.0, False: 0.0}, {True: list[float](), False: list[float]()}, 0.0
        with tempfile.TemporaryDirectory() as home:
            ways = {
                cached: Workspace(data, replace(settings, activation_cache=cached), Path(home) / str(cached))
                for cached in (True, False)
            }
            for workspace in ways.values():  # decoding and loading are the same for both and not the point
                workspace.pixels(target, workspace.source_model(MODEL)[0].preprocessing)
            for rate in RATES[:rates]:
                scores = {}
                for cached, workspace in ways.items():
                    total, epoch, scores[cached] = timed(workspace, Strategy(MODEL, cut=cut, head_lr=rate))
                    totals[cached] += total
                    per_epoch[cached].append(epoch)
                gap = max(gap, abs(scores[True] - scores[False]))
                say(f"{name}, rate {rate:g}: {totals[False]:.1f} s without, {totals[True]:.1f} s with, in all")
        epoch_s = {cached: median(per_epoch[cached]) for cached in (True, False)}
        figures[name] = {
            "total_ratio": totals[False] / totals[True],
            "epoch_ratio": epoch_s[False] / epoch_s[True],
            "total_s": [totals[False], totals[True]],
            "epoch_s": [epoch_s[False], epoch_s[True]],
            "largest_score_difference": gap,
        }
        rows.append([
            name,
            f"{totals[False]:.1f} / {totals[True]:.1f}",
            f"{totals[False] / totals[True]:.1f}x",
            f"{1000 * epoch_s[False]:.0f} / {1000 * epoch_s[True]:.1f}",
            f"{epoch_s[False] / epoch_s[True]:.1f}x",
            f"{gap:.1e}",
        ])  # fmt: skip
    header = ["trainable", "total s, without / with", "ratio", "epoch ms, without / with", "ratio", "score difference"]
    title = f"The same {rates} strategies a cut without and with the activation cache"
    finish(
        "cache",
        title,
        header,
        rows,
        {"images": images, "epochs": epochs, "device": device, "threads": threads, "cuts": figures},
    )


if __name__ == "__main__":
    typer.run(main)
