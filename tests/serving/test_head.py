"""A local head that lives and cannot be connected to: it is left alone, and said so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import descendants
from ray._common.usage.usage_constants import CLUSTER_METADATA_KEY
from ray._private.ray_constants import KV_NAMESPACE_CLUSTER
from ray._private.worker import global_worker

from raytl.core.errors import UserError
from raytl.serving import deploy, status, undeploy
from raytl.serving.controller import session
from raytl.serving.head import LocalHead, find_head

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
