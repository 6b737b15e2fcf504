"""A local head that lives and cannot be connected to: it is left alone, and said so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from processes import descendants
from ray._common.usage.usage_constants import CLUSTER_METADATA_KEY
from ray._private.ray_constants import KV_NAMESPACE_CLUSTER
from ray._private.worker import global_worker

from raytl.core.errors import UserError
from raytl.serving import deploy, status, undeploy
from raytl.serving.head import LocalHead, find_head
from raytl.serving.ray_session import session

pytestmark = pytest.mark.slow  # a Ray head each


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalHead]:
    monkeypatch.setenv("RAYTL_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    # A node gives up on a store that is silent for 60 s, which a busy machine takes to start one command.
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "600")
    with session(start=True) as ray_session:
        assert ray_session is not None and ray_session.head is not None
    yield ray_session.head
    ray_session.head.stop()


def test_no_server_for_ray_client_is_started(head):
    """It would listen, take memory, and end the head with it where it fails."""
    started = " ".join(name.replace("\0", " ") for name in descendants(head.pid).values())
    assert "gcs_server" in started and "raylet" in started and "ray.util.client" not in started


def test_one_that_does_not_answer_for_a_while_is_not_stopped(head):
    code = "from raytl.cli import main; import sys; sys.argv = ['raytl', 'endpoint', 'status']; main()"
    (store,) = [pid for pid, name in descendants(head.pid).items() if "gcs_server" in name.split("\0")[0]]
    hasty = {
        "RAY_NUM_REDIS_GET_RETRIES": "1",
        "RAY_gcs_rpc_server_connect_timeout_s": "1",
        "RAY_py_gcs_connect_timeout_s": "3",
    }
    os.kill(store, signal.SIGSTOP)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **hasty}, capture_output=True, text=True, timeout=240
        )
    finally:
        os.kill(store, signal.SIGCONT)
    assert done.returncode == 2 and "does not answer right now" in done.stderr and "Traceback" not in done.stderr
    assert head.alive and find_head() == head
    assert status() == []


def test_one_of_another_ray_says_so_and_is_stopped_by_undeploy_alone(head, bundles):
    versions = {"ray_version": "2.49.2", "python_version": "3.10.4"}
    with session(start=False):
        global_worker.gcs_client.internal_kv_put(
            CLUSTER_METADATA_KEY, json.dumps(versions).encode(), True, KV_NAMESPACE_CLUSTER
        )
    for attempt in (status, lambda: deploy(bundles["first"]), lambda: undeploy("letters")):
        with pytest.raises(UserError, match=r"runs on Ray 2\.49\.2 and Python 3\.10\.4, and this is Ray .* undeploy"):
            attempt()
        assert head.alive
    assert undeploy() is True
    assert not head.alive and find_head() is None and descendants(head.pid) == {}
    assert status() == [] and not undeploy()


@pytest.fixture
def nothing_yet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The file that a head stands in, once there is one."""
    monkeypatch.setenv("RAYTL_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    yield tmp_path / "home" / "serving" / "head.json"
    left = find_head()
    if left is not None:
        left.stop()


def test_nothing_is_left_of_one_whose_start_is_interrupted(nothing_yet):
    code = """
import os, signal
from raytl.serving import head
from raytl.serving.ray_session import session
remember = head._remember

def remember_and_wait(found):
    remember(found)
    os.kill(os.getpid(), signal.SIGSTOP)  # or it may be up before it is interrupted

head._remember = remember_and_wait
with session(start=True):
    pass
"""
    starting = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    while Path(f"/proc/{starting.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert starting.poll() is None
        time.sleep(0.01)
    left = LocalHead(**json.loads(nothing_yet.read_text()))
    starting.send_signal(signal.SIGINT)
    starting.send_signal(signal.SIGCONT)
    assert starting.communicate(timeout=120)[1].endswith("KeyboardInterrupt\n")
    assert not nothing_yet.exists() and not left.alive and not Path(left.temp_dir).exists()
    assert descendants(left.pid) == {}


def test_nor_where_the_connection_to_it_is(nothing_yet, monkeypatch):
    found = []

    def interrupted(**_: object) -> None:
        found.append(LocalHead(**json.loads(nothing_yet.read_text())))
        raise KeyboardInterrupt

    monkeypatch.setattr(ray, "init", interrupted)
    with pytest.raises(KeyboardInterrupt), session(start=True):
        pass
    assert not nothing_yet.exists() and not found[0].alive and descendants(found[0].pid) == {}


def test_one_that_serves_nothing_is_stopped_by_undeploy_unless_another_command_is_about_to(head):
    code = "from raytl.serving.ray_session import session\nwith session(start=False): print(1, flush=True), input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as another:
        assert another.stdout is not None and another.stdout.readline() == b"1\n"
        assert undeploy() is False and head.alive
    assert undeploy() is False and not head.alive and find_head() is None
