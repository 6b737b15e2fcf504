"""The running Serve instance: all that touches Ray Serve's inner API."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ray
from ray import serve
from ray._common.constants import HEAD_NODE_RESOURCE_NAME
from ray.exceptions import ActorAlreadyExistsError, RayActorError, RayError
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_LOGGER_NAME, SERVE_NAMESPACE
from ray.serve.context import _disconnect, _get_global_client
from ray.serve.schema import ApplicationStatus, ServeDeploySchema

from raytl.core.errors import UserError
from raytl.serving.ingress import (
    EVERYWHERE,
    LOOPBACK,
    PROXY_CHECKS,
    announce_end,
    call_off_end,
    clear_session,
    environment_of_session,
    host_for_serve,
)
from raytl.serving.named import Entry, entry
from raytl.serving.ports import free_port_or_refuse, port_taken
from raytl.serving.ray_session import NAMESPACE
from raytl.serving.room import Need, nodes_come_later

_REQUEST_BACKSTOP_S = 120.0
_STOP_S = 60.0
_TURN_S = 60.0
_RELEASE_S = 5.0  # for HAProxy to end after Serve
_ANNOUNCE_S = 60.0  # for a process of the head to leave a file: on a busy machine one takes long to start
_CANNOT_LISTEN = ("Failed to bind", "cannot bind socket")  # Serve's own proxy, and HAProxy

AppConfig = dict[str, Any]


class PortTakenError(UserError):
    """Another program took one of the ports that Serve had chosen, between the choice and its start."""


class Serve:
    """The Serve instance of the connected cluster."""

    def __init__(self, client: Any) -> None:
        self._client = client

    # The Ray session whose controller Serve has a handle of.
    _known_in = ""

    @classmethod
    def running(cls) -> Serve | None:
        """The instance that runs, or None."""
        session_name = ray.get_runtime_context().get_session_name()
        if session_name != Serve._known_in:
            # Serve tells sessions apart by the driver's job, and the first job of every cluster has the same number.
            _disconnect()
            Serve._known_in = session_name
        client = _get_global_client(raise_if_no_controller_running=False)
        return None if client is None else cls(client)

    @classmethod
    def start(cls, host: str, port: int, environment: Mapping[str, str], *, grows: bool = True) -> Serve:
        """Start an instance whose HTTP proxy, on the head node, listens there.

        environment: of its processes, in addition to that in which Ray was started. grows: whether the cluster may.
        Raises UserError where its proxy cannot listen, PortTakenError where other ports may do. Nothing of it is left.
        """
        told = _host_for_serve(host, environment, grows=grows)
        try:
            if environment:
                # What a task starts inherits the task's environment, on whatever node it runs, and what that starts.
                start = ray.remote(num_cpus=0, runtime_env={"env_vars": dict(environment)})(_start)
                ray.get(start.options(**_on_head()).remote(told, host, port))
            else:
                _start(told, host, port)
        except RayError as error:
            # A proxy that cannot listen says so, until Serve ends it: who asks later only hears of its end.
            proxy_ended = isinstance(error, RayActorError)
            if not proxy_ended and not any(words in str(error) for words in _CANNOT_LISTEN):
                raise
            half = cls.running()
            if half is not None:
                half._stop(host, port, patience_s=_RELEASE_S)
            free_port_or_refuse(host, port)
            taken = "another program took a port that Serve needs"
            if proxy_ended:
                raise PortTakenError(
                    f"Serve's proxy ended while Serve started, perhaps because {taken}: try again"
                ) from None
            raise PortTakenError(f"{taken} while Serve started: try again") from None
        return cls(_get_global_client())

    @property
    def host(self) -> str:
        """Interface that the endpoint listens on: Serve's own, or HAProxy's in its place (:func:`_start`)."""
        known = self._client.http_config
        elsewhere = urlsplit(known.root_url)
        moved = known.host == LOOPBACK and elsewhere.hostname and elsewhere.port == known.port
        return str(elsewhere.hostname if moved else known.host)

    @property
    def port(self) -> int:
        """Port that the proxy listens on."""
        return int(self._client.http_config.port)

    def applications(self) -> dict[str, dict[str, Any]]:
        """Every application by name, in the form of Serve's ApplicationDetails.

        Raises UserError where Serve is no longer there.
        """
        try:
            applications: dict[str, dict[str, Any]] = self._client.get_serve_details()["applications"]
        except RayActorError:
            raise UserError("another command has just taken down all that is served: try again") from None
        return applications

    def configs(self) -> dict[str, AppConfig]:
        """The configuration of every application that was deployed declaratively."""
        deployed = {name: app.get("deployed_app_config") for name, app in self.applications().items()}
        return {name: config for name, config in deployed.items() if config}

    def change(self, edit: Callable[[dict[str, AppConfig]], Mapping[str, AppConfig] | None]) -> None:
        """Make the declaratively deployed applications what ``edit`` makes of the present ones, and no others.

        Serve takes all of them at once, and would forget what another command deployed since they were read: so one
        changes them at a time. edit: returns None to leave them as they are; may raise. Returns before they are there.
        Raises UserError where others do not come to an end, or one of them has taken Serve down.
        """
        with _alone():
            after = edit(self.configs())
            if after is not None:
                schema = ServeDeploySchema.model_validate({"applications": list(after.values())})
                self._client.deploy_apps(schema)

    def remove(self, name: str) -> None:
        """Take an application down and wait until it is gone."""
        self.change(lambda present: {other: config for other, config in present.items() if other != name})
        deadline = time.monotonic() + _STOP_S
        while name in self.applications():
            if time.monotonic() > deadline:
                raise UserError(f"application '{name}' did not stop within {_STOP_S:g} s; look at 'serve status'")
            time.sleep(0.1)

    def shutdown(self) -> None:
        """Stop Serve with everything it runs, and wait until its port is free."""
        self._stop(self.host, self.port, patience_s=_STOP_S)

    def _stop(self, host: str, port: int, patience_s: float) -> None:
        """patience_s: how long the port may take, once Serve has ended; another program may have it."""
        self._client.shutdown_cached_handles()
        announced = ray.remote(num_cpus=0)(_announce).options(**_on_head()).remote()
        try:
            ray.get(announced, timeout=_ANNOUNCE_S)
        except RayError:  # as when the head has no room for a task: Serve ends all the same, later perhaps
            ray.cancel(announced)  # or it would be announced to the next one
        try:
            # As serve.shutdown() does, but without waiting inside the controller: its end would then be reported as the
            # failure of a task, on the standard output of this process.
            ray.get(self._client._controller.graceful_shutdown.remote(wait=False))
        except BaseException:  # Ctrl-C too
            with suppress(RayError):
                ray.get(ray.remote(num_cpus=0)(_call_off).options(**_on_head()).remote(), timeout=_RELEASE_S)
            raise
        _wait(lambda: not _controller_lives(), _STOP_S)
        _wait(lambda: not port_taken(host, port), patience_s)
        _disconnect()


def directory() -> list[Entry]:
    """What is served beside one another, by name, as the replicas of any of it can see."""
    serve = Serve.running()
    found = []
    for name, application in sorted((serve.applications() if serve is not None else {}).items()):
        config = application.get("deployed_app_config") or {}
        told = [deployment.get("user_config") or {} for deployment in config.get("deployments") or ()]
        settings = {**(config.get("args") or {}), **(told[0] if told else {})}
        status = ApplicationStatus(application["status"]).value
        found.append(entry(name, application["route_prefix"] or "/", settings, status))
    return found


def head_environment(host: str, need: Need) -> dict[str, str]:
    """What Serve needs in its environment, beyond what Ray was started with, for the fast way to a server on ``host``.

    HAProxy reaches the replicas of other machines only where they listen on all interfaces. need: of each replica; its
    machine may be one that is still to come.
    """
    machines = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    if host not in EVERYWHERE and (len(machines) > 1 or nodes_come_later(need)):
        return dict(PROXY_CHECKS)
    environment: dict[str, str] = ray.get(ray.remote(num_cpus=0)(_prepare).options(**_on_head()).remote())
    return environment


def _host_for_serve(host: str, environment: Mapping[str, str], *, grows: bool) -> str:
    """See :func:`raytl.serving.ingress.host_for_serve`. Raises UserError where the endpoint cannot be at ``host``."""
    asked = ray.remote(num_cpus=0)(_ask_host).options(**_on_head()).remote(host, dict(environment), grows)
    told: str | None = ray.get(asked)
    if told is None:
        raise UserError(
            f"HAProxy of this cluster finds replicas at 127.0.0.1 or on all interfaces, and not at {host}: give --host "
            "127.0.0.1 or 0.0.0.0"
        )
    return told


def _ask_host(host: str, environment: Mapping[str, str], grows: bool) -> str | None:
    return host_for_serve(host, {**os.environ, **environment}, grows=grows)


def clear_head() -> None:
    """Remove what :func:`head_environment` left on the head node."""
    ray.get(ray.remote(num_cpus=0)(_clear).options(**_on_head()).remote())


def _prepare() -> dict[str, str]:
    return environment_of_session(_session_folder())


def _clear() -> None:
    clear_session(_session_folder())


def _announce() -> None:
    announce_end(_session_folder())


def _call_off() -> None:
    call_off_end(_session_folder())


def _session_folder() -> Path:
    return Path(ray._private.worker.global_worker.node.get_session_dir_path())


def _on_head() -> dict[str, Any]:
    """Options of a task that runs on the head node."""
    return {"resources": {HEAD_NODE_RESOURCE_NAME: 0.001}}


def _start(told: str, host: str, port: int) -> None:
    """told: what Serve itself listens on, see :func:`raytl.serving.ingress.host_for_serve`. It remembers ``host``."""
    options = {"host": told, "port": port, "request_timeout_s": _REQUEST_BACKSTOP_S}
    if told != host:
        options["root_url"] = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    with _quiet_serve():
        serve.start(proxy_location="HeadOnly", http_options=options)


class _Changing:
    """Nothing but a name in the cluster: whoever got it made changes what is served."""


@contextmanager
def _alone() -> Iterator[None]:
    """Be the only one in the cluster who changes what is served.

    A name can be had once, and goes with the process that has it, whatever ends that.
    """
    deadline = time.monotonic() + _TURN_S
    # On the head: it goes only where all goes.
    options = {"name": "raytl-changing", "namespace": NAMESPACE, "num_cpus": 0, **_on_head()}
    while True:
        try:
            name = ray.remote(_Changing).options(**options).remote()
            break
        except ActorAlreadyExistsError:
            if time.monotonic() > deadline:
                raise UserError(
                    f"another command has been changing what is served for {_TURN_S:g} s: try again when it is done"
                ) from None
            time.sleep(0.02)
    try:
        yield
    finally:
        # Without a connection the name is free by itself. Ray would start a cluster here in order to be asked, and its
        # error would stand in place of why the connection is gone.
        if ray.is_initialized():
            with suppress(RayError):
                ray.kill(name)


def _wait(done: Callable[[], bool], patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while not done() and time.monotonic() < deadline:
        time.sleep(0.05)


def _controller_lives() -> bool:
    try:
        ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
    except ValueError:
        return False
    return True


@contextmanager
def _quiet_serve() -> Iterator[None]:
    """Keep Serve from telling on standard error that it does what it was asked to do."""
    logger = logging.getLogger(SERVE_LOGGER_NAME)
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)
