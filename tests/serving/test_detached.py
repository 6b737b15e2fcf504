"""As from the command line: each step in a process of its own, and the endpoint outlives the one that started it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from processes import descendants, open_to_the_network

from raytl.bundles import Bundle

pytestmark = pytest.mark.slow  # a Ray head, Serve, and three processes that import Ray


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_endpoint_outlives_its_command_stays_on_loopback_and_goes_without_a_trace(bundles, png, tmp_path):
    environment = {**os.environ, "RAYTL_HOME": str(tmp_path / "home")}
    environment.pop("RAY_ADDRESS", None)

    def command(code: str) -> object:
        lines = ["import json", "from raytl.serving import deploy, status, undeploy", f"print(json.dumps({code}))"]
        done = subprocess.run(
            [sys.executable, "-c", "\n".join(lines)], env=environment, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    endpoint = command(f"deploy({str(bundles['first'])!r}, port={free_port()}).to_json()")
    head = json.loads((tmp_path / "home" / "serving" / "head.json").read_text())
    processes = {head["pid"]: "", **descendants(head["pid"])}
    try:
        assert endpoint["detached"]
        answer = httpx.post(f"{endpoint['url']}/v1/predict", content=png(0), trust_env=False).json()
        assert answer["predictions"][0]["label"] == Bundle.load(bundles["first"]).predict([png(0)])[0].label
        (entry,) = command("status()")
        assert (entry["status"], entry["url"], entry["model"]) == ("RUNNING", endpoint["url"], "first")
        assert any(name.startswith("ray::ServeReplica") for name in processes.values())
        # Serve by itself opens a port in every replica, on all interfaces, that unpickles what it gets.
        assert {name: open_to_the_network(pid) for pid, name in processes.items() if open_to_the_network(pid)} == {}
    finally:
        assert command("undeploy()") is True
    assert command("[status(), undeploy()]") == [[], False]
    assert descendants(head["pid"]) == {}
    assert not Path(head["temp_dir"]).exists()
    with pytest.raises(httpx.ConnectError):
        httpx.get(endpoint["url"], trust_env=False)
