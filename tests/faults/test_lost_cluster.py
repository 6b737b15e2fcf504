"""A cluster that loses its head, or a node: the search comes to what it comes to without that, there or elsewhere."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from own_ray import own_ray
from ray.cluster_utils import Cluster
from searching import Watching, last_words, make_task, make_whole, searched, table

import raytl
from raytl.machines.few_processes import few_processes
from raytl.runs import Run, RunStore
from raytl.search.records import TrialRecord, TrialStatus
from raytl.serving.ports import free_port

pytestmark = pytest.mark.slow
PATIENCE_S = 300.0
TOKEN = "f" * 64
DRIVER = """
import sys, time
from functools import partial
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import raytl, searching
from raytl.search import driver

driver.listened_to = partial(driver.listened_to, period_s=1.0, silent_s=4.0)  # of itself it is patient for 15 s

class Saying:
    ended = set()

    def on_trial(self, record):
        self.ended.update([record.number] if str(record.status) in ("completed", "failed") else [])
        while len(self.ended) == 4 and not (root / "lost").exists():
            time.sleep(0.1)  # or all may have ended before the head is lost

    def on_phase(self, phase, detail): print(phase, detail, flush=True)

root = Path(sys.argv[1])
searching.make_whole(root)
raytl.search(
    raytl.Task(root / "photos", holdout=0.0), str(root / "space.yaml"), trials=5, lanes=1, name="lost",
    storage=root / "runs", warm_start=False, address=sys.argv[3],
    listeners=[searching.Watching(root, lambda record: None), Saying()],
)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        root = make_task(tmp_path_factory.mktemp("head"))
        patch.setenv("RAYTL_HOME", str(root / "home"))
        patch.delenv("RAY_ADDRESS", raising=False)
        yield root


def environment(root: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    kept |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAYTL_HOME": str(root / "elsewhere")}
    kept |= {"RAY_gcs_rpc_server_reconnect_timeout_s": "16"}  # of itself, a minute; the driver speaks after 5 s
    return kept | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # or Ray listens on every interface


@pytest.fixture(scope="module")
def lost(root: Path) -> tuple[int, str]:
    """Exit code and last words of a driver whose cluster lost its head once some trials had ended."""
    port, temporary = free_port(), Path(tempfile.mkdtemp(prefix="raytl-", dir="/tmp"))
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}"]
    command += ["--num-cpus=1", "--node-ip-address=127.0.0.1", "--include-dashboard=false", "--disable-usage-stats"]
    command += [f"--ray-client-server-port={free_port()}", "--object-store-memory=134217728", "--no-monitor"]
    command += [f"--temp-dir={temporary}"]
    with (temporary / "log").open("wb") as log:
        head = subprocess.Popen(command, env=environment(root), stdout=log, stderr=log, start_new_session=True)
    driver = None
    try:
        deadline = time.monotonic() + PATIENCE_S
        while "Ray runtime started" not in (temporary / "log").read_text():
            assert head.poll() is None and time.monotonic() < deadline, (temporary / "log").read_text()
            time.sleep(0.2)
        command = [sys.executable, "-c", DRIVER, str(root), str(Path(__file__).parent), f"127.0.0.1:{port}"]
        with (temporary / "said").open("wb") as said:
            driver = subprocess.Popen(command, env=environment(root), stdout=said, stderr=said)
        deadline = time.monotonic() + PATIENCE_S
        while len(ended(root)) < 3:
            assert driver.poll() is None and time.monotonic() < deadline, (temporary / "said").read_text()
            time.sleep(0.2)
        os.killpg(head.pid, signal.SIGKILL)
        (root / "lost").touch()
        return driver.wait(PATIENCE_S), last_words(temporary / "said")
    finally:
        for process in (head, driver):
            if process is not None and process.poll() is None:
                process.kill()
        shutil.rmtree(temporary, ignore_errors=True)


def ended(root: Path) -> list[tuple]:
    """Trials that ended in the run whose head is lost, as their table has them."""
    if not (root / "runs" / "lost" / "run.json").exists():
        return []
    return [row for row in table(RunStore(root / "runs").open("lost")) if row[3] in ("completed", "failed")]


def test_its_driver_ends_with_a_sentence_and_without_rays_own(lost: tuple[int, str]) -> None:
    """It goes with the head, or with the raylet on the head's node, of which nothing is said beforehand."""
    code, said = lost
    assert code != 0
    assert said.splitlines()[-1].startswith("raytl: this search was ended on the spot: by Ray")
    assert "lost the cluster's head" in said and "raytl search --resume" in said
    assert "gcs" not in said.lower(), said


@pytest.fixture(scope="module")
def gone_on(lost: tuple[int, str], root: Path) -> tuple[list[tuple], Run, Run]:
    """Trials that had ended when the head was lost, their run once it went on elsewhere, and one that lost nothing."""
    before = ended(root)
    with own_ray(1):  # as many as on the cluster's nodes: the last bits of scores are those of so many threads
        make_whole(root)
        again = [Watching(root, lambda record: None)]
        run = raytl.resume("lost", storage=root / "runs", address="local", listeners=again)
        return before, run, searched(root, "undisturbed")


def test_the_run_goes_on_elsewhere_and_comes_to_the_same(gone_on: tuple[list[tuple], Run, Run]) -> None:
    before, run, undisturbed = gone_on
    assert len(before) >= 3
    after = [row for row in table(run) if row[3] != "interrupted"]
    assert run.status == "finished" and all(row in after for row in before)
    assert sorted(map(str, after)) == sorted(map(str, table(undisturbed)))
    assert run.outcome is not None and undisturbed.outcome is not None
    assert run.outcome["best"]["strategy_key"] == undisturbed.outcome["best"]["strategy_key"]


class Nodes:
    """A head without CPUs, and one node that has one, so that every lane is there."""

    def __init__(self) -> None:
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 100 * 2**20}
        with few_processes():
            self.cluster = Cluster(initialize_head=True, head_node_args=head)
            self._last = self._add()

    def _add(self) -> Any:
        return self.cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)

    def lose(self) -> None:
        """The node dies as if its power had gone, and another one comes."""
        gone, self._last = self._last, self._add()
        self.cluster.remove_node(gone, allow_graceful=False)


@pytest.fixture
def nodes(root: Path, gone_on: tuple[list[tuple], Run, Run]) -> Iterator[Nodes]:
    """Once the Ray that the other run went on with has ended."""
    nodes = Nodes()
    ray.init(address=nodes.cluster.address, log_to_driver=False, logging_level="ERROR")
    yield nodes
    ray.shutdown()
    nodes.cluster.shutdown()


def test_a_node_that_is_lost_changes_nothing(nodes: Nodes, root: Path, gone_on: tuple[list[tuple], Run, Run]) -> None:
    undisturbed, lost = gone_on[2], []

    def lose(record: TrialRecord) -> None:
        if record.status is TrialStatus.RUNNING and len(record.history) == 2 and not lost:
            lost.append(record.number)
            nodes.lose()

    run = searched(root, "disturbed", lose)
    assert lost, "no node was lost"
    assert table(run) == table(undisturbed)
    assert len({record.lane.partition("-")[0] for record in run.records() if record.lane}) == 2
    assert run.outcome is not None and undisturbed.outcome is not None
    assert run.outcome["best"]["strategy_key"] == undisturbed.outcome["best"]["strategy_key"]
    assert run.has_model
