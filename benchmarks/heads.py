"""What training heads together saves: linear heads on the same frozen features, one by one and side by side.

    python benchmarks/heads.py

First the training alone, whole trials of the product's loop with their evaluation, the features in the cache: a head by
itself and in stacks of several, taking turns. Then searches over heads on Ray Tune, with and without companions.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch
import typer
from common import Ends, finish, median, say, scratch_home, shapes, task_of

from raytl.search.driver import run_plan
from raytl.search.lanes.cluster import cluster
from raytl.search.lanes.lane import lane_for
from raytl.search.plan.halving import SuccessiveHalving
from raytl.search.plan.schedule import PlanSettings, SearchPlan
from raytl.search.propose.sampler import TpeSampler
from raytl.search.space.binding import BoundSpace
from raytl.search.space.definition import load_space
from raytl.tasks import LabelledImages, TrainingData
from raytl.training.heads import TOGETHER, train_together
from raytl.training.loop import run_trial
from raytl.training.strategy import Strategy
from raytl.training.trial import TrialJob
from raytl.training.workspace import Budget, PretrainSettings, Workspace, WorkspaceSettings

MODELS = {512: "torchvision:resnet18@none", 2048: "torchvision:resnet50@none"}
CASES = (
    (512, 4),
    (512, 100),
    (2048, 4),
    (2048, 100),
)
STACKS = (2, 4, 8, 16)
SPACE = """
epochs: 10
space:
  source_model: ["pretrain:*/scratch:resnet-small"]
  cut: all
  optimizer: [sgd, adamw]
  head_lr:
    sgd: {low: 0.003, high: 0.3, log: true}
    adamw: {low: 0.0003, high: 0.03, log: true}
  weight_decay: {low: 0.00001, high: 0.01, log: true}
  label_smoothing: [0.0, 0.1]
"""


def with_classes(images: LabelledImages, count: int) -> LabelledImages:
    """The same images with labels that mean nothing."""
    labels = np.arange(len(images), dtype=np.int64) % count
    return LabelledImages(images.name, images.items, None, tuple(f"class {i:03}" for i in range(count)), labels)


def strategies(model: str, cut: int) -> list[Strategy]:
    """As a search would try them: of both optimizers, every setting of the head different."""
    plain = Strategy(model, cut=cut)
    rates = np.geomspace(0.001, 0.02, max(STACKS))
    return [
        replace(plain, optimizer="adamw", head_lr=rate / 10) if number % 2 else replace(plain, head_lr=rate)
        for number, rate in enumerate(map(float, rates))
    ]


def training(rounds: int, images: int) -> tuple[list[list[str]], dict[str, Any]]:
    """Milliseconds per trial, alone and together, for every model and number of classes."""
    rows, figures = [], {}
    for width, count in CASES:
        data = task_of(with_classes(shapes(images, 64), count))
        settings = WorkspaceSettings(budget=Budget(10, 20, 64), folds=(2, 1), image_size=64, threads=1)
        with scratch_home() as home:
            workspace = Workspace(data, settings, home)
            cut = len(workspace.source_model(MODELS[width])[0].stage_names)
            jobs = [TrialJob(strategy) for strategy in strategies(MODELS[width], cut)]
            train_together(workspace, jobs)  # fills the cache
            seconds: dict[int, list[float]] = {1: [], **{stack: [] for stack in STACKS}}
            for turn in range(rounds):
                started = time.perf_counter()
                run_trial(workspace, jobs[turn % len(jobs)], lambda metrics: None)
                seconds[1].append(time.perf_counter() - started)
                for stack in STACKS:
                    started = time.perf_counter()
                    train_together(workspace, jobs[:stack])
                    seconds[stack].append((time.perf_counter() - started) / stack)
        each = {stack: median(values) for stack, values in seconds.items()}
        case = f"{width} features, {count} classes"
        rows.append([case, *(f"{1e3 * value:.0f}" for value in each.values()), f"{each[1] / each[TOGETHER]:.1f}x"])
        figures[case] = {str(stack): value for stack, value in each.items()}
        say(f"{case} done")
    return rows, figures


def searching(trials: int, rounds: int) -> dict[int, float]:
    """Seconds per trial of searches over heads, by how many are trained together."""
    target, domain = shapes(200, 64), shapes(60, 64, seed=1)
    data = TrainingData("shapes", target.classes, target, None, {"domain": domain}, 3)
    found: dict[int, list[float]] = {1: [], TOGETHER: []}
    with scratch_home() as home, cluster(None, 0.0) as lanes:
        path = home / "heads.yaml"
        path.write_text(SPACE)
        space = BoundSpace(load_space(str(path)), data)
        settings = WorkspaceSettings(
            budget=Budget(10, 20, 64), pretrain=PretrainSettings(steps=5), image_size=64, folds=(5, 1), threads=1
        )
        Workspace(data, settings).source_model(space.source_models[0])  # made before, as it is not the point
        for turn in range(rounds):
            for together in found:
                ends = Ends()
                folder = home / f"{together}-{turn}"
                plan = SearchPlan(
                    PlanSettings(trials, 0, lanes.count, 10, folder, refit_baselines=False, together=together),
                    TpeSampler(space, turn), SuccessiveHalving(10, 3, 10), {}, [], ends, time.perf_counter,
                )  # fmt: skip
                run_plan(plan, lane_for(data, settings), lanes, folder)
                first = trials // 6  # each lane loads its features in its first trial
                found[together].append((ends.times[-1] - ends.times[first]) / (trials - 1 - first))
                say(f"search, {together} together: {found[together][-1]:.3f} s a trial")
    return {together: median(values) for together, values in found.items()}


def main(
    rounds: Annotated[int, typer.Option(help="turns of each way to train")] = 9,
    images: Annotated[int, typer.Option(help="labelled images, half of them for validation")] = 400,
    trials: Annotated[int, typer.Option(help="of a search")] = 100,
    searches: Annotated[int, typer.Option(help="of each kind")] = 2,
) -> None:
    """Measure."""
    torch.set_num_threads(1)
    rows, figures = training(rounds, images)
    per_trial = searching(trials, searches)
    gain = per_trial[1] / per_trial[TOGETHER]
    header = ["ms per trial", "alone", *(f"{stack} heads" for stack in STACKS), f"gain of {TOGETHER}"]
    blank = ["" for stack in STACKS if stack != TOGETHER]
    place = STACKS.index(TOGETHER)
    cells = [f"{1e3 * per_trial[1]:.0f}", *blank[:place], f"{1e3 * per_trial[TOGETHER]:.0f}", *blank[place:]]
    rows.append([f"a search of {trials} trials", *cells, f"{gain:.1f}x"])
    figures = {"trial_s": figures, "search_trial_s": {str(key): value for key, value in per_trial.items()}}
    finish("heads", "Linear heads one by one and together", header, rows, figures)


if __name__ == "__main__":
    typer.run(main)
