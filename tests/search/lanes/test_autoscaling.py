"""A cluster that grows and shrinks: Ray's autoscaler over its fake nodes, which are processes of this machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from photos import SPACE, folder

from raytl.runs import RunStore

pytestmark = pytest.mark.slow  # nodes come within half a minute and go as slowly
LANES = 3
PATIENCE_S = 300.0
NODES = {
    "ray.head.default": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
    "worker": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": LANES - 1},
}
COMMANDS = (
    *("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands"),
    *("head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files", "rsync_exclude", "rsync_filter"),
)
EMPTY = {"auth": {}, "docker": {}, "file_mounts": {}, "file_mounts_sync_continuously": False}
"""What the autoscaler wants to find in its settings, beside :data:`COMMANDS`, though there is nothing to say."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A head of one CPU, with an autoscaler that may add a node for each further lane."""
    port = free_port()
    provider = {"type": "fake_multinode", "gcs_address": f"127.0.0.1:{port}", "launch_multiple": True}
    provider |= {"use_node_id_as_ip": True, "disable_node_updaters": True, "disable_launch_config_check": True}
    config = {"cluster_name": "fake", "max_workers": LANES - 1, "idle_timeout_minutes": 0.1, "provider": provider}
    config |= {"available_node_types": NODES, "head_node_type": "ray.head.default", "upscaling_speed": 1.0}
    config |= EMPTY | {name: [] for name in COMMANDS}
    (tmp_path / "autoscaling.json").write_text(json.dumps(config))
    temporary = tempfile.mkdtemp(prefix="raytl-", dir="/tmp")
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}"]
    command += ["--num-cpus=1", "--node-ip-address=127.0.0.1", "--include-dashboard=false", "--disable-usage-stats"]
    command += [f"--ray-client-server-port={free_port()}", "--object-store-memory=134217728", f"--temp-dir={temporary}"]
    command += [f"--autoscaling-config={tmp_path / 'autoscaling.json'}"]
    switches = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    with (tmp_path / "head.log").open("wb") as log:
        head = subprocess.Popen(command, env=os.environ | switches, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(lambda: joined(f"127.0.0.1:{port}") or head.poll() is not None)
        assert head.poll() is None, (tmp_path / "head.log").read_text()
        yield f"127.0.0.1:{port}"
    finally:
        ray.shutdown()
        os.killpg(head.pid, signal.SIGTERM)
        try:
            head.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, signal.SIGKILL)
        shutil.rmtree(temporary, ignore_errors=True)


def joined(address: str) -> bool:
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError):
        time.sleep(1)
        return False
    return True


def wait_for(what: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < until
        time.sleep(0.2)


def nodes() -> int:
    return sum(node["Alive"] for node in ray.nodes())


def test_a_search_has_nodes_added_and_lets_them_go(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert nodes() == 1
    monkeypatch.setenv("RAYTL_HOME", str(tmp_path / "home"))
    folder(tmp_path / "photos", 10)
    space = SPACE.replace("[0.03, 0.1]", "{low: 0.001, high: 0.5, log: true}").replace("epochs: 2", "epochs: 60")
    (tmp_path / "tiny.yaml").write_text(space)
    command = [sys.executable, "-m", "raytl", "search", "--target", "photos", "--space", "tiny.yaml", "--name", "grown"]
    command += ["--trials", "500", "--lanes", str(LANES), "--address", address, "--storage", "runs", "--json"]
    search = subprocess.Popen(command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def at_work() -> set[str]:
        """Nodes whose lanes have ended a trial."""
        if not (tmp_path / "runs" / "grown" / "run.json").exists():
            return set()
        records = RunStore(tmp_path / "runs").open("grown").records()
        return {record.lane.partition("-")[0] for record in records if "-" in record.lane}

    try:
        wait_for(lambda: nodes() == LANES or search.poll() is not None)
        wait_for(lambda: len(at_work()) == LANES or search.poll() is not None)
        assert search.poll() is None, search.communicate()
        search.send_signal(signal.SIGINT)
        out, err = search.communicate(timeout=PATIENCE_S)
        assert search.returncode == 130 and json.loads(out)["trials"]["by_status"].get("failed", 0) == 0, err
    finally:
        if search.poll() is None:
            search.kill()
            search.wait()
    wait_for(lambda: nodes() == 1)
