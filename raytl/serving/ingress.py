"""The request path: HAProxy straight to the replicas where the platform has it, else through Ray Serve's own proxy.

Serve's proxy is a Python process that every request passes through twice; HAProxy in its place, and the model's HTTP
server on the replica's main event loop, are several times as fast on the same cores. Serve reads the switches from the
environment of each of its processes, so they must be set before the first one starts.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from raytl.core.machine import cores
from raytl.serving import haproxy
from raytl.serving.haproxy.configuration import ENDING_FILE, FOLDER, HOST_FILE
from raytl.serving.ports import free_ports

# What holds wherever Serve runs; serve/haproxy.env says the same to operators.
SWITCHES = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # Throughput mode would have replicas called by gRPC, on a port that unpickles what anybody sends it. Nobody calls
    # them: requests come from HAProxy.
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "0",
    # A replica that goes stays reachable this long. HAProxy knows after a tenth of a second and tries another one after
    # that; Serve's 30 s are for load balancers that have to find out.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
    # A prediction may be asked for twice: where a replica dies with a request, another one answers it. HAProxy can do
    # so with what fits its buffer.
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response response-timeout",
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": "65536",
    # HAProxy's log of requests: nobody listens at the system log's network port, and a request is nobody's business.
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
}
# Serve asks a proxy three times before it starts another one: ten seconds between would be half a minute of silence.
PROXY_CHECKS = {
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    # On a busy machine a proxy's imports take longer than Serve's 5 s, after which it would be killed and begin again.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
}

LOOPBACK = "127.0.0.1"
EVERYWHERE = ("0.0.0.0", "::")
_REPLICA_PORTS = 100
_COMMAND = "haproxy"
_REMEMBERED = "raytl-haproxy"


def haproxy_runs() -> bool:
    """Whether there is an HAProxy that runs on this machine: ``ray[serve]`` brings one on Linux with glibc."""
    if sys.platform != "linux":
        return False
    try:
        return subprocess.run([haproxy.find_binary(), "-v"], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def environment(folder: Path) -> dict[str, str]:
    """The environment that gives Serve's processes HAProxy, with files and ports that no other endpoint uses.

    folder: for HAProxy's files; of this user alone, and with a short path, for a socket lies in it.
    Where HAProxy does not run the switches are missing, and Serve takes its own proxy.
    """
    if not haproxy_runs():
        return dict(PROXY_CHECKS)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    command = folder / _COMMAND
    start = [sys.executable, "-I", "-S", str(Path(haproxy.__file__).with_name("__main__.py"))]
    known = {"RAYTL_HAPROXY": haproxy.find_binary(), FOLDER: str(folder)}
    given = " ".join(f"{name}={shlex.quote(value)}" for name, value in known.items())
    command.write_text(f'#!/bin/sh\n{given} exec {shlex.join(start)} "$@"\n')
    command.chmod(0o700)
    # Of its own, lest another endpoint's replica is found where one of ours was.
    metrics, statistics, fallback, first, *_, last = map(str, free_ports(3 + _REPLICA_PORTS))
    return {
        **SWITCHES,
        **PROXY_CHECKS,
        FOLDER: str(folder),
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(command),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        # Serve puts the node's id, 57 characters, before the name, and HAProxy takes 97 in all.
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "a"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": metrics,
        "RAY_SERVE_HAPROXY_STATS_PORT": statistics,
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": fallback,
        "RAY_SERVE_HAPROXY_NBTHREAD": str(min(4, cores())),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": first,
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": last,
    }


def environment_of_session(session: Path) -> dict[str, str]:
    """The same for a Ray session that was started without it, on its head node; {} where somebody has chosen.

    session: its directory, whose path is too long for HAProxy's socket: it remembers a folder with a shorter one.
    """
    if SWITCHES.keys() & os.environ.keys():
        return {}
    folder = tempfile.mkdtemp(prefix="raytl-", dir="/tmp")
    (session / _REMEMBERED).write_text(folder)
    return environment(Path(folder))


def host_for_serve(host: str, given: Mapping[str, str], *, grows: bool) -> str | None:
    """What Serve is to be told to listen on, on this node, where the endpoint is to be at ``host``; None if it cannot.

    Behind HAProxy that is loopback: there HAProxy looks for this node's replicas, and nobody else is to reach them, or
    the spare proxy, past it. HAProxy itself listens at ``host``, which stands in a file of its folder.

    given: the environment of Serve's processes. grows: whether there may be other nodes some day, whose replicas
        HAProxy reaches only where they listen on all interfaces.
    """
    if given.get("RAY_SERVE_ENABLE_HA_PROXY") != "1":
        return host
    folder = given.get(FOLDER, "")
    ours = bool(folder) and given.get("RAY_SERVE_HAPROXY_BINARY_PATH") == str(Path(folder) / _COMMAND)
    if ours:  # of an earlier Serve, perhaps
        (Path(folder) / HOST_FILE).unlink(missing_ok=True)
    if host in (LOOPBACK, "localhost") or (host in EVERYWHERE and (grows or not ours)):
        return host
    if not ours:
        return None
    (Path(folder) / HOST_FILE).write_text(host)
    return LOOPBACK


def announce_end(session: Path) -> None:
    """Let HAProxy's guard on this node know that it is not to start it again: Serve is about to end it.

    session: the Ray session's directory.
    """
    with suppress(OSError):  # there is no HAProxy, or no room: the guard then finds out by itself
        folder = os.environ.get(FOLDER) or (session / _REMEMBERED).read_text()
        (Path(folder) / ENDING_FILE).touch()


def call_off_end(session: Path) -> None:
    """Take :func:`announce_end` back: Serve goes on."""
    with suppress(OSError):
        folder = os.environ.get(FOLDER) or (session / _REMEMBERED).read_text()
        (Path(folder) / ENDING_FILE).unlink(missing_ok=True)


def clear_session(session: Path) -> None:
    """Remove what :func:`environment_of_session` left. For when Serve has stopped."""
    with suppress(FileNotFoundError):
        shutil.rmtree((session / _REMEMBERED).read_text(), ignore_errors=True)
        (session / _REMEMBERED).unlink()
