"""``--deploy-when`` and the options beside it: read before a search, done after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raytl.cli.output import Output
from raytl.cli.shares import parse_canary
from raytl.core.errors import UserError

if TYPE_CHECKING:
    from raytl.api import Condition, Run


@dataclass(frozen=True)
class Promotion:
    """When a winner is deployed, and how it is tried where a model is served.

    on_trial: ``canary`` and ``promote_after`` of :func:`raytl.deploy_when`, as far as they were given.
    """

    condition: Condition
    on_trial: dict[str, Any]


def read_promotion(
    deploy_when: str | None, metric: str | None, canary: str | None, promote_after: int | None
) -> Promotion | None:
    """From a user's words; None without ``--deploy-when``. Raises UserError for what cannot be meant."""
    from raytl import api

    if deploy_when is None:
        for option, value in (("--canary", canary), ("--promote-after", promote_after)):
            if value is not None:
                raise UserError(f"{option} says how a winner is tried; give --deploy-when with it")
        return None
    on_trial: dict[str, Any] = {} if promote_after is None else {"promote_after": promote_after}
    if canary is not None:
        on_trial["canary"] = parse_canary(canary)
    return Promotion(api.Condition.parse(deploy_when, metric), on_trial)


def promote(output: Output, run: Run, promotion: Promotion) -> dict[str, Any]:
    """Deploy a run's winner if it may be, and say what became of it; returns that as a document."""
    from raytl import api
    from raytl.serving.settings import bundle_version

    try:
        endpoint = api.deploy_when(run, promotion.condition, notice=output.note, **promotion.on_trial)
    except UserError as refused:
        output.say(str(refused))
        return {"endpoint": None, "why_not": str(refused)}
    why_not, version = None, bundle_version(run.best.bundle_path)
    if endpoint.version == version:
        output.say(f"deployed: {endpoint.url}")
    elif endpoint.candidate == version:
        output.say(f"on trial: version {version}, at {endpoint.url}; how it does: raytl endpoint status")
    else:
        why_not = f"not deployed: version {version} was tried and taken back; why: raytl endpoint status"
        output.say(why_not)
    return {"endpoint": endpoint.to_json(), "why_not": why_not}
