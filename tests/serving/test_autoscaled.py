"""An endpoint on a cluster without a free CPU, whose autoscaler adds the nodes that replicas ask for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from growing import PATIENCE_S, Growing, growing, wait_for, words

from raytl.serving.ports import free_port

pytestmark = pytest.mark.slow  # a node comes within half a minute and goes as slowly
TRIES = 3


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Growing]:
    """A head without CPUs, as that of cluster.yaml, and room for two nodes."""
    with growing(tmp_path, head_cpus=0, more=2) as found:
        yield found


def test_a_node_that_a_replica_asks_for_is_waited_for_until_somebody_interrupts_and_goes_with_it(
    cluster: Growing, bundles: dict[str, Path], png: Callable[[int], bytes], tmp_path: Path
) -> None:
    environment = {**cluster.environment, "RAY_ADDRESS": cluster.address}

    def raytl(*given: str | os.PathLike[str]) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "raytl", *map(str, given)]
        return subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True)

    def interrupted(port: str) -> bool:
        """Whether it waited for a node when it was; one may have come before."""
        log = tmp_path / "interrupted.log"
        with log.open("w") as told:
            command = [sys.executable, "-m", "raytl", "deploy", str(bundles["second"]), "--port", port]
            deploying = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=told, stderr=told)
        waits = (
            "'raytl' waits for a node with 1 free CPU, for 15 min at most: the cluster has no CPUs, and an autoscaler"
        )
        try:
            wait_for(lambda: waits in words(log.read_text()) or deploying.poll() is not None)
            if waits in words(log.read_text()):
                deploying.send_signal(signal.SIGINT)
            ended = deploying.wait(PATIENCE_S)
            assert ended in (0, 130), log.read_text()
        finally:
            deploying.kill()
            deploying.wait()
        return ended == 130

    assert cluster.nodes() == 1
    port = str(free_port())
    for _ in range(TRIES):
        if interrupted(port):
            break
        assert raytl("undeploy").returncode == 0
        wait_for(lambda: cluster.nodes() == 1)
    else:
        pytest.fail(f"a node came before it was waited for, {TRIES} times")

    deployed = raytl("deploy", bundles["first"], "--port", port, "--json")
    assert deployed.returncode == 0, deployed.stderr
    wait_for(lambda: cluster.nodes() == 2)
    url = json.loads(deployed.stdout)["url"]
    answer = httpx.post(f"{url}/v1/predict", content=png(0), trust_env=False, timeout=60)
    assert answer.json()["model"] == "first", answer.text

    updated = raytl("deploy", bundles["second"], "--json")  # the new replica is there before the old one goes
    assert updated.returncode == 0, updated.stderr
    answer = httpx.post(f"{url}/v1/predict", content=png(0), trust_env=False, timeout=60)
    assert answer.json()["model"] == "second", answer.text
    status = json.loads(raytl("endpoint", "status", "--json").stdout)
    assert (status["replicas"], status["waiting"]) == (1, 0)

    assert raytl("undeploy").returncode == 0
    wait_for(lambda: cluster.nodes() == 1)
