"""Change an endpoint without fear: try a version beside the present one, promote it, or go back to an earlier one."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from raytl.core.errors import UserError
from raytl.serving import tokens
from raytl.serving.applying import (
    put,
    refuse_other_labels,
    refuse_unversioned,
    replace,
    settings_of,
    undoing,
    url_of,
    versioned,
    with_settings,
)
from raytl.serving.controller import AppConfig, Serve
from raytl.serving.endpoint import Endpoint, endpoint_of
from raytl.serving.lineage import ended, taken_back, tried
from raytl.serving.ray_session import RaySession, session
from raytl.serving.room import READY_S, Need, Patience, running_replicas, waits_for
from raytl.serving.settings import Candidate, ServingSettings, bundle_version
from raytl.serving.snapshots import snapshot
from raytl.serving.trial_judge import figures_of, start_judge, stop_judge

_POLL_S = 0.1
_ANSWER_S = 10.0  # of an endpoint that is asked whether it takes a token


def try_out(
    bundle_path: str | Path,
    *,
    name: str = "raytl",
    canary: float = 0.0,
    promote_after: int = 0,
    max_disagreement: float = 0.1,
    max_slowdown: float = 1.5,
    new_labels: bool = False,
    wait_s: float = READY_S,
    room_s: float | None = None,
    notice: Callable[[str], None] | None = None,
) -> Endpoint:
    """Put a bundle on trial beside the one that is served; both are compared, on the same images, until one is out.

    canary: share of the requests that it answers, below 1; with 0 it answers nobody (a shadow).
    promote_after: compared requests after which it takes over where it is not worse; 0 leaves that to :func:`promote`.
        It is taken back as soon as it is known to be worse, see :mod:`raytl.serving.evidence`.
    max_disagreement: share of the requests in which it may name another label. max_slowdown: how many times as long it
        may take. Where the endpoint listens and how it scales stays. wait_s, room_s, notice: as of :func:`deploy`.
    The endpoint's ``candidate`` is "" where the trial was decided before this returns; :func:`look` tells how.
    Raises UserError where nothing is served under ``name``, the bundle cannot be loaded, or names other labels.
    """
    from raytl.serving.live import load

    path = Path(bundle_path).resolve()
    version = bundle_version(path)
    model = load(ServingSettings(bundle=str(path), version=version))
    with _endpoint(name) as (serve, ray_session, before):
        if not new_labels:
            refuse_other_labels(before, url_of(serve, before), model.labels)
        settings = versioned(serve, before)
        refuse_unversioned(before, settings)
        if settings["version"] == version:
            raise UserError(f"endpoint '{name}' serves this very version, {version}; there is nothing to try")
        candidate = Candidate(
            bundle=str(snapshot(path, version, Need.of(before))),
            version=version,
            model=model.name,
            trial=secrets.token_hex(6),
            share=canary,
            promote_after=promote_after,
            max_disagreement=max_disagreement,
            max_slowdown=max_slowdown,
        )
        application = with_settings(before, tried(settings, candidate))
        try:
            start_judge(name, candidate)
            put(serve, ray_session, application, before, Patience(wait_s, room_s, notice))
        except BaseException:  # Ctrl-C too
            stop_judge(candidate.trial)
            raise
        _end(settings)
        # Not as it was applied: the trial may have been decided before every replica had the candidate.
        return endpoint_of(serve, serve.configs().get(name, application), ray_session)


def promote(name: str = "raytl", *, wait_s: float = READY_S, notice: Callable[[str], None] | None = None) -> Endpoint:
    """Let the version on trial take over now. notice: as of :func:`deploy`. Raises UserError where none is on trial."""
    with _endpoint(name) as (serve, ray_session, before):
        settings = versioned(serve, before)
        candidate = settings.get("candidate")
        if not candidate:
            raise UserError(f"endpoint '{name}' has no version on trial; begin with: raytl deploy MODEL --canary 5%")
        outcome = {"why": "somebody asked for it", **(figures_of(candidate["trial"]) or {})}
        application = with_settings(before, ended(settings, outcome, promoted=True))
        put(serve, ray_session, application, before, Patience(wait_s, notice=notice))
        _end(settings)
        return endpoint_of(serve, application, ray_session)


def rollback(
    name: str = "raytl",
    *,
    to: str | None = None,
    new_labels: bool = False,
    wait_s: float = READY_S,
    notice: Callable[[str], None] | None = None,
) -> Endpoint:
    """Take the version on trial back; where none is, put the one before the present one in its place again.

    to: first digits of an earlier version. notice: as of :func:`deploy`. Raises UserError where there is none, or where
    it names other labels than the present one, unless ``new_labels``.
    """
    from raytl.sources.manifest import read_manifest

    with _endpoint(name) as (serve, ray_session, before):
        settings = versioned(serve, before)
        refuse_unversioned(before, settings)
        candidate = settings.get("candidate")
        if candidate and to is None:
            outcome = {"why": "somebody asked for it", **(figures_of(candidate["trial"]) or {})}
            after = ended(settings, outcome, promoted=False)
        else:
            try:
                after = taken_back(settings, to)
            except UserError as error:
                raise UserError(f"endpoint '{name}': {error}") from None
            if not new_labels:
                words = {"whose": f"version {after['version']}", "advice": "add --new-labels if its callers know"}
                try:
                    labels = read_manifest(Path(after["bundle"])).labels or ()
                except UserError as error:
                    raise UserError(
                        f"endpoint '{name}': {words['whose']} does not tell its labels ({error}); {words['advice']}"
                    ) from None
                refuse_other_labels(before, url_of(serve, before), labels, **words)
        application = with_settings(before, after)
        put(serve, ray_session, application, before, Patience(wait_s, notice=notice))
        _end(settings)
        return endpoint_of(serve, application, ray_session)


def rotate_token(name: str = "raytl", *, wait_s: float = 60) -> Endpoint:
    """Give an endpoint a new token, without a restart; the old one is refused from then on.

    Raises UserError where it has none, or does not take it in time: then the old one is good still.
    """
    with _endpoint(name) as (serve, ray_session, before):
        settings = settings_of(before)
        if not settings.get("token_sha256"):
            raise UserError(
                f"endpoint '{name}' asks for no token; deploy with --token, or off loopback, to give it one"
            )
        old = tokens.read_token(name)
        token = tokens.write_token(name)
        application = with_settings(before, {**settings, "token_sha256": tokens.hashed(token)})
        asked_for = False  # the new one
        try:
            replace(serve, application, before)
            asked_for = True
            if not _takes_token(serve, application, time.monotonic() + wait_s):
                raise UserError(f"endpoint '{name}' did not take the new token in {wait_s:g} s")
        except BaseException as error:  # Ctrl-C too
            try:
                if asked_for or not isinstance(error, UserError):  # else it was refused
                    with undoing(error):
                        _take_token_back(serve, application, settings["token_sha256"])
                    if asked_for and isinstance(error, UserError):
                        error = UserError(f"{error}; the old one is good still")
                    asked_for = False
            finally:
                if not asked_for:
                    _keep_token(name, old, instead_of=token)
            raise error
        return endpoint_of(serve, application, ray_session)


def look(name: str = "raytl") -> dict[str, Any]:
    """An endpoint with all its versions: what is served, on trial, at hand, and what became of the last trial."""
    with _endpoint(name) as (serve, _, config):
        settings = versioned(serve, config)
        candidate = settings.get("candidate")
        application = serve.applications()[name]
        waiting, room = waits_for(application, config)
        return {
            "name": name,
            "url": url_of(serve, config),
            "status": str(application["status"]).rpartition(".")[2],
            "replicas": running_replicas(application),
            "waiting": waiting,
            "waits_for": room,
            "token": bool(settings.get("token_sha256")),
            "live": {key: settings.get(key, "") for key in ("model", "version", "since")},
            "candidate": {key: value for key, value in candidate.items() if key != "bundle"} if candidate else None,
            "comparison": figures_of(candidate["trial"]) if candidate else None,
            "previous": [
                {key: one.get(key, "") for key in ("model", "version", "since")} for one in settings.get("previous", ())
            ],
            "last_trial": settings.get("last_trial"),
        }


@contextmanager
def _endpoint(name: str) -> Iterator[tuple[Serve, RaySession, AppConfig]]:
    with session(start=False) as ray_session:
        serve = Serve.running() if ray_session is not None else None
        config = serve.configs().get(name) if serve is not None else None
        if ray_session is None or serve is None or config is None:
            raise UserError(f"no endpoint '{name}' is served from this machine; begin with: raytl deploy MODEL")
        yield serve, ray_session, config


def _end(settings: dict[str, Any]) -> None:
    if settings.get("candidate"):
        stop_judge(settings["candidate"]["trial"])


def _keep_token(name: str, old: str | None, *, instead_of: str) -> None:
    """Have the user's file hold the old token again, unless there is yet another by now."""
    if old is not None and tokens.read_token(name) == instead_of:
        tokens.write_token(name, old)


