"""How the versions of an endpoint follow one another: from one ``user_config`` to the next, nothing else.

The whole history lies in the configuration of the application, which Serve keeps: it outlives replicas and commands.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from raytl.core.errors import UserError
from raytl.serving.settings import KEPT_VERSIONS, Candidate

Values = dict[str, Any]
_OF_VERSION = ("bundle", "version", "model")


def succeeded(config: Mapping[str, Any], bundle: str, version: str, model: str) -> Values:
    """The settings of a new version in the place of the present one, which can be had back where its version is known.

    A trial ends with it.
    """
    kept = [one for one in _earlier(config) if one["version"] != version]
    if config.get("version") and config["version"] != version:
        kept = [_present(config), *kept]
    return _with(config, {"bundle": bundle, "version": version, "model": model}, kept)


def tried(config: Mapping[str, Any], candidate: Candidate) -> Values:
    """The present version with a candidate beside it."""
    return {**_without_trial(config), "candidate": _plain(candidate)}


def taken_back(config: Mapping[str, Any], to: str | None = None) -> Values:
    """An earlier version in the place of the present one, which goes to the end of what is at hand.

    to: the version's first digits; None for the one before. So a second time leads to the one before that.
    Raises UserError where there is none.
    """
    earlier = _earlier(config)
    if not earlier:
        raise UserError("there is no earlier version to go back to; it has been the only one")
    if to is None:
        chosen = earlier[0]
    else:
        found = [one for one in earlier if to and one["version"].startswith(to)]
        if len(found) != 1:
            known = ", ".join(one["version"] for one in earlier)
            raise UserError(f"'{to}' is not the beginning of exactly one earlier version; at hand are {known}")
        chosen = found[0]
    kept = [one for one in earlier if one is not chosen] + [_present(config)]
    return _with(config, chosen, kept)


def ended(config: Mapping[str, Any], outcome: Mapping[str, Any], *, promoted: bool) -> Values:
    """After the trial: the candidate served, or gone. outcome: what there is to say of it."""
    candidate = config["candidate"]
    after = succeeded(config, *(candidate[key] for key in _OF_VERSION)) if promoted else _without_trial(config)
    told = {"version": candidate["version"], "model": candidate["model"], "promoted": promoted, "ended": _now()}
    return {**after, "last_trial": {**told, **outcome}}


def versions(config: Mapping[str, Any]) -> set[str]:
    """All that may be asked for: served, on trial, at hand."""
    candidate = config.get("candidate") or {}
    found = {config.get("version"), candidate.get("version"), *(one["version"] for one in _earlier(config))}
    return {version for version in found if version}


def _with(config: Mapping[str, Any], version: Mapping[str, Any], kept: list[Values]) -> Values:
    chosen = {key: version[key] for key in _OF_VERSION}
    return {**_without_trial(config), **chosen, "since": _now(), "previous": kept[:KEPT_VERSIONS]}


def _without_trial(config: Mapping[str, Any]) -> Values:
    return {key: value for key, value in config.items() if key not in ("candidate", "last_trial")}


def _earlier(config: Mapping[str, Any]) -> list[Values]:
    return [dict(one) for one in config.get("previous", ())]


def _present(config: Mapping[str, Any]) -> Values:
    return {key: config.get(key, "") for key in (*_OF_VERSION, "since")}


def _plain(candidate: Candidate) -> Values:
    return dict(vars(candidate))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
