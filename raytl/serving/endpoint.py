"""Start, update and take down an endpoint.

Deployment is declarative: Serve gets the state that is wanted and moves there, so that a new model is swapped in
between two requests. ``serve.run`` would restart the replicas each time.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import ray
from ray.serve.schema import ApplicationStatus

from raytl.core.errors import UserError
from raytl.serving.controller import (
    AppConfig,
    RaySession,
    Serve,
    clear_head,
    failure,
    free_port_or_refuse,
    head_environment,
    session,
)
from raytl.serving.ingress import SWITCHES, haproxy_runs
from raytl.serving.settings import AUTOSCALING, DEPLOYMENT, IMPORT_PATH, ServingSettings, bundle_version
from raytl.serving.snapshots import drop_snapshots, snapshot

_POLL_S = 0.1
_SLOW = (
    "requests go through Ray Serve's own proxy, several times slower than HAProxy, which comes with ray[serve] on "
    "Linux, and on a cluster of several nodes needs --host 0.0.0.0"
)


@dataclass(frozen=True)
class Endpoint:
    """A served bundle.

    url: without a trailing slash; ``POST {url}/v1/predict``. version: of the bundle that answers.
    detached: whether the endpoint outlives this process. notice: what its operator should know, a sentence or nothing.
    """

    url: str
    name: str
    version: str
    detached: bool
    notice: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def deploy(
    bundle_path: str | Path,
    *,
    name: str = "raytl",
    port: int = 8000,
    host: str = "127.0.0.1",
    route_prefix: str = "/",
    min_replicas: int = 1,
    max_replicas: int = 2,
    num_cpus: float = 1,
    num_gpus: float = 0,
    capture: str | Path | None = None,
    capture_limit: int = 1000,
    wait_s: float = 120,
) -> Endpoint:
    """Serve a bundle, or put it in the place of the one that is served under ``name``, without dropping a request.

    Inside a Ray session of this process the endpoint lives as long as that session. Otherwise it goes to the cluster
    that ``RAY_ADDRESS`` names, or to a local Ray head that keeps running until :func:`undeploy`.

    name: of the application; applications beside it need another ``route_prefix``.
    host: interface to listen on; loopback unless given. min_replicas, max_replicas: bounds of the autoscaling.
    num_cpus, num_gpus: of one replica. capture: folder, on every node, for the images that the model is least certain
    of, at most ``capture_limit`` for each replica; their owners should know. wait_s: how long to wait until the bundle
    answers, seconds.
    Raises UserError where the bundle cannot be loaded (what was served before goes on being served), the port is taken,
    the cluster has no room, or the endpoint does not answer in time.
    """
    # Imported late: torch and the bundle's code take seconds, which `undeploy` and `status` need not wait for.
    from raytl.serving.service import load

    path = Path(bundle_path).resolve()
    version = bundle_version(path)
    load(ServingSettings(bundle=str(path), version=version))
    with session(start=True) as ray_session:
        assert ray_session is not None  # start=True
        try:
            serve, notice = _serve_at(host, port, ray_session)
        except UserError:
            if Serve.running() is None:  # refused before anything is served: leave no head behind
                _stop_head(ray_session)
            raise
        previous = serve.configs()
        _refuse_shared_route(previous, name, route_prefix)
        settings = ServingSettings(
            bundle=str(snapshot(path, version)), version=version, model=path.name,
            capture="" if capture is None else str(_writable(Path(capture))), capture_limit=capture_limit,
        )  # fmt: skip
        application = {
            "name": name,
            "route_prefix": route_prefix,
            "import_path": IMPORT_PATH,
            "deployments": [
                {
                    "name": DEPLOYMENT,
                    "user_config": settings.to_json(),
                    "autoscaling_config": {**AUTOSCALING, "min_replicas": min_replicas, "max_replicas": max_replicas},
                    "ray_actor_options": {"num_cpus": num_cpus, "num_gpus": num_gpus},
                }
            ],
        }
        url = f"http://{_reachable(host)}:{port}{route_prefix.rstrip('/')}"
        _put(serve, ray_session, application, url, version, wait_s)
        return Endpoint(url, name, version, ray_session.detached, notice)


def update(bundle_path: str | Path, *, name: str = "raytl", wait_s: float = 120) -> Endpoint | None:
    """Put a bundle in the place of the one that is served under ``name``, without dropping a request.

    Where it listens, how it scales and what it may use stay as they are. Returns None where there is no such endpoint.
    Raises UserError where it names other labels, which its callers would not know, or does not come up: what was served
    before goes on being served.
    """
    from raytl.serving.service import load

    path = Path(bundle_path).resolve()
    version = bundle_version(path)
    labels = load(ServingSettings(bundle=str(path), version=version)).labels
    with session(start=False) as ray_session:
        serve = Serve.running() if ray_session is not None else None
        before = serve.configs().get(name) if serve is not None else None
        if ray_session is None or serve is None or before is None:
            return None
        url = f"http://{_reachable(serve.host)}:{serve.port}{(before.get('route_prefix') or '').rstrip('/')}"
        _refuse_other_labels(url, name, labels)
        kept, *others = before["deployments"]
        settings = {**(kept.get("user_config") or {}), "bundle": str(snapshot(path, version)), "version": version}
        application = {**before, "deployments": [{**kept, "user_config": {**settings, "model": path.name}}, *others]}
        _put(serve, ray_session, application, url, version, wait_s)
        return Endpoint(url, name, version, ray_session.detached)


def undeploy(name: str = "raytl") -> bool:
    """Take an endpoint down; with the last one, Serve stops too, and the local Ray head if a deployment started one.

    Returns whether there was such an endpoint.
    """
    with session(start=False) as ray_session:
        serve = Serve.running() if ray_session is not None else None
        if ray_session is None or serve is None or name not in serve.applications():
            return False
        serve.remove(name)
        if serve.applications():
            _drop_unused_snapshots(serve)
        else:
            _stop(serve, ray_session)
        return True


def status() -> list[dict[str, Any]]:
    """What is served: per application its name, url, status, model version and number of running replicas."""
    with session(start=False) as ray_session:
        serve = Serve.running() if ray_session is not None else None
        if serve is None:
            return []
        base = f"http://{_reachable(serve.host)}:{serve.port}"
        return [_summary(name, base, application) for name, application in serve.applications().items()]


def _writable(folder: Path) -> Path:
    """The folder's full path. Raises UserError where it cannot be made or written to."""
    folder = folder.resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"{folder}: cannot be written to ({error.strerror}); give --capture another folder") from None
    return folder


