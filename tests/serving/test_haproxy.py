"""The real HAProxy, started as Ray Serve's actor starts it, with processes of the test as the actor and the raylet."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from processes import listens_at, mentioning, open_to_the_network
from ray.serve._private.constants import (
    SERVE_HTTP_REQUEST_DISCONNECT_DISABLED_HEADER,
    SERVE_HTTP_REQUEST_TIMEOUT_S_HEADER,
)
from ray.serve._private.haproxy_templates import HAPROXY_CONFIG_TEMPLATE

from raytl.serving.applying import reachable
from raytl.serving.haproxy import _take_over
from raytl.serving.haproxy.configuration import HOST_FILE, Files
from raytl.serving.haproxy.guard import _SHUTDOWN_S, Guard, Process, answering
from raytl.serving.ingress import EVERYWHERE, announce_end, environment, haproxy_runs, host_for_serve
from raytl.serving.ports import free_port, port_taken

pytestmark = pytest.mark.skipif(not haproxy_runs(), reason="no HAProxy for this platform")

BEFORE_ORPHANS_GO_S = 40.0
"""One that was left alone ends by itself in a minute."""

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
    acl routes path -i /-/routes
    http-request return status 200 content-type application/json string "{{}}" if routes
    use_backend replicas if {{ path_beg /v1/models/cells }}
    default_backend default_backend
backend default_backend
    http-request return status 404 content-type text/plain lf-string "Path \'%[path]\' not found."
backend replicas
    timeout server 60s
    server gone 127.0.0.1:1 check inter 100ms
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
        self.port = free_port()
        self.host = "127.0.0.1"
        self.config = folder / "node" / "haproxy.cfg"
        self.config.parent.mkdir()
        self.raylet = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        self.actors: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str, config: str = CONFIG, patience_s: float = 60) -> subprocess.Popen[bytes]:
        """An actor with its HAProxy, when that answers."""
        (self.config.parent / "500.http").write_text("HTTP/1.1 500 Internal Server Error\r\n\r\n")
        known = {"port": self.port, "metrics": self.metrics, "statistics": self.statistics}
        self.config.write_text(config.format(folder=self.config.parent, **known))
        before = self.haproxy()
        command = [sys.executable, "-c", ACTOR, self._command, "-db", "-f", str(self.config), "-dR", *arguments]
        actor = subprocess.Popen(command, env={**os.environ, "RAY_RAYLET_PID": str(self.raylet.pid)})
        self.actors.append(actor)
        wait_for(lambda: self.haproxy() not in (None, before) and self.answers(), patience_s)
        return actor

    def haproxy(self) -> int | None:
        """Process id of the HAProxy in charge."""
        return answering(self.config.parent / "admin")

    def in_charge(self) -> int:
        """The same, once there is one that answers."""
        deadline = time.monotonic() + 60
        while (pid := self.haproxy()) is None:
            assert time.monotonic() < deadline, "no HAProxy answers"
            time.sleep(0.02)
        return pid

    def kill(self) -> None:
        """End the HAProxy in charge, and wait until it has let go of what it had open."""
        killed = Process(self.in_charge())
        killed.kill()
        wait_for(lambda: not killed.alive())

    def answers(self) -> bool:
        """Whether the port is served."""
        try:
            return httpx.get(f"http://{self.host}:{self.port}/fine", trust_env=False, timeout=20).text == "fine"
        except httpx.HTTPError:
            return False

    def ask(self, path: str, **options: bytes) -> httpx.Response:
        """What the endpoint says; options: with ``content`` it is a POST."""
        url = f"http://{self.host}:{self.port}{path}"
        return httpx.request("POST" if options else "GET", url, trust_env=False, timeout=60, **options)

    def holders(self) -> list[int]:
        """HAProxies and guards that have the port open."""
        return [pid for pid in mentioning(str(self.config)) if listens_at(pid, self.port)]

    def processes(self) -> list[str]:
        """HAProxies and guards."""
        return [line for pid, line in mentioning(str(self.config)).items() if pid not in {a.pid for a in self.actors}]


def is_problem(answer: httpx.Response, status: int, sentence: str) -> None:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    document = answer.json()
    assert document["status"] == status and document["detail"] == document["error"] and sentence in document["error"]


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


@contextmanager
def replica(answer: bytes | None) -> Iterator[int]:
    """The port of one that answers so, when it has a body, or hangs up at the first byte."""

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:  # it was closed
                return
            with client, suppress(ConnectionResetError):  # HAProxy only looked whether it is there
                got = client.recv(65536)
                while answer is not None and got and b"body" not in got:
                    got += client.recv(65536)
                if answer is not None and got:
                    client.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


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
        'backend default_backend\n    http-request return status 404 content-type text/plain lf-string "Path',
        "    use_backend {{ backend.name or 'unknown' }} if is_",
        "    acl routes path -i /-/routes\n",
        "frontend http_frontend\n    bind {{ config.frontend_host }}:{{ config.frontend_port }}\n",
        "\n    server {{ server.name }} {{ server.host }}:{{ server.port }} check",
        ":{{ backend.fallback_server.port }} check backup\n",
    ):
        assert line in HAPROXY_CONFIG_TEMPLATE


class TestMended:
    def test_twice_is_as_once(self, tmp_path):
        config = tmp_path / "haproxy.cfg"
        config.write_text(CONFIG.format(folder=tmp_path, port=1, metrics=2, statistics=3))
        files = Files(config)
        assert files.address() == ("127.0.0.1", 1)
        files.mend(inherited=True)
        once = config.read_text()
        files.mend(inherited=True)
        assert config.read_text() == once
        assert "127.0.0.1:514" not in once and "mode 600" in once
        assert [line.split()[2] for line in once.splitlines() if "set-header" in line] == [
            SERVE_HTTP_REQUEST_DISCONNECT_DISABLED_HEADER,
            SERVE_HTTP_REQUEST_TIMEOUT_S_HEADER,
        ]

    def test_an_actor_hears_of_applications_after_its_first_haproxy_however_long_it_took_to_come_up(
        self, tmp_path, monkeypatch
    ):
        monkeypatch.setattr("raytl.serving.haproxy.configuration._NEW_ACTOR_S", 2000.0)
        config, folder = tmp_path / "haproxy.cfg", {"folder": tmp_path, "port": 1, "metrics": 2, "statistics": 3}
        config.write_text(CONFIG.format(**folder))
        files, actor = Files(config), 1  # which is older than any actor that is new
        files.mend(inherited=True)
        for seconds, kept in ((0, True), (1000, True), (3000, False)):
            config.write_text(NO_ROUTES.format(**folder))
            files.mend(inherited=True)
            if seconds:
                os.utime(tmp_path / "manager", (time.time() - seconds,) * 2)
            files.keep_routes(actor)
            assert ("    use_backend" in config.read_text()) is kept
        files.keep_routes(os.getpid())  # the next one
        assert "    use_backend" in config.read_text()

    def test_no_page_and_no_command_for_others(self, node):
        node.start()
        assert open_to_the_network(node.in_charge()) == []
        assert oct((node.config.parent / "admin").stat().st_mode & 0o777) == "0o600"
        for port, path in ((node.metrics, "/metrics"), (node.statistics, "/stats")):
            assert httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False, timeout=60).status_code == 200

    def test_a_request_is_passed_on_as_a_whole_so_that_another_replica_can_have_it(self, node):
        with replica(None) as dying, replica(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine") as living:
            servers = f"    server dying 127.0.0.1:{dying}\n    server living 127.0.0.1:{living}\n"
            retried = "    retry-on conn-failure empty-response\n    option redispatch 1\n"
            node.start(config=CONFIG.replace("    server gone 127.0.0.1:1 check inter 100ms\n", retried + servers))
            for _ in range(2):  # in turns: one of them goes to the dying one first
                with socket.create_connection(("127.0.0.1", node.port), timeout=30) as client:
                    client.sendall(b"POST /v1/models/cells HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n")
                    time.sleep(0.2)
                    client.sendall(b"body")
                    assert client.recv(1000).endswith(b"mine")

    def test_nobody_there_is_a_503_with_a_sentence(self, node):
        node.start()
        answer = node.ask("/v1/models/cells/v1/model")
        assert answer.headers["retry-after"] == "1"
        is_problem(answer, 503, "no replica of the model can answer now")
        wait_for(lambda: node.ask("/healthz").status_code == 503)  # when the replica was found to be gone
        is_problem(node.ask("/healthz"), 503, "no replica of the model can answer now")

    def test_below_what_no_model_has_there_is_a_sentence_and_health_is_that_of_the_others(self, node):
        """As where the default one was taken down."""
        with replica(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine") as port:
            node.start(
                config=CONFIG.replace("server gone 127.0.0.1:1 check inter 100ms", f"server here 127.0.0.1:{port}")
            )
            for path in ("/", "/v1/model", "/v1/predict"):
                is_problem(node.ask(path), 404, "ask one by its name, at /v1/models/NAME/predict")
            for path in ("/healthz", "/readyz", "/v2/health/ready"):
                assert (node.ask(path).status_code, node.ask(path).json()) == (200, {"status": "ok"})

    @pytest.mark.parametrize("path", ["/-/routes", "/-/ROUTES", "/%2D/routes", "/-/r%6Futes", "/%2d%2Froutes?a=b"])
    def test_the_names_of_all_models_are_told_to_nobody_however_they_are_asked_for(self, node, path):
        """What HAProxy passes on is decoded by the replica, which knows that path too, and asks for no token there."""
        with replica(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine") as port:
            served = f"server here 127.0.0.1:{port}"
            config = CONFIG.replace("server gone 127.0.0.1:1 check inter 100ms", served)
            node.start(config=config.replace("path_beg /v1/models/cells", "path_beg /"))
            with socket.create_connection(("127.0.0.1", node.port), timeout=30) as client:  # as it stands
                client.sendall(f"GET {path} HTTP/1.0\r\nX: body\r\n\r\n".encode())
                answer = client.makefile("rb").read()
            assert answer.startswith(b"HTTP/1.1 404 ") and b"ask one by its name" in answer
            assert node.ask("/-/routes/?body").text == "mine"

    def test_health_is_not_that_of_serves_spare_proxy(self, node):
        """Which Serve puts into every backend, and which is there when no replica is."""
        with replica(b"HTTP/1.1 404 x\r\nContent-Length: 4\r\n\r\nPath") as port:
            gone = "server gone 127.0.0.1:1 check inter 100ms"
            node.start(config=CONFIG.replace(gone, f"{gone}\n    server spare 127.0.0.1:{port} check backup"))
            wait_for(lambda: node.ask("/healthz").status_code == 503)
            assert node.ask("/v1/models/cells?body").text == "Path"

    def test_that_a_replica_has_no_room_is_a_sentence_too(self, node):
        """Which Serve says in a word."""
        head = b"HTTP/1.1 503 x\r\nContent-Type: text/plain\r\nRetry-After: 1\r\nContent-Length: 4\r\n\r\nfull"
        with replica(head) as port:
            node.start(
                config=CONFIG.replace("server gone 127.0.0.1:1 check inter 100ms", f"server here 127.0.0.1:{port}")
            )
            answer = node.ask("/v1/models/cells", content=b"body")
            is_problem(answer, 503, "too many requests are waiting")
            assert answer.headers["retry-after"] == "1"

    def test_that_serves_spare_proxy_knows_no_such_model_is_a_sentence_too(self, node):
        """And what another application of the cluster says of its own paths stays as it is."""
        told = b"HTTP/1.1 404 x\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nPath"
        with replica(told) as port:
            for name, stays in (("SERVE_PROXY_ACTOR-fallback-1", False), ("SERVE_REPLICA_other-1", True)):
                server = f"server {name} 127.0.0.1:{port}"
                node.start(config=CONFIG.replace("server gone 127.0.0.1:1 check inter 100ms", server))
                answer = node.ask("/v1/models/cells", content=b"body")
                if stays:
                    assert (answer.status_code, answer.text) == (404, "Path")
                else:
                    is_problem(answer, 404, "there is no model here")

    def test_and_what_a_replica_says_itself_stays(self, node):
        told = b'HTTP/1.1 503 x\r\nContent-Type: application/problem+json\r\nContent-Length: 14\r\n\r\n{"error":"it"}'
        with replica(told) as port:
            node.start(
                config=CONFIG.replace("server gone 127.0.0.1:1 check inter 100ms", f"server here 127.0.0.1:{port}")
            )
            assert node.ask("/v1/models/cells", content=b"body").json() == {"error": "it"}


def test_one_that_takes_seconds_to_answer_is_taken_over_nevertheless(tmp_path):
    """Else the next one finds its ports taken."""

    def answer() -> None:
        client, _ = door.accept()
        with client:
            client.recv(100)
            time.sleep(2.5)
            client.sendall(b"Pid: 77\n")

    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "a"))
        door.listen()
        threading.Thread(target=answer, daemon=True).start()
        assert _take_over(tmp_path / "a") == ["-x", str(tmp_path / "a"), "-sf", "77"]
    assert _take_over(tmp_path / "a") == []


class TestElsewhereThanAtLoopback:
    @pytest.mark.parametrize("host", ["127.0.0.2", "::1"])
    def test_serve_listens_at_loopback_and_haproxy_where_the_endpoint_is_to_be(self, node, host):
        try:
            port_taken(host, node.port)
        except OSError:
            pytest.skip("this machine has no such address")
        given = environment(node.folder)
        assert host_for_serve(host, given, grows=False) == "127.0.0.1"
        node.host = reachable(host)
        node.start()
        node.kill()
        wait_for(node.answers)  # by the one that the guard has started
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{node.port}/fine", trust_env=False, timeout=60)

    def test_a_port_that_is_taken_there_is_not_opened_at_loopback_instead(self, node):
        (node.folder / HOST_FILE).write_text("127.0.0.2")
        with socket.create_server(("127.0.0.2", node.port)):
            with pytest.raises(AssertionError, match="did not come to pass"):
                node.start(patience_s=2)
            assert [pid for pid in mentioning(str(node.config)) if listens_at(pid, node.port)] == []

    def test_what_serve_is_told(self, tmp_path):
        ours = environment(tmp_path / "h")
        operators = {**ours, "RAY_SERVE_HAPROXY_BINARY_PATH": "/usr/bin/raytl-haproxy"}
        file = tmp_path / "h" / HOST_FILE
        assert host_for_serve("10.1.2.3", ours, grows=True) == "127.0.0.1" and file.read_text() == "10.1.2.3"
        assert host_for_serve("127.0.0.1", ours, grows=True) == "127.0.0.1" and not file.exists()
        for host in EVERYWHERE:
            assert host_for_serve(host, ours, grows=False) == "127.0.0.1" and file.read_text() == host
            assert host_for_serve(host, ours, grows=True) == host and not file.exists()
            assert host_for_serve(host, operators, grows=False) == host
        assert host_for_serve("10.1.2.3", operators, grows=False) is None
        assert host_for_serve("10.1.2.3", {}, grows=False) == "10.1.2.3"


class TestGuard:
    def test_ends_haproxy_with_the_raylet_and_clears_up(self, node):
        node.start()
        node.raylet.kill()
        wait_for(lambda: not node.answers() and node.processes() == [] and not node.folder.exists())

    def test_starts_a_killed_haproxy_again_and_has_the_actor_replaced(self, node):
        actor = node.start()
        killed = node.in_charge()
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: node.haproxy() not in (None, killed) and node.answers())
        assert actor.wait(60) == -signal.SIGKILL
        survivor = node.in_charge()
        node.start()  # as Serve does
        assert node.in_charge() != survivor
        wait_for(lambda: not Path(f"/proc/{survivor}/exe").exists())  # it was taken over, and went

    def test_whoever_connects_while_there_is_no_haproxy_waits_for_the_next_one(self, node):
        node.start()
        for _ in range(3):  # the second and third of them have no actor
            node.kill()
            with ExitStack() as stack:
                waiting = [stack.enter_context(socket.create_connection(("127.0.0.1", node.port))) for _ in range(20)]
                for connection in waiting:
                    connection.sendall(b"GET /fine HTTP/1.0\r\n\r\n")
                assert all(connection.makefile("rb").read().endswith(b"fine") for connection in waiting)
            wait_for(lambda: node.haproxy() is not None)

    def test_a_reload_drops_nobody_and_the_port_is_handed_on(self, node):
        node.start()
        for _ in range(2):
            node.start("-x", str(node.config.parent / "admin"), "-sf", str(node.in_charge()))
        wait_for(lambda: len(node.processes()) == 2)  # the newest and its guard
        node.kill()
        with socket.create_connection(("127.0.0.1", node.port)) as connection:
            connection.sendall(b"GET /fine HTTP/1.0\r\n\r\n")
            assert connection.makefile("rb").read().endswith(b"fine")

    def test_one_that_finishes_its_connections_does_not_keep_the_port(self, node):
        with socket.create_server(("127.0.0.1", 0)) as replica:
            served = f"server here 127.0.0.1:{replica.getsockname()[1]}"
            config = CONFIG.replace("server gone 127.0.0.1:1 check inter 100ms", served)
            config = config.replace("timeout server 60s", "timeout server 600s")  # the replica takes its time
            node.start(config=config)
            old = node.in_charge()
            with socket.create_connection(("127.0.0.1", node.port), timeout=60) as slow:
                slow.sendall(b"GET /v1/models/cells HTTP/1.0\r\n\r\n")
                working, _ = replica.accept()
                with working:
                    node.start("-x", str(node.config.parent / "admin"), "-sf", str(old), config=config)
                    newest = node.in_charge()
                    wait_for(lambda: len(holders := node.holders()) == 2 and newest in holders)  # the other: its guard
                    assert Path(f"/proc/{old}/exe").exists()
                    working.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nmine")
                    assert slow.makefile("rb").read().endswith(b"mine")

    def test_the_guard_of_one_that_was_replaced_before_it_was_seen_to_answer_lets_go_of_the_port(self, tmp_path):
        (tmp_path / "haproxy.cfg").write_text(CONFIG.format(folder=tmp_path, port=1, metrics=2, statistics=3))
        files = Files(tmp_path / "haproxy.cfg")
        replaced = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port, itself = listener.getsockname()[1], Process(os.getpid())
            guard = Guard(files, listener, [], itself, itself)
            files.note_owner(replaced.pid)
            watching = threading.Thread(target=guard.watch, args=(Process(replaced.pid),), daemon=True)
            watching.start()
            files.note_owner(os.getpid())
            try:
                wait_for(lambda: not listens_at(os.getpid(), port))
            finally:
                replaced.kill()
                replaced.wait()
                watching.join(60)
        assert not watching.is_alive()

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
        actor, haproxy = node.start(), node.in_charge()
        (guard,) = mentioning(str(node.config)).keys() - {actor.pid, haproxy}
        os.kill(guard, signal.SIGSTOP)  # or it might take the actor for alive where this process has to wait its turn
        os.kill(haproxy, signal.SIGKILL)
        actor.kill()
        actor.wait()
        os.kill(guard, signal.SIGCONT)
        wait_for(lambda: node.processes() == [])
        assert not node.answers()

    def test_nobody_starts_it_again_once_the_end_was_announced_however_long_its_actor_takes(self, node, tmp_path):
        (tmp_path / "raytl-haproxy").write_text(str(node.folder))
        actor = node.start()
        announce_end(tmp_path)
        node.kill()
        wait_for(lambda: node.processes() == [], BEFORE_ORPHANS_GO_S)
        assert actor.poll() is None and not node.answers()
        node.start()  # a later Serve's: for that one the end is not announced
        node.kill()
        wait_for(node.answers)

    def test_one_whose_actor_is_killed_first_ends_too_once_the_end_was_announced(self, node, tmp_path):
        (tmp_path / "raytl-haproxy").write_text(str(node.folder))
        actor = node.start()
        announce_end(tmp_path)
        actor.kill()
        actor.wait()
        wait_for(lambda: node.processes() == [], BEFORE_ORPHANS_GO_S)

    def test_an_actor_that_ends_before_the_next_haproxy_answers_had_stopped_the_one_before(self, tmp_path, monkeypatch):
        """As on a busy machine, where the actor has ended long before it is clear that there is no answer."""
        (tmp_path / "haproxy.cfg").write_text(CONFIG.format(folder=tmp_path, port=1, metrics=2, statistics=3))
        files = Files(tmp_path / "haproxy.cfg")
        silent = [sys.executable, "-c", "import time; time.sleep(600)", str(files.config)]
        actor, raylet, dead = (subprocess.Popen(silent) for _ in range(3))
        guard = Guard(files, None, silent, Process(actor.pid), Process(raylet.pid))

        def no_answer(_: Path) -> None:
            actor.kill()
            actor.wait()
            time.sleep(_SHUTDOWN_S + 0.1)

        monkeypatch.setattr("raytl.serving.haproxy.guard._STARTUP_S", 0.1)
        monkeypatch.setattr("raytl.serving.haproxy.guard.answering", no_answer)
        files.note_owner(dead.pid)
        haproxy = Process(dead.pid)
        dead.kill()
        dead.wait()
        try:
            assert guard._start_again(haproxy) is None
            wait_for(lambda: not Process(files.owner()).alive())
        finally:
            for process in (actor, raylet):
                process.kill()
                process.wait()

    def test_survives_that_ray_kills_the_actors_group(self, node):
        actor = node.start()
        assert os.getpgid(node.in_charge()) != os.getpgid(actor.pid)


def test_two_endpoints_get_ports_of_their_own(tmp_path):
    first, second = (environment(tmp_path / name) for name in ("a", "b"))
    ports = [name for name in first if name.endswith("_PORT")]
    assert len(ports) == 5
    assert all(first[name] != second[name] for name in ports)
