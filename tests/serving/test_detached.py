"""As from the command line: each step in a process of its own, and the endpoint outlives the one that started it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from processes import descendants, mentioning, open_to_the_network

from raytl import Client
from raytl.bundles import Bundle
from raytl.serving.ingress import haproxy_runs
from raytl.serving.ports import free_port

pytestmark = pytest.mark.slow  # a Ray head, Serve, and three processes that import Ray


def commands(home: Path) -> Callable[[str], Any]:
    """Evaluates an expression in a process of its own, as a user whose RAYTL_HOME this is."""
    environment = {**os.environ, "RAYTL_HOME": str(home)}
    environment.pop("RAY_ADDRESS", None)

    def command(code: str) -> Any:
        lines = ["import json", "from raytl.serving import deploy, status, undeploy", f"print(json.dumps({code}))"]
        done = subprocess.run(
            [sys.executable, "-c", "\n".join(lines)], env=environment, capture_output=True, text=True, timeout=400
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return command


def head_of(home: Path) -> dict[str, Any]:
    return json.loads((home / "serving" / "head.json").read_text())


def other_addresses() -> list[str]:
    """Of this machine, beside loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # sends nothing
        return [probe.getsockname()[0]]
    return []


def gone(text: str) -> None:
    """Waits until no process mentions ``text``; an HAProxy that was forgotten would end by itself in a minute."""
    deadline = time.monotonic() + 45
    while (left := mentioning(text)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == {}


@dataclass(frozen=True)
class Here:
    """An endpoint with the first bundle, as it is without further words."""

    home: Path
    endpoint: dict[str, Any]


@pytest.fixture(scope="module")
def here(bundles, tmp_path_factory) -> Iterator[Here]:
    home = tmp_path_factory.mktemp("here")
    command = commands(home)
    try:
        yield Here(home, command(f"deploy({str(bundles['first'])!r}, port={free_port()}).to_json()"))
    finally:
        if (home / "serving" / "head.json").exists():  # a test has failed
            command("undeploy()")


def test_the_endpoint_outlives_its_command_and_stays_on_loopback(bundles, png, here):
    endpoint, head = here.endpoint, head_of(here.home)
    # HAProxy's guard is nobody's child.
    processes = {head["pid"]: "", **descendants(head["pid"]), **mentioning(head["temp_dir"])}
    assert endpoint["detached"]
    answer = httpx.post(f"{endpoint['url']}/v1/predict", content=png(0), trust_env=False, timeout=60).json()
    assert answer["predictions"][0]["label"] == Bundle.load(bundles["first"]).predict([png(0)])[0].label
    (entry,) = commands(here.home)("status()")
    assert (entry["status"], entry["url"], entry["model"]) == ("RUNNING", endpoint["url"], "first")
    assert any(name.startswith("ray::ServeReplica") for name in processes.values())
    assert not any(name in words for words in processes.values() for name in ("monitor.py", "dashboard.py"))
    # Serve by itself opens a port in every replica, on all interfaces, that unpickles what it gets.
    assert {name: open_to_the_network(pid) for pid, name in processes.items() if open_to_the_network(pid)} == {}
    assert not haproxy_runs() or any("haproxy.cfg" in name for name in processes.values())
    for address in other_addresses():
        with pytest.raises(httpx.ConnectError):
            httpx.get(endpoint["url"].replace("127.0.0.1", address), trust_env=False, timeout=60)


@dataclass(frozen=True)
class Elsewhere:
    """An endpoint at an address that is not loopback's first."""

    home: Path
    port: int
    endpoint: dict[str, Any]

    @property
    def client(self) -> Client:
        token = self.endpoint["token_file"]
        return Client(self.endpoint["url"], Path(token).read_text().strip() if token else None)


@pytest.fixture(scope="module")
def elsewhere(bundles, tmp_path_factory) -> Iterator[Elsewhere]:
    """With the second bundle."""
    home, port = tmp_path_factory.mktemp("elsewhere"), free_port()
    command = commands(home)
    host = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"  # only there all of 127.0.0.0/8 is this machine
    deployed = f"deploy({str(bundles['second'])!r}, host={host!r}, port={port}).to_json()"
    try:
        endpoint, (listed,) = command(f"[{deployed}, status()]")
        assert endpoint["url"] == listed["url"] == f"http://{host}:{port}"
        yield Elsewhere(home, port, endpoint)
    finally:
        undone = command("undeploy()")
    assert undone is True


@pytest.mark.skipif(sys.platform != "linux", reason="only there all of 127.0.0.0/8 is this machine")
def test_an_endpoint_elsewhere_than_at_loopback_answers_and_only_its_own_port_is_open(bundles, png, elsewhere):
    with elsewhere.client as client:
        assert client.predict(png(0)).label == Bundle.load(bundles["second"]).predict([png(0)])[0].label
    head = head_of(elsewhere.home)
    processes = {head["pid"], *descendants(head["pid"]), *mentioning(head["temp_dir"])}
    opened = {address for pid in processes for address in open_to_the_network(pid)}
    assert opened == {f"0200007F:{elsewhere.port:04X}"}  # as /proc writes it


def test_two_side_by_side_and_nothing_is_left_of_one_that_is_killed_or_undeployed(bundles, png, here, elsewhere):
    command, url = commands(here.home), here.endpoint["url"]
    answer = httpx.post(f"{url}/v1/predict", content=png(0), trust_env=False, timeout=60).json()
    assert answer["model"] == "first"
    killed = head_of(here.home)
    os.kill(killed["pid"], signal.SIGKILL)
    gone(killed["temp_dir"])
    with elsewhere.client as client:
        assert client.model()["provenance"]["run"] == "second"
    # The port is free again, and there is no head in the way of the next one.
    port = int(url.rpartition(":")[2])
    assert command(f"deploy({str(bundles['second'])!r}, port={port}).url") == url
    head = head_of(here.home)
    assert command("[undeploy(), status(), undeploy()]") == [True, [], False]
    assert descendants(head["pid"]) == {}
    gone(head["temp_dir"])
    assert not Path(head["temp_dir"]).exists()
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False, timeout=60)