def _serve_at(host: str, port: int, ray_session: RaySession) -> tuple[Serve, str]:
    serve = Serve.running()
    if serve is None:
        free_port_or_refuse(host, port)
        if ray_session.head is not None:  # was started with all that Serve needs
            fast, more = haproxy_runs(), {}
        else:
            more = head_environment(host)
            fast = not more or SWITCHES.keys() <= more.keys()
        return Serve.start(host, port, more), "" if fast else _SLOW
    if (serve.host, serve.port) != (host, port):
        raise UserError(
            f"Serve already listens on {serve.host}:{serve.port} in this Ray cluster and cannot move; "
            f"deploy with --port {serve.port}, or take down what it serves first"
        )
    return serve, ""


def _put(serve: Serve, ray_session: RaySession, application: AppConfig, url: str, version: str, wait_s: float) -> None:
    """Apply an application beside the others and wait until it answers; what was there before stays where it fails."""
    previous = serve.configs()
    try:
        serve.apply({**previous, application["name"]: application})
        _wait_until_served(serve, application["name"], url, version, time.monotonic() + wait_s)
    except UserError:
        if previous:
            serve.apply(previous)
        else:
            _stop(serve, ray_session)
        raise
    _drop_unused_snapshots(serve)


def _refuse_other_labels(url: str, name: str, labels: Sequence[str]) -> None:
    try:
        with httpx.Client(trust_env=False, timeout=10) as client:
            served = client.get(f"{url}/v1/model").raise_for_status().json()["labels"]
    except (httpx.HTTPError, ValueError, KeyError) as error:
        raise UserError(
            f"endpoint '{name}' at {url} does not say what it serves ({error}); it stays as it is"
        ) from None
    if sorted(served) != sorted(labels):
        raise UserError(
            f"endpoint '{name}' at {url} answers with the labels {', '.join(served)}, and the new model with "
            f"{', '.join(labels)}: it stays as it is; deploy under another --name, or after raytl undeploy"
        )


