"""How soon each way to search finds how good a model: the same space, training code, validation fold and machine.

    python benchmarks/search.py

raytl         the product's search, its baselines included
raytl-blank   the same without the space's first strategies, which peers have not either: what was known before is gone
docs-random   Ray Tune with random strategies, a TorchTrainer with one worker per trial (the documentation's pattern)
docs-asha     the same pattern with OptunaSearch and ASHA
in-process    Optuna's TPE and successive-halving pruner in a loop without Ray
quicktune     absent: quicktunetool 0.0.4 needs numpy < 2 and scikit-learn 1.5.0, so it cannot stand in one environment
              with raytl, and without its authors' surrogates, trained on other tasks, it is not what they describe

All train with raytl's own loop and its activation cache, each from an empty cache and in a Ray of its own that was
started before, so only the way of searching differs. That Ray has its dashboard, as ``ray.init()`` gives it: without
one, Ray Train 2.60 does not see that a stopped trial's controller is gone, and never frees what its worker held.
A way's leader is the best by selection score among the trials that ran the full budget; leaders are trained once more
afterwards for their accuracy on the test split.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import optuna
import ray
import typer
from common import Silent, accuracy, finish, say, scratch_home
from docs_pattern import concurrency, docs_trainable
from ray import tune
from ray._private import ray_constants
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from raytl.search.driver import search
from raytl.search.jobs import JobKind
from raytl.search.lanes.cluster import Lanes, quiet_environment
from raytl.search.planning import SearchSettings, make_workspace_settings
from raytl.search.records import TrialRecord, TrialStatus
from raytl.search.space.binding import BoundSpace
from raytl.search.space.definition import load_space
from raytl.tasks import demo_task
from raytl.training.loop import run_trial
from raytl.training.strategy import Strategy
from raytl.training.trial import TrialError, TrialJob
from raytl.training.workspace import Workspace, WorkspaceSettings


@dataclass(frozen=True)
class Finished:
    """A trial that ran the full budget: when, which, how good."""

    time_s: float
    strategy: dict[str, Any]
    score: float


@dataclass(frozen=True)
class Tested:
    """A way's leader from some moment on: its selection score, and its accuracy on the test split."""

    time_s: float
    score: float
    accuracy: float


@dataclass(frozen=True)
class Setting:
    """What all ways share. home: the way's own cache."""

    space: BoundSpace
    workspace: WorkspaceSettings
    home: Path
    seconds: float
    seed: int

    def make_workspace(self) -> Workspace:
        """One over the way's own cache."""
        return Workspace(self.space.data, self.workspace, self.home)


class _Listener(Silent):
    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.found: dict[int, Finished] = {}

    def on_trial(self, record: TrialRecord) -> None:
        counts = record.fold == 0 and record.kind != JobKind.CONTROL  # peers have the first fold and no controls
        if record.status == TrialStatus.COMPLETED and counts and record.score is not None:
            now = time.perf_counter() - self.started
            self.found.setdefault(record.number, Finished(now, record.strategy, record.score))


def by_raytl(setting: Setting) -> list[Finished]:
    """The product. Its cache is RAYTL_HOME, which Ray's processes were started with."""
    listener = _Listener()
    settings = SearchSettings(trials=10_000, time_budget_s=setting.seconds, seed=setting.seed)
    search(setting.space, None, settings, setting.home / "run", listener)
    return list(listener.found.values())


def by_raytl_blank(setting: Setting) -> list[Finished]:
    """The product, in the space without its first strategies."""
    space = replace(setting.space.space, first=())
    return by_raytl(replace(setting, space=BoundSpace(space, setting.space.data)))


class _Watch(tune.Callback):  # type: ignore[misc]
    def __init__(self, epochs: int) -> None:
        self.started = time.perf_counter()
        self.epochs = epochs
        self.found: list[Finished] = []

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        if result.get("epoch") == self.epochs:
            strategy = json.loads(trial.config["strategy"])
            self.found.append(Finished(time.perf_counter() - self.started, strategy, result["score"]))