def _take_token_back(serve: Serve, application: AppConfig, old_sha256: str) -> None:
    """Have an endpoint ask for its old token, and keep what others changed meanwhile."""
    name, new_sha256 = str(application["name"]), settings_of(application)["token_sha256"]

    def edit(configs: dict[str, AppConfig]) -> dict[str, AppConfig] | None:
        present = configs.get(name)
        if present is None or settings_of(present).get("token_sha256") != new_sha256:
            return None
        return {**configs, name: with_settings(present, {**settings_of(present), "token_sha256": old_sha256})}

    serve.change(edit)


def _takes_token(serve: Serve, config: AppConfig, deadline: float) -> bool:
    """Whether every replica does: as many requests in a row as there are, twice over."""
    agreed, name = 0, str(config["name"])
    with httpx.Client(
        trust_env=False, timeout=_ANSWER_S, headers={**tokens.headers(name), "Connection": "close"}
    ) as client:
        while time.monotonic() < deadline:
            try:
                agreed = agreed + 1 if client.get(f"{url_of(serve, config)}/v1/model").status_code == 200 else 0
            except httpx.HTTPError:
                agreed = 0
            if agreed >= 2 * max(1, running_replicas(serve.applications()[name])):
                return True
            if not agreed:
                time.sleep(_POLL_S)
    return False
