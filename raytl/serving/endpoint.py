"""Start, update and take down an endpoint.

Deployment is declarative: Serve gets the state that is wanted and moves there, so that a new model is swapped in
between two requests. ``serve.run`` would restart the replicas each time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
from ray.serve.schema import ApplicationStatus

from raytl.core.errors import UserError
from raytl.serving import tokens
from raytl.serving.applying import (
    drop_unused_snapshots,
    put,
    reachable,
    refuse_other_labels,
    settings_of,
    stop_head,
    stop_if_last,
    stop_unused,
    undoing,
    url_of,
    versioned,
    with_settings,
)
from raytl.serving.controller import AppConfig, PortTakenError, Serve, clear_head, head_environment
from raytl.serving.ingress import LOOPBACK, SWITCHES, haproxy_runs
from raytl.serving.lineage import succeeded
from raytl.serving.named import route_for
from raytl.serving.ports import free_port_or_refuse
from raytl.serving.ray_session import OtherVersionsError, RaySession, head_is_wanted, session
from raytl.serving.room import READY_S, Need, Patience, running_replicas
from raytl.serving.settings import AUTOSCALING, CPUS, DEPLOYMENT, IMPORT_PATH, ServingSettings, bundle_version
from raytl.serving.snapshots import snapshot
from raytl.serving.trial_judge import stop_judge

PORT = 8000
_TRIES = 3
_SLOW = (
    "requests go through Ray Serve's own proxy, several times slower than HAProxy, which comes with ray[serve] on "
    "Linux, and on a cluster of several nodes, or one that grows, needs --host 0.0.0.0"
)


@dataclass(frozen=True)
class Endpoint:
    """A served bundle.

    url: without a trailing slash; ``POST {url}/v1/predict``. version: of the bundle that answers. candidate: of the one
        on trial, "" where there is none. token_file: has the bearer token that requests must bring, "" without one.
    detached: whether the endpoint outlives this process. notice: what its operator should know, a sentence or nothing.
    """

    url: str
    name: str
    version: str
    detached: bool
    notice: str = ""
    candidate: str = ""
    token_file: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def deploy(
    bundle_path: str | Path,
    *,
    name: str = "raytl",
    port: int | None = None,
    host: str | None = None,
    route_prefix: str | None = None,
    min_replicas: int | None = None,
    max_replicas: int | None = None,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    new_labels: bool = False,
    token: bool = False,
    allow_hosts: Sequence[str] | None = None,
    capture: str | Path | None = None,
    capture_limit: int | None = None,
    wait_s: float = READY_S,
    room_s: float | None = None,
    notice: Callable[[str], None] | None = None,
) -> Endpoint:
    """Serve a bundle, or put it in the place of the one that is served under ``name``, without dropping a request.

    Inside a Ray session of this process the endpoint lives as long as that session. Otherwise it goes to the cluster
    that ``RAY_ADDRESS`` names, or to a local Ray head that keeps running until :func:`undeploy`.

    What is left out (None) stays as it is where a model is served under that name; else it is loopback, port 8000, one
    to two replicas of one CPU, no capture. A bound of the autoscaling that is left out follows one that is given.

    name: of the model. The first one on an endpoint is its default, at ``/v1/predict``; others answer at
        ``/v1/models/NAME/predict``, and at a ``route_prefix`` of their own instead where one is given.
    port, host: where to listen, for all models of the endpoint alike. min_replicas, max_replicas: bounds of the
        autoscaling. num_cpus, num_gpus: of one replica. wait_s: how long to wait until the bundle answers, seconds.
    room_s: how long, before that, for a node with room for a replica, which Ray's autoscaler may have to add first,
        seconds; None for 15 minutes where there is an autoscaler, else for ``wait_s``, anew with each node
        that comes. notice: hears, in a sentence, that this is waited for.
    new_labels: replace a model with other labels too, which the endpoint's callers may not know.
    token: requests must bring a bearer token; where an endpoint begins off loopback they must in any case.
    allow_hosts: names by which an endpoint without a token may be asked, and whose pages may ask it, beside addresses
        and those of loopback; "*" is any.
    capture: folder, on every node, for the images that the model is least certain of, at most ``capture_limit`` (1,000)
        for each replica; their owners should know. "" ends it.
    Raises UserError where the bundle cannot be loaded (what was served before goes on being served), its labels are
    others, the port is taken, no node of the cluster has room in time, or the endpoint does not answer in time.
    """
    # Imported late: torch and the bundle's code take seconds, which `undeploy` and `status` need not wait for.
    from raytl.serving.live import load

    path = Path(bundle_path).resolve()
    version = bundle_version(path)
    model = load(ServingSettings(bundle=str(path), version=version))
    if head_is_wanted():
        free_port_or_refuse(host or LOOPBACK, port or PORT)  # said before the seconds that a head takes
    asked = Need(CPUS if num_cpus is None else num_cpus, num_gpus or 0.0)
    with _listening(host, port, asked) as (serve, ray_session, slow):
        previous = serve.configs()
        taken = {other: config.get("route_prefix") or "/" for other, config in previous.items()}
        route = route_for(name, route_prefix, taken)
        before = previous.get(name)
        if before is not None and not new_labels:
            refuse_other_labels(before, url_of(serve, before), model.labels)
        kept = {} if before is None else versioned(serve, before)
        first, *others = (before or {}).get("deployments") or [{"name": DEPLOYMENT}]
        deployment = _resourced(_scaled(first, min_replicas, max_replicas), num_cpus=num_cpus, num_gpus=num_gpus)
        need = Need.of({"deployments": [deployment]})
        settings = succeeded(kept, str(snapshot(path, version, need)), version, model.name)
        if token or (before is None and not tokens.is_loopback(serve.host)):
            settings["token_sha256"] = tokens.token_hash(name, kept.get("token_sha256", ""))
        if capture is not None:
            settings["capture"] = str(_writable(Path(capture))) if str(capture) else ""
        if capture_limit is not None:
            settings["capture_limit"] = capture_limit
        if allow_hosts is not None:
            settings["hosts"] = list(allow_hosts)
        application = {
            "import_path": IMPORT_PATH,
            **(before or {}),
            "name": name,
            "route_prefix": route,
            "deployments": [{**deployment, "user_config": settings}, *others],
        }
        put(serve, ray_session, application, before, Patience(wait_s, room_s, notice))
        _end_trial(before)
        return endpoint_of(serve, application, ray_session, slow)


def served(name: str = "raytl") -> Endpoint | None:
    """The endpoint that is there under ``name``; None where nothing is served."""
    with session(start=False) as ray_session:
        serve = Serve.running() if ray_session is not None else None
        config = serve.configs().get(name) if serve is not None else None
        return None if ray_session is None or serve is None or not config else endpoint_of(serve, config, ray_session)


def update(
    bundle_path: str | Path,
    *,
    name: str = "raytl",
    new_labels: bool = False,
    wait_s: float = READY_S,
    notice: Callable[[str], None] | None = None,
) -> Endpoint | None:
    """Put a bundle in the place of the one that is served under ``name``, without dropping a request.

    Where it listens, how it scales and what it may use stay as they are. notice: as of :func:`deploy`. Returns None
    where there is no such endpoint. Raises UserError where it names other labels, unless ``new_labels``, or does not
    come up: what was served before goes on being served.
    """
    from raytl.serving.live import load

    path = Path(bundle_path).resolve()
    version = bundle_version(path)
    model = load(ServingSettings(bundle=str(path), version=version))
    with session(start=False) as ray_session:
        serve = Serve.running() if ray_session is not None else None
        before = serve.configs().get(name) if serve is not None else None
        if ray_session is None or serve is None or before is None:
            return None
        if not new_labels:
            refuse_other_labels(before, url_of(serve, before), model.labels)
        copy = str(snapshot(path, version, Need.of(before)))
        application = with_settings(before, succeeded(versioned(serve, before), copy, version, model.name))
        put(serve, ray_session, application, before, Patience(wait_s, notice=notice))
        _end_trial(before)
        return endpoint_of(serve, application, ray_session)


def endpoint_of(serve: Serve, config: AppConfig, ray_session: RaySession, notice: str = "") -> Endpoint:
    """What there is to say of an application."""
    settings, name = settings_of(config), str(config["name"])
    return Endpoint(
        url=url_of(serve, config),
        name=name,
        version=str(settings.get("version", "")),
        detached=ray_session.detached,
        notice=notice,
        candidate=str((settings.get("candidate") or {}).get("version", "")),
        token_file=str(tokens.token_file(name)) if settings.get("token_sha256") else "",
    )


def undeploy(name: str = "raytl") -> bool:
    """Take an endpoint down; with the last one, Serve stops too, and the local Ray head if a deployment started one.

    A local head of another version of Ray or Python cannot be asked what it serves: it is stopped with all of that, but
    not for one named model of several. Returns whether there was such an endpoint. Raises UserError in that case.
    """
    try:
        return _undeploy(name)
    except OtherVersionsError as other:
        if name != "raytl":
            raise
        other.head.stop()  # with its folder, where the copies of the bundles are
        return True


def _undeploy(name: str) -> bool:
    with session(start=False) as ray_session:
        serve = Serve.running() if ray_session is not None else None
        if ray_session is None:
            return False
        if serve is None or name not in serve.applications():
            stop_unused(serve, ray_session)  # what a command left that was ended before it served anything
            return False
        config = serve.configs().get(name)
        _end_trial(config)
        serve.remove(name)
        if config is not None:
            tokens.drop_token(name, settings_of(config).get("token_sha256", ""))
        if not stop_if_last(serve, ray_session, name):
            drop_unused_snapshots(serve)
        return True


def status() -> list[dict[str, Any]]:
    """What is served: per application its name, url, status, model version and number of running replicas."""
    with session(start=False) as ray_session:
        serve = Serve.running() if ray_session is not None else None
        if serve is None:
            return []
        base = f"http://{reachable(serve.host)}:{serve.port}"
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


def _scaled(deployment: Mapping[str, Any], min_replicas: int | None, max_replicas: int | None) -> dict[str, Any]:
    """A deployment with the bounds wanted; what is not said stays as it is, as far as it goes with what is."""
    if isinstance(deployment.get("num_replicas"), int) and min_replicas is None and max_replicas is None:
        return dict(deployment)
    known = deployment.get("autoscaling_config") or {}
    scale = {**AUTOSCALING, **known}
    low, high = scale["min_replicas"], scale["max_replicas"]
    if min_replicas is not None:
        low = min_replicas
    if max_replicas is not None:
        high = max_replicas
    if low > high and min_replicas is not None and max_replicas is not None:
        raise UserError(f"--min-replicas {low} is more than --max-replicas {high}; give one that is not")
    if low > high:  # one of them was not said
        follows_low = max_replicas is None and (min_replicas is not None or "max_replicas" not in known)
        low, high = (low, low) if follows_low else (high, high)
    scale |= {"min_replicas": low, "max_replicas": high}
    if not low <= (scale.get("initial_replicas") or low) <= high:
        del scale["initial_replicas"]
    kept = {name: value for name, value in deployment.items() if name != "num_replicas"}
    return {**kept, "autoscaling_config": scale}


def _resourced(deployment: Mapping[str, Any], **wanted: float | None) -> dict[str, Any]:
    """A deployment with what a replica is to have; what is not said stays as it is."""
    said = {name: value for name, value in wanted.items() if value is not None}
    known = deployment.get("ray_actor_options") or {}
    return {**deployment, "ray_actor_options": {"num_cpus": CPUS, "num_gpus": 0.0, **known, **said}}


def _serve_at(host: str | None, port: int | None, need: Need, ray_session: RaySession) -> tuple[Serve, str]:
    """Serve as it listens already, where nothing else is wanted, or started. Raises UserError where it cannot be.

    need: of each replica that is about to be asked for.
    """
    serve = Serve.running()
    host, port = host or (serve.host if serve else LOOPBACK), port or (serve.port if serve else PORT)
    if serve is None:
        free_port_or_refuse(host, port)
        if ray_session.head is not None:  # was started with all that Serve needs
            fast, more = haproxy_runs(), {}
        else:
            more = head_environment(host, need)
            fast = not more or SWITCHES.keys() <= more.keys()
        try:
            grows = ray_session.head is None  # nobody can join a head on loopback
            return Serve.start(host, port, more, grows=grows), "" if fast else _SLOW
        except UserError:
            if more:
                clear_head()
            raise
    if (serve.host, serve.port) != (host, port):
        raise UserError(
            f"Serve already listens on {serve.host}:{serve.port} in this Ray cluster and cannot move; "
            f"leave --host and --port out (--port {serve.port} is its own), or take down what it serves first"
        )
    return serve, ""


@contextmanager
def _listening(host: str | None, port: int | None, need: Need) -> Iterator[tuple[Serve, RaySession, str]]:
    """Serve, the connection to its cluster, and what its operator should know. What an error finds unused is ended.

    Where the ports that were chosen for it are taken meanwhile, others are chosen. Raises UserError like _serve_at.
    """
    for left in reversed(range(_TRIES)):
        with ExitStack() as stack:
            try:
                with ExitStack() as starting:
                    ray_session = starting.enter_context(session(start=True))
                    assert ray_session is not None  # start=True
                    starting.enter_context(_nothing_left_in_vain(ray_session))
                    serve, notice = _serve_at(host, port, need, ray_session)
                    stack.enter_context(starting.pop_all())
            except PortTakenError:
                if not left:
                    raise
                continue
            yield serve, ray_session, notice
            return


@contextmanager
def _nothing_left_in_vain(ray_session: RaySession) -> Iterator[None]:
    """Where an error or Ctrl-C ends the command that started Serve, leave none that serves nothing, and no head."""
    began = Serve.running() is None
    try:
        yield
    except BaseException as error:
        if began and ray.is_initialized():  # else it is all gone already
            with undoing(error):
                serve = Serve.running()
                if serve is None:
                    stop_head(ray_session)
                else:
                    stop_if_last(serve, ray_session, "")
        raise


def _end_trial(config: Mapping[str, Any] | None) -> None:
    """Have nobody judge what is on trial, where it is replaced or taken down."""
    candidate = {} if config is None else settings_of(dict(config)).get("candidate") or {}
    if candidate:
        stop_judge(candidate["trial"])


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
        "replicas": running_replicas(application),
    }
