"""A search on a cluster that grows and shrinks by itself."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from growing import PATIENCE_S, Growing, growing, wait_for, words
from photos import SPACE, folder

from raytl.runs import RunStore

pytestmark = pytest.mark.slow  # nodes come within half a minute and go as slowly
LANES = 3


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Growing]:
    """A head of one CPU, and room for a node for each further lane."""
    with growing(tmp_path, head_cpus=1, more=LANES - 1) as found:
        yield found


def test_a_search_says_how_to_have_nodes_added_does_so_and_lets_them_go(cluster: Growing, tmp_path: Path) -> None:
    assert cluster.nodes() == 1
    folder(tmp_path / "photos", 10)
    space = SPACE.replace("[0.03, 0.1]", "{low: 0.001, high: 0.5, log: true}").replace("epochs: 2", "epochs: 60")
    (tmp_path / "tiny.yaml").write_text(space)
    command = [sys.executable, "-m", "raytl", "search", "--target", "photos", "--space", "tiny.yaml"]
    command += ["--address", cluster.address, "--storage", "runs", "--json"]
    quick = ["--trials", "2", "--set", "epochs=2"]
    unasked = subprocess.run(
        [*command, *quick], cwd=tmp_path, env=cluster.environment, text=True, capture_output=True, check=True
    )
    told = "uses the nodes that there are (a single lane); --lanes N asks the cluster for more"
    assert words(unasked.stderr).count(told) == 1, unasked.stderr
    assert set(cluster.watched.read_text().split()) == {"1"}  # nodes cost money

    command += ["--trials", "500", "--lanes", str(LANES), "--name", "grown"]
    search = subprocess.Popen(
        command, cwd=tmp_path, env=cluster.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )

    def at_work() -> set[str]:
        """Lanes that have ended a trial; a node has room for one."""
        if not (tmp_path / "runs" / "grown" / "run.json").exists():
            return set()
        records = RunStore(tmp_path / "runs").open("grown").records()
        return {record.lane for record in records if "-" in record.lane}

    try:
        wait_for(lambda: cluster.nodes() == LANES or search.poll() is not None)
        wait_for(lambda: len(at_work()) >= LANES or search.poll() is not None)
        assert search.poll() is None, search.communicate()
        search.send_signal(signal.SIGINT)
        out, err = search.communicate(timeout=PATIENCE_S)
        assert told not in words(err)
        assert search.returncode == 130 and json.loads(out)["trials"]["by_status"].get("failed", 0) == 0, err
    finally:
        if search.poll() is None:
            search.kill()
            search.wait()
    wait_for(lambda: cluster.nodes() == 1)
