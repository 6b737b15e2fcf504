"""From a configuration that is wanted to an endpoint that answers so, or back to what there was."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import ray
from ray._private.state import jobs
from ray.exceptions import RayError

from raytl.core.errors import UserError, cause
from raytl.serving import tokens
from raytl.serving.controller import AppConfig, Serve, clear_head
from raytl.serving.lineage import versions
from raytl.serving.ray_session import RaySession
from raytl.serving.room import Need, NotInTimeError, Patience, Waiting, free_now, running_replicas
from raytl.serving.settings import DEPLOYMENT, bundle_version, name_of
from raytl.serving.snapshots import drop_snapshots

_POLL_S = 0.1
_ASK_S = 5.0
_ABOUT_TO_S = 600.0  # from the copy of a bundle to its being served, at most
_FAILED = ("DEPLOY_FAILED", "UNHEALTHY")  # of an application, and of a deployment
_GONE_S = 5.0  # Serve lists nothing at all while the store of the cluster's head is away


def settings_of(config: AppConfig) -> dict[str, Any]:
    """What the replicas of an application are told."""
    first, *_ = config.get("deployments") or [{}]
    return {**(config.get("args") or {}), **(first.get("user_config") or {})}


def versioned(serve: Serve, config: AppConfig) -> dict[str, Any]:
    """What the replicas are told, with the version and the name of their bundle where nobody has said them.

    The files that an operator deploys with Serve itself need neither. The version stays unknown where the bundle cannot
    be read here, or where another one lies at its path by now than the one that answers: that one cannot be had back.
    """
    from raytl.sources.manifest import read_manifest

    settings = settings_of(config)
    bundle = Path(settings.get("bundle") or "")
    if settings.get("version") or not settings.get("bundle"):
        return settings
    try:
        version, provenance = bundle_version(bundle), read_manifest(bundle).provenance
    except UserError:
        return settings
    if _answering(serve, config) not in ("", version):
        return settings
    return {**settings, "version": version, "model": settings.get("model") or name_of(bundle, provenance)}


def refuse_unversioned(config: AppConfig, settings: Mapping[str, Any]) -> None:
    """Raise UserError where it is not known which version these settings serve; see :func:`versioned`."""
    if not settings.get("version"):
        raise UserError(
            f"endpoint '{config['name']}' does not say which version it serves, and {settings.get('bundle')} does not "
            "hold that any more, or cannot be read here: deploy the model that it is to serve, and try again"
        )


def _answering(serve: Serve, config: AppConfig) -> str:
    """The version that answers, "" where that is not told."""
    try:
        with httpx.Client(trust_env=False, timeout=_ASK_S, headers=tokens.headers(config["name"])) as client:
            told = client.get(f"{url_of(serve, config)}/healthz").json()
    except (httpx.HTTPError, ValueError):
        return ""
    return str(told.get("version", "")) if isinstance(told, dict) else ""


def with_settings(config: AppConfig, settings: Mapping[str, Any]) -> AppConfig:
    """The application, and its replicas told otherwise."""
    first, *others = config.get("deployments") or [{"name": DEPLOYMENT}]
    return {**config, "deployments": [{**first, "user_config": dict(settings)}, *others]}


def url_of(serve: Serve, config: AppConfig) -> str:
    """Where an application answers, as this machine reaches it."""
    return f"http://{reachable(serve.host)}:{serve.port}{(config.get('route_prefix') or '').rstrip('/')}"


def refuse_other_labels(
    config: AppConfig,
    url: str,
    labels: Sequence[str],
    *,
    whose: str = "the new model",
    advice: str = "deploy with --new-labels if its callers know, or under another --name",
) -> None:
    """Raise UserError where a model with these labels would answer otherwise than callers of the endpoint know.

    whose: the labels are. advice: what to do.
    """
    from raytl.sources.manifest import read_manifest

    where = f"endpoint '{config['name']}' at {url}"
    try:
        served = read_manifest(Path(settings_of(config)["bundle"])).labels or ()
    except (UserError, KeyError) as error:
        raise UserError(f"{where} does not tell its labels ({error}): it stays as it is; {advice}") from None
    if tuple(served) != tuple(labels):
        # Of the same labels in another order /v1 says the same, but the columns of /v2's probabilities change places.
        order = " in this order" if sorted(served) == sorted(labels) else ""
        raise UserError(
            f"{where} answers with the labels {', '.join(served)}{order}, and {whose} with {', '.join(labels)}: "
            f"it stays as it is; {advice}"
        )


def put(
    serve: Serve, ray_session: RaySession, application: AppConfig, before: AppConfig | None, patience: Patience
) -> None:
    """Apply an application beside the others and wait until it answers; where it fails, what it replaced comes back.

    So it does where somebody interrupts the waiting (Ctrl-C).

    before: what it was made from, None where it is new. Raises UserError where that is no longer what is served, no
    node has room for it, or it asks for a token that this user does not have, without which nothing is seen of it.
    """
    tokens.refuse_unknown(application["name"], settings_of(application).get("token_sha256", ""))
    applied = False
    running = running_replicas(serve.applications().get(application["name"], {}))
    # Nobody can join a local head: it listens on loopback.
    waiting = Waiting(patience, application, before, running=running, joinable=ray_session.head is None)
    try:
        replace(serve, application, before)
        applied = True
        _wait_until_served(serve, application, waiting)
    except BaseException as error:
        if applied or not isinstance(error, UserError):  # else it was refused, and is somebody else's if it is there
            with undoing(error):
                _put_back(serve, ray_session, application, before)
        raise
    drop_unused_snapshots(serve)


@contextmanager
def undoing(error: BaseException) -> Iterator[None]:
    """What fails while something is undone is told beside why it is undone, and not in its place. error: why."""
    try:
        yield
    except (UserError, RayError, OSError) as undone:
        told = f"it could not be undone, either ({cause(undone).rstrip('.')}): look at 'raytl endpoint status'"
        if not isinstance(error, UserError):
            error.add_note(told)
        elif told not in str(error):  # of two steps that cannot be undone for the same reason
            raise UserError(f"{str(error).rstrip('.')}; {told}") from undone
        raise error from undone


def replace(serve: Serve, application: AppConfig, before: AppConfig | None) -> None:
    """Apply an application, made from the one that was there before, if that still is.

    Raises UserError if not, or where another one has come to be under its route.
    """
    name, route = application["name"], application.get("route_prefix")

    def edit(present: dict[str, AppConfig]) -> dict[str, AppConfig]:
        if present.get(name) != before:
            raise UserError(
                f"endpoint '{name}' was changed in the meantime, by another command or the end of its trial; look at "
                "it with 'raytl endpoint status', and try again"
            )
        for other, config in present.items():
            if other != name and config.get("route_prefix") == route:
                raise UserError(f"'{other}' was deployed under {route} in the meantime, by another command: try again")
        return {**present, name: application}

    serve.change(edit)


def _put_back(serve: Serve, ray_session: RaySession, application: AppConfig, before: AppConfig | None) -> None:
    """Undo an application, and nothing that others did since it was applied, minutes ago perhaps."""
    name, taken_down = application["name"], False

    def edit(configs: dict[str, AppConfig]) -> dict[str, AppConfig] | None:
        nonlocal taken_down
        present = configs.pop(name, None)
        if present is None or settings_of(present) != settings_of(application):
            return None
        taken_down = before is None
        return configs if before is None else {**configs, name: before}

    serve.change(edit)
    if taken_down:
        stop_if_last(serve, ray_session, name)


def _wait_until_served(serve: Serve, config: AppConfig, waiting: Waiting) -> None:
    name, url, settings, agreed = config["name"], url_of(serve, config), settings_of(config), 0
    wanted = (settings["version"], (settings.get("candidate") or {}).get("version", ""))
    gone_since: float | None = None
    with httpx.Client(trust_env=False, timeout=10, headers=tokens.headers(name)) as client:
        application: dict[str, Any] | None = None
        while waiting.goes_on(application):
            application = serve.applications().get(name)
            reason = _failure(application, settings) if application else None
            if reason is not None:
                raise UserError(reason)
            present = (application or {}).get("deployed_app_config")
            if _was_decided(settings, present):
                return
            # Since it was first looked for in vain, and not since it was last seen: an answer may have taken as long.
            gone_since = None if present is not None else gone_since or time.monotonic()
            if gone_since is not None and time.monotonic() - gone_since > _GONE_S:
                raise UserError(f"endpoint '{name}' was taken down by another command before it was ready")
            _refuse_replaced(name, settings, present)
            if application and (application["status"] == "RUNNING" or waiting.enough(application)):
                # Requests go to any replica: as many in a row as there are replicas must agree, twice over.
                locked = bool(settings.get("token_sha256")) and application["status"] != "RUNNING"
                agreed = agreed + 1 if _serves(client, url, wanted, locked=locked) else 0
                if agreed >= 2 * max(1, running_replicas(application)):
                    return
            else:
                time.sleep(_POLL_S)
    raise _too_late(serve, config, url)


def _refuse_replaced(name: str, settings: Mapping[str, Any], present: AppConfig | None) -> None:
    """Raise UserError where somebody has put another version in this one's place: it would be waited for in vain."""
    if present is None:
        return
    theirs = settings_of(present)
    if theirs.get("version") != settings["version"]:
        told = f"{theirs['model']} ({theirs['version']})" if theirs.get("version") else str(theirs.get("bundle"))
        raise UserError(
            f"endpoint '{name}' was given another version by somebody else, {told}, before this one was ready; that "
            "one stays"
        )