def _in_docs_pattern(setting: Setting, param_space: dict[str, Any], **tuning: Any) -> list[Finished]:
    def train(config: dict[str, Any]) -> None:
        def report(metrics: dict[str, Any]) -> None:
            ray.train.report({"score": float(metrics["score"]), "epoch": int(metrics["epoch"])})

        with suppress(TrialError):  # as in the other ways: the strategy counts for nothing
            run_trial(setting.make_workspace(), TrialJob(Strategy.from_dict(json.loads(config["strategy"]))), report)

    watch = _Watch(setting.workspace.budget.epochs)
    trainable = docs_trainable(train, setting.home / "train")
    results = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space=param_space,
        tune_config=tune.TuneConfig(
            num_samples=-1, time_budget_s=setting.seconds, max_concurrent_trials=concurrency(), **tuning
        ),
        run_config=tune.RunConfig(storage_path=str(setting.home / "tune"), verbose=0, callbacks=[watch]),
    ).fit()
    say(f"{len(results)} trials started, {results.num_errors} failed")
    for error in results.errors:
        raise RuntimeError("the documentation's pattern does not run as it should") from error
    return watch.found


def by_docs_random(setting: Setting) -> list[Finished]:
    """Random strategies in the documentation's pattern."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(setting.seed))

    def draw(_: Any) -> str:
        return json.dumps(setting.space.suggest(study.ask()).to_dict())

    return _in_docs_pattern(setting, {"strategy": tune.sample_from(draw)})


class _DefineByRun:
    """The space as OptunaSearch takes it. Tune pickles it every so often; it need not carry the task's data then."""

    def __init__(self, space: BoundSpace) -> None:
        self._space = space

    def __call__(self, trial: Any) -> dict[str, Any]:
        return {"strategy": json.dumps(self._space.suggest(trial).to_dict())}

    def __getstate__(self) -> dict[str, Any]:
        return {}


def by_docs_asha(setting: Setting) -> list[Finished]:
    """OptunaSearch and ASHA in the documentation's pattern."""
    given = setting.space.space.settings

    searcher = OptunaSearch(space=_DefineByRun(setting.space), metric="score", mode="max", seed=setting.seed)
    scheduler = ASHAScheduler(
        time_attr="epoch",
        metric="score",
        mode="max",
        max_t=given.epochs,
        grace_period=given.grace_epochs,
        reduction_factor=given.reduction_factor,
    )
    return _in_docs_pattern(setting, {}, search_alg=searcher, scheduler=scheduler)


def by_in_process(setting: Setting) -> list[Finished]:
    """Optuna in a loop."""
    given = setting.space.space.settings
    workspace, found, started = setting.make_workspace(), list[Finished](), time.perf_counter()

    def objective(trial: optuna.Trial) -> float:
        strategy = setting.space.suggest(trial)

        def report(metrics: dict[str, Any]) -> None:
            trial.report(float(metrics["score"]), int(metrics["epoch"]))
            if trial.should_prune():
                raise optuna.TrialPruned

        try:
            score = run_trial(workspace, TrialJob(strategy), report).metrics["score"]
        except TrialError as error:
            raise optuna.TrialPruned from error
        found.append(Finished(time.perf_counter() - started, strategy.to_dict(), score))
        return score

    pruner = optuna.pruners.SuccessiveHalvingPruner(given.grace_epochs, given.reduction_factor)
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=setting.seed), pruner=pruner
    )
    study.optimize(objective, timeout=setting.seconds)
    return found


def leaders(found: list[Finished]) -> list[Finished]:
    """The trials that were the best so far by selection score when they were complete, in order of time."""
    steps: list[Finished] = []
    for trial in sorted(found, key=lambda trial: trial.time_s):
        if not steps or trial.score > steps[-1].score:
            steps.append(trial)
    return steps


def main(
    docs_seconds: Annotated[float, typer.Option(help="for each way in the documentation's pattern")] = 400.0,
    seconds: Annotated[float, typer.Option(help="for each other way")] = 90.0,
    seed: int = 0,
    space: Annotated[str, typer.Option(help="of the digits task")] = "demo",
    way: Annotated[str, typer.Option(hidden=True, help="run this one only and print what it found")] = "",
) -> None:
    """Run the ways one after another."""
    if way:
        print(json.dumps([asdict(trial) for trial in run_way(way, space, seconds, seed)]))
        return
    budgets = {"docs-asha": docs_seconds, "raytl": seconds, "docs-random": docs_seconds, "in-process": seconds}
    budgets["raytl-blank"] = seconds
    found: dict[str, list[Finished]] = {}
    for name, budget in budgets.items():
        found[name] = in_own_process(name, space, budget, seed)
        best = max((trial.score for trial in found[name]), default=float("nan"))
        say(f"{name}: {len(found[name])} full trials, best {best:.3f}")
    _print(found, _test(found, space, seed), budgets)


