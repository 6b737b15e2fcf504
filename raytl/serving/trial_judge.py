"""Who judges a version on trial: an actor in the cluster that hears of all replicas and outlives the command.

It needs no processor of its own, holds nothing that it could not be told again, and ends with the trial: what came of
it stands in the application's configuration then. A trial that stands in none, because a command died over it, has no
judge for long.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from functools import lru_cache
from typing import Any

import ray
from ray.exceptions import RayError

from raytl.core.errors import UserError
from raytl.serving.applying import settings_of, with_settings
from raytl.serving.controller import AppConfig, Serve
from raytl.serving.evidence import Tally, figures, judge
from raytl.serving.lineage import ended
from raytl.serving.ray_session import NAMESPACE
from raytl.serving.settings import Candidate

_ASK_S = 10.0
_UNWANTED_S = 600.0
"""A trial is in no configuration before it is applied, and while a change that may fail is waited for."""


class Judge:
    """Of one trial. name: of the application. unwanted_s: after which it ends, where the trial stands nowhere."""

    def __init__(self, name: str, rules: dict[str, Any], unwanted_s: float | None = None) -> None:
        self._name = name
        self._rules = Candidate(**rules)
        self._replicas: dict[str, Tally] = {}
        if unwanted_s is not None:
            threading.Thread(target=self._look, args=(unwanted_s,), daemon=True).start()

    def hear(self, replica: str, tally: dict[str, Any]) -> None:
        """What a replica has counted since it began to; a dead one's stands. Ends the trial where that decides it."""
        self._replicas[replica] = Tally.from_json(tally)
        verdict = judge(self._sum(), self._rules)
        if verdict is None:
            return
        serve = Serve.running()
        if serve is not None:
            promoted, why = verdict
            conclude(serve, self._name, self._rules.trial, {"why": why, **figures(self._sum())}, promoted=promoted)
        ray.actor.exit_actor()

    def figures(self) -> dict[str, Any]:
        """The trial so far."""
        return figures(self._sum())

    def _look(self, unwanted_s: float) -> None:
        stood = time.monotonic()
        while time.monotonic() - stood < unwanted_s:
            time.sleep(unwanted_s / 10)
            try:
                if stands(self._name, self._rules.trial):
                    stood = time.monotonic()
            except (UserError, RayError):  # Serve, or its controller, is not there just now
                continue
        stop_judge(self._rules.trial)

    def _sum(self) -> Tally:
        total = Tally()
        for tally in self._replicas.values():
            total.add(tally)
        return total


def stands(name: str, trial: str) -> bool:
    """Whether a trial is part of an application."""
    serve = Serve.running()
    config = serve.configs().get(name) if serve is not None else None
    return config is not None and (settings_of(config).get("candidate") or {}).get("trial") == trial


def conclude(serve: Serve, name: str, trial: str, outcome: dict[str, Any], *, promoted: bool) -> None:
    """End a trial, unless the endpoint was changed and it is another one's by now."""

    def edit(configs: dict[str, AppConfig]) -> dict[str, AppConfig] | None:
        config = configs.get(name)
        settings = {} if config is None else settings_of(config)
        if config is None or (settings.get("candidate") or {}).get("trial") != trial:
            return None
        return {**configs, name: with_settings(config, ended(settings, outcome, promoted=promoted))}

    serve.change(edit)


def start_judge(name: str, rules: Candidate, unwanted_s: float = _UNWANTED_S) -> None:
    """Let a trial be judged from now on, whoever leaves. unwanted_s: of :class:`Judge`."""
    options = {"name": _actor(rules.trial), "namespace": NAMESPACE, "lifetime": "detached"}
    judge_of = ray.remote(num_cpus=0, max_restarts=-1)(Judge).options(**options)
    actor = judge_of.remote(name, dict(vars(rules)), unwanted_s)
    ray.get(actor.figures.remote())


def stop_judge(trial: str) -> None:
    """End it without a verdict."""
    with suppress(ValueError, RayError):
        ray.kill(ray.get_actor(_actor(trial), namespace=NAMESPACE))


def figures_of(trial: str) -> dict[str, Any] | None:
    """The trial so far; None where nobody judges it."""
    try:
        actor = ray.get_actor(_actor(trial), namespace=NAMESPACE)
        told: dict[str, Any] = ray.get(actor.figures.remote(), timeout=_ASK_S)
    except (ValueError, RayError):
        return None
    return told


async def tell(trial: str, tally: Tally, counter: str) -> None:
    """From a replica: what it has counted. Raises ValueError, RayError where nobody judges the trial.

    counter: of the counts. A trial that was put back after a change that failed is counted anew, and the old counts
    stand.
    """
    actor = _handle(trial)
    await actor.hear.remote(f"{ray.get_runtime_context().get_actor_id()}-{counter}", tally.to_json())


@lru_cache(maxsize=4)
def _handle(trial: str) -> Any:
    return ray.get_actor(_actor(trial), namespace=NAMESPACE)


def _actor(trial: str) -> str:
    return f"raytl-trial-{trial}"
