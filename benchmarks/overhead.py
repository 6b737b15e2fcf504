"""Seconds that one more trial costs when it trains nothing.

    python benchmarks/overhead.py

raytl        the product's path: TPE, plan, Tune, warm lanes, Train in local mode, one evaluation, two reports
plain        a Tune function that reports a number and ends
docs         a TorchTrainer with one worker per Tune trial, which reports a number and ends
in-process   the same TPE and the same trial as raytl's in a loop without Ray: the limit

Wall time between the ends of trials, all cores in use; start-up of the search is left out, and the peers take turns.
A longer search of raytl shows whether the cost grows with the number of trials.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import ray
import typer
from common import Ends, finish, median, say, scratch_home
from docs_pattern import CPUS, concurrency, docs_trainable
from no_training import NO_TRAINING, NoTrainingSampler, tiny_data, tiny_space
from ray import tune
from recorded import FixedRecipes

from raytl.search.driver import run_plan
from raytl.search.lanes.cluster import Lanes, cluster
from raytl.search.lanes.lane import lane_for
from raytl.search.plan.halving import SuccessiveHalving
from raytl.search.plan.schedule import SearchPlan
from raytl.search.plan.settings import PlanSettings
from raytl.training.loop import run_trial
from raytl.training.trial import TrialJob
from raytl.training.workspace import Workspace


def raytl_ends(trials: int, lanes: Lanes, folder: Path) -> list[float]:
    """Ends of the trials of a search in lanes."""
    data, ends = tiny_data(), Ends()
    settings = PlanSettings(trials, 0, lanes.count, 1, folder / "refits", tested=False)
    sampler = NoTrainingSampler(tiny_space(data), 0)
    plan = SearchPlan(settings, sampler, SuccessiveHalving(1, 3, 1), FixedRecipes(), [], ends, time.perf_counter)
    run_plan(plan, lane_for(data, NO_TRAINING), lanes, folder)
    return ends.times


def in_process_ends(trials: int, lanes: Lanes, folder: Path) -> list[float]:
    """Ends of the same trials without Ray."""
    data = tiny_data()
    workspace, sampler = Workspace(data, NO_TRAINING), NoTrainingSampler(tiny_space(data), 0)
    times = []
    for _ in range(trials):
        handle, strategy = sampler.ask()
        result = run_trial(workspace, TrialJob(strategy, None), lambda metrics: None)
        sampler.tell(handle, score=result.metrics["score"])
        times.append(time.perf_counter())
    return times


def plain_ends(trials: int, lanes: Lanes, folder: Path) -> list[float]:
    """Ends of Tune functions."""

    def report(config: dict[str, Any]) -> None:
        tune.report({"score": config["x"]})

    return _tune(tune.with_resources(report, {"cpu": 1}), trials, None, folder)


def docs_ends(trials: int, lanes: Lanes, folder: Path) -> list[float]:
    """Ends of trainings in the documentation's pattern."""

    def train(config: dict[str, Any]) -> None:
        ray.train.report({"score": config["x"]})

    return _tune(tune.with_resources(docs_trainable(train, folder), {"cpu": 1}), trials, concurrency(), folder)


class _Watch(tune.Callback):  # type: ignore[misc]
    def __init__(self) -> None:
        self.times: list[float] = []

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.times.append(time.perf_counter())


def _tune(trainable: Any, trials: int, concurrent: int | None, folder: Path) -> list[float]:
    watch = _Watch()
    tune.Tuner(
        trainable,
        param_space={"x": tune.uniform(0, 1)},
        tune_config=tune.TuneConfig(num_samples=trials, max_concurrent_trials=concurrent),
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0, callbacks=[watch]),
    ).fit()
    return watch.times


Ender = Callable[[int, Lanes, Path], list[float]]


def per_trial(times: list[float], first: int = 0) -> float:
    """Seconds per trial after the first one (or the trial with index ``first``)."""
    return (times[-1] - times[first]) / (len(times) - 1 - first)


def main(
    counts: Annotated[
        str, typer.Option(help="numbers of trials between which raytl's growth is shown")
    ] = "10,100,1000",
    rounds: Annotated[int, typer.Option(help="turns that each peer takes")] = 2,
    docs_trials: Annotated[int, typer.Option(help="of the documentation's pattern, a turn")] = 3,
) -> None:
    """Measure the peers in turns."""
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    logging.getLogger("ray").setLevel(logging.ERROR)
    steps = [int(count) for count in counts.split(",")]
    peers: dict[str, tuple[Ender, int]] = {
        "raytl": (raytl_ends, 60),
        "plain": (plain_ends, 8),
        "docs": (docs_ends, docs_trials),
        "in-process": (in_process_ends, 60),
    }
    found: dict[str, list[float]] = {name: [] for name in peers}
    with scratch_home() as home, cluster(None, 0.0) as lanes:
        for turn in range(rounds):
            for name, (ends, trials) in peers.items():
                # Tune starts each lane when it needs it, so the first trials of all lanes belong to the start.
                found[name].append(per_trial(ends(trials, lanes, home / f"{name}-{turn}"), trials // 6))
                say(f"turn {turn + 1}, {name}: {found[name][-1]:.3f} s")
        say(f"raytl, {steps[-1]} trials")
        times = raytl_ends(steps[-1], lanes, home / "long")
        alone = in_process_ends(steps[-1], lanes, home)
    seconds = {name: median(values) for name, values in found.items()}
    growth = {f"{low}-{high}": per_trial(times[:high], low - 1) for low, high in pairwise(steps)}
    limit = {f"{low}-{high}": per_trial(alone[:high], low - 1) for low, high in pairwise(steps)}
    rows = [
        [name, f"{value:.3f}", f"{value / seconds['raytl']:.2f}", f"{min(found[name]):.3f} to {max(found[name]):.3f}"]
        for name, value in seconds.items()
    ]
    rows += [
        [f"raytl, trials {span}", f"{value:.3f}", f"{value / seconds['raytl']:.2f}", ""]
        for span, value in growth.items()
    ]
    rows += [
        [f"in-process, trials {span}", f"{value:.3f}", f"{value / seconds['raytl']:.2f}", ""]
        for span, value in limit.items()
    ]
    figures = {
        "seconds_per_trial": seconds,
        "docs_over_raytl": seconds["docs"] / seconds["raytl"],
        "raytl_growth_s": growth,
        "in_process_growth_s": limit,
        "lanes": lanes.count,
        "docs_cpus_per_trial": CPUS,
    }
    finish("overhead", "One more trial that trains nothing", ["what", "s / trial", "x raytl", "range"], rows, figures)


if __name__ == "__main__":
    typer.run(main)
