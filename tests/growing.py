"""A cluster that grows and shrinks: Ray's autoscaler over its fake nodes, which are processes of this machine."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from raytl.serving.ports import free_port

PATIENCE_S = 300.0
COMMANDS = (
    *("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands"),
    *("head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files", "rsync_exclude", "rsync_filter"),
)
EMPTY = {"auth": {}, "docker": {}, "file_mounts": {}, "file_mounts_sync_continuously": False}
"""What the autoscaler wants to find in its settings, beside :data:`COMMANDS`, though there is nothing to say."""


WATCH = """
import sys, time, ray
from raytl.machines.growing import autoscales
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
assert autoscales(300.0)
while True:
    print(sum(node["Alive"] for node in ray.nodes()), flush=True)
    time.sleep(0.5)
"""


@dataclass(frozen=True)
class Growing:
    """A cluster whose nodes come and go. environment: with which a process may join it."""

    address: str
    environment: dict[str, str]
    watched: Path

    def nodes(self) -> int:
        """How many there are, 0 before that is known."""
        numbers = [line for line in self.watched.read_text().splitlines() if line.isdigit()]
        return int(numbers[-1]) if numbers else 0


@contextmanager
def growing(tmp_path: Path, *, head_cpus: int, more: int) -> Iterator[Growing]:
    """A head on loopback, with a token, and an autoscaler that may add so many nodes of one CPU each."""
    port = free_port()
    provider = {"type": "fake_multinode", "launch_multiple": True}
    provider |= {
        "gcs_address": f"127.0.0.1:{port}",
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    }
    kinds = {
        "ray.head.default": {"resources": {"CPU": head_cpus}, "node_config": {}, "max_workers": 0},
        "worker": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": more},
    }
    config = {"cluster_name": "fake", "max_workers": more, "idle_timeout_minutes": 0.1, "provider": provider}
    config |= {"available_node_types": kinds, "head_node_type": "ray.head.default", "upscaling_speed": 1.0}
    config |= EMPTY | {name: [] for name in COMMANDS}
    (tmp_path / "autoscaling.json").write_text(json.dumps(config))
    temporary = tempfile.mkdtemp(prefix="raytl-", dir="/tmp")
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}"]
    command += [f"--num-cpus={head_cpus}", "--node-ip-address=127.0.0.1", "--include-dashboard=false"]
    command += ["--disable-usage-stats"]
    command += [f"--ray-client-server-port={free_port()}", "--object-store-memory=134217728", f"--temp-dir={temporary}"]
    command += [f"--autoscaling-config={tmp_path / 'autoscaling.json'}"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "RAYTL_"))}
    kept |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAYTL_HOME": str(tmp_path / "home")}
    kept |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # or Ray listens on every interface
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str, words: list[str], **switches: str) -> Path:
        with (tmp_path / name).open("wb") as log:
            process = subprocess.Popen(words, env=kept | switches, stdout=log, stderr=log, start_new_session=True)
        started.append(process)
        return tmp_path / name

    try:
        log = start("head.log", command, RAY_FAKE_CLUSTER="1", AUTOSCALER_UPDATE_INTERVAL_S="1")
        wait_for(lambda: "Ray runtime started" in log.read_text() or started[0].poll() is not None)
        assert started[0].poll() is None, log.read_text()
        found = Growing(
            f"127.0.0.1:{port}", kept, start("nodes.log", [sys.executable, "-c", WATCH, f"127.0.0.1:{port}"])
        )
        wait_for(lambda: found.nodes() or started[1].poll() is not None)
        assert started[1].poll() is None, found.watched.read_text()
        yield found
    finally:
        for process in reversed(started):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(5)  # it waits longer for the nodes
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        shutil.rmtree(temporary, ignore_errors=True)


def wait_for(what: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < until
        time.sleep(0.2)


def words(text: str) -> str:
    """However lines are broken."""
    return " ".join(text.split())
