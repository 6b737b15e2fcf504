"""Train every strategy of data/recorded-space.yaml on the digits task and keep its learning curve.

    python benchmarks/record_curves.py --seed 0

Saves as it goes and takes up where it stopped. Times are processor seconds on one thread, so that a busy machine does
not get into them. Each seed draws other labelled images and is a task of its own.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import optuna
import pandas as pd
import typer
from common import accuracy, say, scratch_home

from raytl.search.lanes.sizing import Lanes
from raytl.search.planning import SearchSettings, make_workspace_settings
from raytl.search.space.binding import BoundSpace
from raytl.search.space.definition import load_space
from raytl.tasks import LabelledImages, demo_task
from raytl.training.loop import run_trial
from raytl.training.strategy import Strategy
from raytl.training.trial import TrialError, TrialJob
from raytl.training.workspace import Workspace

DATA = Path(__file__).parent / "data"
CURVES = DATA / "digits-curves.parquet"
SAVE_EVERY = 10


def every_strategy(space: BoundSpace) -> list[Strategy]:
    """All strategies of a finite space, in an order that is random but fixed."""
    found: dict[str, Strategy] = {}

    def objective(trial: optuna.Trial) -> float:
        strategy = space.suggest(trial)
        found[strategy.key] = strategy
        return 0.0

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    optuna.create_study(sampler=optuna.samplers.BruteForceSampler(seed=0)).optimize(objective)
    return list(found.values())


def record(workspace: Workspace, strategy: Strategy, test: LabelledImages, seed: int) -> dict[str, Any]:
    """One row: the curve on the first fold and the final model's test accuracy."""
    row: dict[str, Any] = {"seed": seed, "fold": 0, "strategy": json.dumps(strategy.to_dict()), "reason": None}
    scores: list[float] = []
    seconds: list[float] = []
    started = time.process_time()

    def report(metrics: dict[str, Any]) -> None:
        scores.append(round(float(metrics["score"]), 5))
        seconds.append(round(time.process_time() - started, 4))

    try:
        result = run_trial(workspace, TrialJob(strategy, 0), report)
        row["test_accuracy"] = accuracy(result.model, test)
    except TrialError as error:
        row |= {"reason": str(error), "test_accuracy": None}
    return row | {"scores": scores, "seconds": seconds}


def main(seed: int = 0, out: Annotated[Path, typer.Option(help="Parquet file")] = CURVES) -> None:
    """Record all strategies for one seed of the task."""
    task = demo_task(seed)
    assert task.test is not None
    test = task.test.open()
    space = load_space(str(DATA / "recorded-space.yaml"))
    strategies = every_strategy(BoundSpace(space, task.data))
    settings = make_workspace_settings(task.data, space, SearchSettings(seed=seed), Lanes(1, 1.0, 0.0))
    settings = replace(settings, budget=replace(settings.budget, looks=()))  # a point for every epoch
    rows: list[Any] = pd.read_parquet(out).to_dict("records") if out.exists() else []
    done = {Strategy.from_dict(json.loads(row["strategy"])).key for row in rows if row["seed"] == seed}
    missing = [strategy for strategy in strategies if strategy.key not in done]
    say(f"seed {seed}: {len(strategies)} strategies, {len(missing)} to record")
    with scratch_home():
        workspace = Workspace(task.data, settings)
        # Pretraining and the first look at the images are nobody's trial.
        for uri in dict.fromkeys(strategy.source_model for strategy in strategies):
            model, _ = workspace.source_model(uri)
            for images in (task.data.target, task.data.unlabelled, task.data.source_domains["printed-digits"]):
                assert images is not None
                workspace.pixels(images, model.preprocessing)
        for number, strategy in enumerate(missing, start=1):
            rows.append(record(workspace, strategy, test, seed))
            if number % SAVE_EVERY == 0 or number == len(missing):
                partial = out.with_suffix(".part")
                table = pd.DataFrame(rows).sort_values("seed", kind="stable")
                table.to_parquet(partial, index=False, compression="zstd")
                partial.replace(out)
                say(f"seed {seed}: {number} of {len(missing)}")


if __name__ == "__main__":
    typer.run(main)
