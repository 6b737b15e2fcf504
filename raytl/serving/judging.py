"""Who judges a version on trial: an actor in the cluster that hears of all replicas and outlives the command.

It needs no processor of its own, holds nothing that it could not be told again, and ends with the trial: what came of
it stands in the application's configuration then.
"""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from typing import Any

import ray
from ray.exceptions import RayError

from raytl.serving.applying import settings_of, with_settings
from raytl.serving.controller import NAMESPACE, AppConfig, Serve
from raytl.serving.evidence import Tally, figures, judge
from raytl.serving.lineage import ended
from raytl.serving.settings import Candidate

_ASK_S = 10.0


class Judge:
    """Of one trial. name: of the application."""

    def __init__(self, name: str, rules: dict[str, Any]) -> None:
        self._name = name
        self._rules = Candidate(**rules)
        self._replicas: dict[str, Tally] = {}

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

    def _sum(self) -> Tally:
        total = Tally()
        for tally in self._replicas.values():
            total.add(tally)
        return total


def conclude(serve: Serve, name: str, trial: str, outcome: dict[str, Any], *, promoted: bool) -> None:
    """End a trial, unless the endpoint was changed and it is another one's by now."""

    def edit(configs: dict[str, AppConfig]) -> dict[str, AppConfig] | None:
        config = configs.get(name)
        settings = {} if config is None else settings_of(config)
        if config is None or (settings.get("candidate") or {}).get("trial") != trial:
            return None
        return {**configs, name: with_settings(config, ended(settings, outcome, promoted=promoted))}

    serve.change(edit)


def start_judge(name: str, rules: Candidate) -> None:
    """Let a trial be judged from now on, whoever leaves."""
    options = {"name": _actor(rules.trial), "namespace": NAMESPACE, "lifetime": "detached"}
    actor = ray.remote(num_cpus=0, max_restarts=-1)(Judge).options(**options).remote(name, dict(vars(rules)))
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
