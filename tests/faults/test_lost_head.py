"""A cluster whose head is lost: the driver says so, and the run goes on elsewhere as if nothing had been."""

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

import pytest
import ray
from test_search import Watching, make_task, make_whole, searched, table

import raytl
from raytl.runs import Run, RunStore
from raytl.serving.ports import free_port

pytestmark = pytest.mark.slow
PATIENCE_S = 300.0
TOKEN = "f" * 64
DRIVER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import raytl, test_search

class Saying:
    def on_trial(self, record): pass
    def on_phase(self, phase, detail): print(phase, detail, flush=True)

root = Path(sys.argv[1])
test_search.make_whole(root)
raytl.search(
    raytl.Task(root / "photos", holdout=0.0), str(root / "space.yaml"), trials=5, lanes=1, name="lost",
    storage=root / "runs", warm_start=False, address=sys.argv[3],
    listeners=[test_search.Watching(root, lambda record: None), Saying()],
)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        root = make_task(tmp_path_factory.mktemp("head"))
        patch.setenv("RAYTL_HOME", str(root / "home"))
        patch.delenv("RAY_ADDRESS", raising=False)
        yield root
        ray.shutdown()


def environment(root: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    kept |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAYTL_HOME": str(root / "elsewhere")}
    kept |= {"RAY_gcs_rpc_server_reconnect_timeout_s": "40"}  # of itself, a minute
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
        while len(ended(root)) < 3:
            assert driver.poll() is None and time.monotonic() < deadline, (temporary / "said").read_text()
            time.sleep(0.2)
        os.killpg(head.pid, signal.SIGKILL)
        return driver.wait(PATIENCE_S), (temporary / "said").read_text()
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
    code, said = lost
    assert code != 0
    assert "the cluster's head at 127.0.0.1:" in said and "--resume goes on with it, on another cluster" in said
    assert "gcs" not in said.lower(), said


def test_the_run_goes_on_elsewhere_and_comes_to_the_same(lost: tuple[int, str], root: Path) -> None:
    before = ended(root)
    assert len(before) >= 3
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    make_whole(root)
    run = raytl.resume("lost", storage=root / "runs", address="local", listeners=[Watching(root, lambda record: None)])
    assert_same(run, searched(root, "undisturbed"), before)


def assert_same(run: Run, undisturbed: Run, before: list[tuple]) -> None:
    after = [row for row in table(run) if row[3] != "interrupted"]
    assert run.status == "finished" and all(row in after for row in before)
    assert sorted(map(str, after)) == sorted(map(str, table(undisturbed)))
    assert run.outcome is not None and undisturbed.outcome is not None
    assert run.outcome["best"]["strategy_key"] == undisturbed.outcome["best"]["strategy_key"]