def _test(found: dict[str, list[Finished]], space: str, seed: int) -> dict[str, list[Tested]]:
    """Test accuracy of every leader that a way ever had, trained once more."""
    task = demo_task(seed)
    assert task.test is not None
    test = task.test.open()
    with scratch_home() as home:
        workspace = make_setting(space, home, 0.0, seed).make_workspace()

        def tested(trial: Finished) -> Tested:
            result = run_trial(workspace, TrialJob(Strategy.from_dict(trial.strategy)), lambda metrics: None)
            return Tested(trial.time_s, trial.score, accuracy(result.model, test))

        return {name: [tested(trial) for trial in leaders(trials)] for name, trials in found.items()}


WAYS: dict[str, Callable[[Setting], list[Finished]]] = {
    "docs-asha": by_docs_asha,
    "raytl": by_raytl,
    "raytl-blank": by_raytl_blank,
    "docs-random": by_docs_random,
    "in-process": by_in_process,
}


def make_setting(space: str, home: Path, seconds: float, seed: int) -> Setting:
    """The digits task in a space. The ways without lanes get the whole machine, as they would have it."""
    bound = BoundSpace(load_space(space), demo_task(seed).data)
    whole = Lanes(1, float(os.cpu_count() or 1), 0.0)
    alone = make_workspace_settings(bound.data, bound.space, SearchSettings(seed=seed), whole)
    return Setting(bound, alone, home, seconds, seed)


def in_own_process(way: str, space: str, seconds: float, seed: int) -> list[Finished]:
    """A process and a Ray of its own: what one way leaves running must not take the next one's cores."""
    options = {"--way": way, "--space": space, "--seconds": str(seconds), "--seed": str(seed)}
    command = [sys.executable, __file__, *(text for option in options.items() for text in option)]
    # Ray's processes on loopback only, as raytl starts them: whoever reaches them may run code.
    environment = {**os.environ, ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return [Finished(**trial) for trial in json.loads(done.stdout.splitlines()[-1])]


def run_way(name: str, space: str, seconds: float, seed: int) -> list[Finished]:
    """One way, from an empty cache, in this process."""
    quiet_environment(verbose=False)
    logging.getLogger("ray").setLevel(logging.ERROR)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with scratch_home() as home:
        ray.init(address="local", include_dashboard=True, log_to_driver=False, logging_level=logging.ERROR)
        try:
            return WAYS[name](make_setting(space, home, seconds, seed))
        finally:
            ray.shutdown()


def _print(found: dict[str, list[Finished]], tested: dict[str, list[Tested]], budgets: dict[str, float]) -> None:
    moments = [10, 20, 40, 80, 160, 320]
    rows: list[list[str]] = []
    figures: dict[str, dict[str, Any]] = {}
    for name, steps in tested.items():
        end = steps[-1] if steps else None
        then = [next((step for step in reversed(steps) if step.time_s <= moment), None) for moment in moments]
        figures[name] = {
            "seconds": budgets[name],
            "full_trials": len(found[name]),
            "anytime": [asdict(step) for step in steps],
        }
        reached = []
        for ours in ("raytl", "raytl-blank"):
            by_score = _when(tested[ours], lambda step, end=end: end is not None and step.score >= end.score)
            by_test = _when(tested[ours], lambda step, end=end: end is not None and step.accuracy >= end.accuracy)
            ratio = end.time_s / by_test if end is not None and by_test else None
            figures[name][ours] = {"score_s": by_score, "accuracy_s": by_test, "times_as_fast": ratio}
            reached.append(f"{by_test:.0f} s\n{ratio:.1f}x" if by_test and ratio else "not")
        rows.append([
            name,
            f"{budgets[name]:.0f}",
            str(len(found[name])),
            *(
                f"{step.score:.3f}\n{step.accuracy:.3f}" if step and moment <= budgets[name] else "-"
                for step, moment in zip(then, moments, strict=True)
            ),
            f"{end.score:.3f}\n{end.accuracy:.3f}" if end else "-",
            *reached,
        ])  # fmt: skip
    rows.append(["quicktune", "absent", *["-"] * (len(moments) + 4)])
    figures["quicktune"] = {"absent": "quicktunetool 0.0.4 needs numpy < 2"}
    header = ["way", "s", "trials", *(f"{m} s" for m in moments), "end", "raytl had it", "blank"]
    title = "Selection score and test accuracy of the leader by time; when raytl had the way's last accuracy"
    finish("search", title, header, rows, {"ways": figures})


def _when(steps: list[Tested], good: Callable[[Tested], bool]) -> float | None:
    return next((step.time_s for step in steps if good(step)), None)


if __name__ == "__main__":
    typer.run(main)
