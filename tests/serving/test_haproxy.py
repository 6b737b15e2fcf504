"""The real HAProxy, started as Ray Serve's actor starts it, with processes of the test as the actor and the raylet."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from processes import mentioning, open_to_the_network
from ray.serve._private.haproxy_templates import HAPROXY_CONFIG_TEMPLATE

from raytl.serving import haproxy
from raytl.serving.ingress import environment, haproxy_runs

pytestmark = pytest.mark.skipif(not haproxy_runs(), reason="no HAProxy for this platform")

# What Serve's actor does: start HAProxy, and take no further notice of it.
ACTOR = """
import subprocess, sys, time
subprocess.Popen(sys.argv[1:])
time.sleep(600)
"""
# Sections and lines that Serve's template has.
CONFIG = """global
    log 127.0.0.1:514 local0 info
    stats socket {folder}/admin mode 666 level admin expose-fd listeners
    maxconn 100
    nbthread 1
    server-state-file {folder}/state
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    log global
    errorfile 502 {folder}/500.http
    errorfile 503 {folder}/500.http
    errorfile 504 {folder}/500.http
frontend prometheus
    bind :{metrics}
    mode http
    http-request use-service prometheus-exporter if {{ path /metrics }}
frontend http_frontend
    bind 127.0.0.1:{port}
    # Static use_backend selection below.
    http-request return status 200 content-type text/plain string "fine" if {{ path /fine }}
    use_backend replicas
backend replicas
    timeout server 5s
    server gone 127.0.0.1:1
listen stats
  bind *:{statistics}
  stats enable
  stats uri /stats
"""

NO_ROUTES = "\n".join(line for line in CONFIG.split("\n") if "    use_backend" not in line and "/fine" not in line)


class Node:
    """A raylet and an actor that is made anew as Serve would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        given = environment(folder)
        self.metrics, self.statistics = (int(given[f"RAY_SERVE_HAPROXY_{name}_PORT"]) for name in ("METRICS", "STATS"))
        self._command = given["RAY_SERVE_HAPROXY_BINARY_PATH"]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.config = folder / "node" / "haproxy.cfg"
        self.config.parent.mkdir()
        self.raylet = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        self.actors: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str, config: str = CONFIG) -> subprocess.Popen[bytes]:
        """An actor with its HAProxy, when that answers."""
        (self.config.parent / "500.http").write_text("HTTP/1.1 500 Internal Server Error\r\n\r\n")
        known = {"port": self.port, "metrics": self.metrics, "statistics": self.statistics}
        self.config.write_text(config.format(folder=self.config.parent, **known))
        before = self.haproxy()
        command = [sys.executable, "-c", ACTOR, self._command, "-db", "-f", str(self.config), "-dR", *arguments]
        actor = subprocess.Popen(command, env={**os.environ, "RAY_RAYLET_PID": str(self.raylet.pid)})
        self.actors.append(actor)
        wait_for(lambda: self.haproxy() not in (None, before) and self.answers())
        return actor

    def haproxy(self) -> int | None:
        """Process id of the HAProxy in charge."""
        return haproxy.answering(self.config.parent / "admin")

    def answers(self) -> bool:
        """Whether the port is served."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/fine", trust_env=False, timeout=2).text == "fine"
        except httpx.HTTPError:
            return False

    def processes(self) -> list[str]:
        """HAProxies and guards."""
        return [line for pid, line in mentioning(str(self.config)).items() if pid not in {a.pid for a in self.actors}]


def wait_for(condition: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


@pytest.fixture
def node(tmp_path_factory) -> Iterator[Node]:
    node = Node(Path("/tmp") / tmp_path_factory.mktemp("h").relative_to("/tmp"))
    yield node
    for process in (node.raylet, *node.actors):
        process.kill()
        process.wait()
    wait_for(lambda: node.processes() == [])


def test_serves_template_still_has_what_is_mended():
    for line in (
        "bind :{{ config.metrics_port }}",
        "bind *:{{ config.stats_port }}",
        "mode 666 level admin",
        "log {{ config.log_target }}",
        "errorfile 503 {{ config.error_file_path }}",
    ):
        assert line in HAPROXY_CONFIG_TEMPLATE


class TestMended:
    def test_twice_is_as_once(self, tmp_path):
        config = tmp_path / "haproxy.cfg"
        config.write_text(CONFIG.format(folder=tmp_path, port=1, metrics=2, statistics=3))
        haproxy.mend(config)
        once = config.read_text()
        haproxy.mend(config)
        assert config.read_text() == once
        assert "127.0.0.1:514" not in once and "mode 600" in once

    def test_no_page_and_no_command_for_others(self, node):
        node.start()
        pid = node.haproxy()
        assert pid is not None and open_to_the_network(pid) == []
        assert oct((node.config.parent / "admin").stat().st_mode & 0o777) == "0o600"
        for port, path in ((node.metrics, "/metrics"), (node.statistics, "/stats")):
            assert httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False).status_code == 200

    def test_nobody_there_is_a_503_with_a_sentence(self, node):
        node.start()
        answer = httpx.get(f"http://127.0.0.1:{node.port}/v1/model", trust_env=False)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.headers["content-type"] == "application/problem+json"
        document = answer.json()
        assert document["status"] == 503 and document["detail"] == document["error"]


class TestGuard:
    def test_ends_haproxy_with_the_raylet_and_clears_up(self, node):
        node.start()
        node.raylet.kill()
        wait_for(lambda: not node.answers() and node.processes() == [] and not node.folder.exists(), 5)

    def test_starts_a_killed_haproxy_again_and_has_the_actor_replaced(self, node):
        actor = node.start()
        time.sleep(2.1)  # one that dies at once is not started again
        killed = node.haproxy()
        os.kill(killed, signal.SIGKILL)
        start = time.monotonic()
        wait_for(node.answers)
        assert time.monotonic() - start < 2
        assert node.haproxy() != killed
        assert actor.wait(5) == -signal.SIGKILL
        survivor = node.haproxy()
        node.start()  # as Serve does
        assert node.haproxy() != survivor
        wait_for(lambda: not Path(f"/proc/{survivor}/exe").exists())  # it was taken over, and went

    def test_serves_on_when_the_actor_dies_and_hands_over_without_a_gap(self, node):
        actor = node.start()
        actor.kill()
        actor.wait()
        failures = []
        with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1.5)"]) as clock:
            node.start(config=NO_ROUTES)  # a new actor has heard of nothing yet
            while clock.poll() is None:
                failures += [] if node.answers() else [time.monotonic()]
        assert failures == []

    def test_a_haproxy_that_its_actor_stopped_stays_away(self, node):
        actor = node.start()
        time.sleep(2.1)
        os.kill(node.haproxy(), signal.SIGKILL)
        actor.kill()
        actor.wait()
        wait_for(lambda: node.processes() == [], 5)
        assert not node.answers()

    def test_survives_that_ray_kills_the_actors_group(self, node):
        actor = node.start()
        assert os.getpgid(node.haproxy()) != os.getpgid(actor.pid)

    def test_after_a_reload_only_the_newest_comes_back(self, node):
        node.start()
        time.sleep(2.1)
        old = node.haproxy()
        node.start("-x", str(node.config.parent / "admin"), "-sf", str(old))
        wait_for(lambda: len(node.processes()) == 2)  # the newest and its guard


def test_two_endpoints_get_ports_of_their_own(tmp_path):
    first, second = (environment(tmp_path / name) for name in ("a", "b"))
    ports = [name for name in first if name.endswith("_PORT")]
    assert len(ports) == 5
    assert all(first[name] != second[name] for name in ports)