def _was_decided(settings: Mapping[str, Any], present: AppConfig | None) -> bool:
    """Whether the trial in the settings is over: one replica's count can decide it before all have the candidate."""
    trial = (settings.get("candidate") or {}).get("trial")
    if trial is None or present is None:
        return False
    candidate = settings_of(present).get("candidate") or {}
    return bool(candidate.get("trial") != trial)


def _serves(client: httpx.Client, url: str, wanted: tuple[str, str], *, locked: bool) -> bool:
    """Whether the versions that are wanted answer. locked: a token has to be asked for too, as Serve cannot tell."""
    try:
        answer = client.get(f"{url}/healthz", headers={"Connection": "close"})
        health = answer.json() if answer.status_code == 200 else {}
        if locked and httpx.get(f"{url}/v1/model", trust_env=False, timeout=10).status_code != 401:
            health = {}
    except (httpx.HTTPError, ValueError):
        health = {}
    if (health.get("version"), health.get("candidate", "")) == wanted:
        return True
    if health.get("refused"):
        raise UserError(str(health["refused"]))
    time.sleep(_POLL_S)
    return False


def _too_late(serve: Serve, config: AppConfig, url: str) -> UserError:
    name = config["name"]
    application = serve.applications().get(name, {})
    if application.get("status") == "RUNNING":
        return UserError(f"{url} does not answer although it was deployed; look at the logs of Serve's proxy")
    said = [deployment["message"] for deployment in application.get("deployments", {}).values()]
    message = " ".join(" ".join(said).split()) or "no replica has started"
    late, free = f"'{name}' was not ready in time ({message})", free_now(Need.of(config))
    known = f"{late}: {free}" if free else late
    return NotInTimeError(f"{known}; stop other work on the nodes of the cluster, and try again")


