"""A Ray of this machine's own: one that cannot be started, and what one leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray
from ray._private.node import Node

from raytl.core.errors import UserError
from raytl.search.lanes.cluster import cluster, start


def test_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAYTL_HOME", str(tmp_path))
    monkeypatch.setenv("RAY_TMPDIR", "/dev/null/ray")
    with pytest.raises(
        UserError, match=r"a Ray of this machine's own cannot be started: .*; raytl doctor looks for"
    ) as said:
        start(1)
    assert "\n" not in str(said.value)


def test_one_that_is_not_up_in_time_is_one_sentence_too(monkeypatch, tmp_path):
    """Ray gives its own processes 30 s, and raises an error of no kind."""

    def late(**_: object) -> None:
        raise Exception("The current node timed out during startup. This could happen because ...")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAYTL_HOME", str(tmp_path))
    monkeypatch.setattr(ray, "init", late)
    with pytest.raises(UserError, match=r"cannot be started: The current node timed out during startup; raytl doctor"):
        start(1)


@pytest.mark.slow  # starts Ray twice
def test_it_has_few_processes_and_its_files_go_with_it_unless_something_went_wrong(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def session() -> Path:
        return Path(ray._private.worker._global_node.get_session_dir_path())

    with cluster(1, 0.0):
        well = session()
        assert (well / "logs").is_dir()
        begun = set(ray._private.worker._global_node.all_processes)
        assert {"gcs_server", "raylet"} <= begun and not begun & {"monitor", "log_monitor", "dashboard"}
        assert Node.start_monitor.__name__ == "start_monitor"  # what others start here has it
    assert not (well / "logs").exists()

    def fail() -> None:
        with cluster(1, 0.0):
            badly.append(session())
            raise ValueError("something")

    badly: list[Path] = []
    with pytest.raises(ValueError, match="something"):
        fail()
    assert (badly[0] / "logs").is_dir()