def _refuse_shared_route(configs: dict[str, AppConfig], name: str, route_prefix: str) -> None:
    for other, config in configs.items():
        if other != name and config.get("route_prefix", "/") == route_prefix:
            raise UserError(
                f"'{other}' is already served under {route_prefix}; give '{name}' another route prefix, "
                f"or deploy with --name {other} to replace it"
            )


def _wait_until_served(serve: Serve, name: str, url: str, version: str, deadline: float) -> None:
    agreed = 0
    with httpx.Client(trust_env=False, timeout=10) as client:
        while time.monotonic() < deadline:
            application = serve.applications().get(name)
            reason = failure(application) if application else None
            if reason is not None:
                raise UserError(reason)
            if application and application["status"] == "RUNNING":
                # Requests go to any replica: as many in a row as there are replicas must agree, twice over.
                agreed = agreed + 1 if _serves(client, url, version) else 0
                if agreed >= 2 * _running_replicas(application):
                    return
            else:
                time.sleep(_POLL_S)
    raise UserError(_too_late(serve, name, url))


def _serves(client: httpx.Client, url: str, version: str) -> bool:
    try:
        answer = client.get(f"{url}/healthz", headers={"Connection": "close"})
        health = answer.json() if answer.status_code == 200 else {}
    except (httpx.HTTPError, ValueError):
        health = {}
    if health.get("version") == version:
        return True
    if health.get("refused"):
        raise UserError(str(health["refused"]))
    time.sleep(_POLL_S)
    return False


def _too_late(serve: Serve, name: str, url: str) -> str:
    application = serve.applications().get(name, {})
    said = [deployment["message"] for deployment in application.get("deployments", {}).values()]
    message = " ".join(" ".join(said).split())
    free = ray.available_resources()
    if application.get("status") == "RUNNING":
        return f"{url} does not answer although it was deployed; look at the logs of Serve's proxy"
    return (
        f"'{name}' was not ready in time ({message or 'no replica has started'}); {free.get('CPU', 0):g} CPUs and "
        f"{free.get('GPU', 0):g} GPUs of the Ray cluster are free: stop other work, lower num_cpus, or allow more time"
    )


def _running_replicas(application: dict[str, Any]) -> int:
    replicas = [r for deployment in application["deployments"].values() for r in deployment["replicas"]]
    running = [replica for replica in replicas if replica["state"] == "RUNNING"]
    return max(1, len(running))


def _summary(name: str, base: str, application: dict[str, Any]) -> dict[str, Any]:
    config = application.get("deployed_app_config") or {}
    user_configs = [d.get("user_config") or {} for d in config.get("deployments", [])]
    settings = {**config.get("args", {}), **(user_configs[0] if user_configs else {})}
    return {
        "name": name,
        "url": base + (application["route_prefix"] or "").rstrip("/"),
        "status": ApplicationStatus(application["status"]).value,
        "model": settings.get("model", ""),
        "version": settings.get("version", ""),
        "replicas": _running_replicas(application) if application["deployments"] else 0,
    }


def _stop(serve: Serve, ray_session: RaySession) -> None:
    serve.shutdown()
    drop_snapshots(keep=())
    if ray_session.head is None:
        clear_head()
    _stop_head(ray_session)


def _stop_head(ray_session: RaySession) -> None:
    if ray_session.head is not None:
        ray.shutdown()
        ray_session.head.stop()


def _drop_unused_snapshots(serve: Serve) -> None:
    configs = serve.configs().values()
    drop_snapshots(
        keep={d.get("user_config", {}).get("version") for config in configs for d in config.get("deployments", [])}
    )


def _reachable(host: str) -> str:
    """The address at which this machine reaches a server that listens on ``host``."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host