def _failure(application: Mapping[str, Any], settings: Mapping[str, Any]) -> str | None:
    """Why an application cannot come up, in one sentence, or None where nothing speaks against it yet.

    settings: that its replicas are to be told.
    """
    failed = application["status"] in _FAILED
    deployments = application["deployments"].values()
    # Until the controller's next turn a deployment tells how it did with the configuration of before.
    told = [one["message"] for one in deployments if failed or _tries(one, settings)]
    messages = [application["message"], *told]
    for message in messages:
        ours = re.findall(r"UserError: (.+)", message)
        if ours:
            return str(ours[-1]).strip()
    if not failed:
        return None
    last = [line.strip() for message in messages for line in message.splitlines() if line.strip()]
    return last[-1] if last else "Serve gives no reason"


def _tries(deployment: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether a deployment is at what its application was given last, as Serve tells of it."""
    given = (deployment.get("deployment_config") or {}).get("user_config") or {}
    return deployment["status"] not in _FAILED and given == settings


def stop_if_last(serve: Serve, ray_session: RaySession, name: str) -> bool:
    """Take Serve down, and the local head, if nothing but ``name`` is served, before anybody can begin to.

    What Serve is removing is served no more, though a replica that never found a node takes it 20 s. Returns whether
    that was so.
    """
    last = False

    def edit(_: dict[str, AppConfig]) -> None:
        nonlocal last
        there = serve.applications().items()
        last = not any(other != name and application["status"] != "DELETING" for other, application in there)
        if last:
            serve.shutdown()

    serve.change(edit)
    if last:
        drop_snapshots(keep=())
        if ray_session.head is None:
            clear_head()
        stop_head(ray_session)
    return last


def stop_head(ray_session: RaySession) -> None:
    """Stop the local head, where it is ours."""
    if ray_session.head is not None:
        ray.shutdown()
        ray_session.head.stop()


def stop_unused(serve: Serve | None, ray_session: RaySession) -> None:
    """Stop a Serve that serves nothing, and the local head, unless another command is about to have it serve."""
    if sum(not job["IsDead"] for job in jobs()) > 1:  # beside this command's
        return
    if serve is None:
        stop_head(ray_session)
    else:
        stop_if_last(serve, ray_session, "")


def drop_unused_snapshots(serve: Serve) -> None:
    """Remove copies of bundles that are neither served nor at hand for a rollback."""
    used = set().union(*(versions(settings_of(config)) for config in _served(serve)))
    drop_snapshots(keep=used, unused_s=_ABOUT_TO_S)


def _served(serve: Serve) -> list[AppConfig]:
    return [config for config in serve.configs().values() if config.get("deployments")]


def reachable(host: str) -> str:
    """The address at which this machine reaches a server that listens on ``host``."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host
