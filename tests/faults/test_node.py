"""A node that is lost while a trial runs on it: what the search comes to is what it comes to without that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster
from test_search import make_task, searched, table

from raytl.runs import Run
from raytl.search.records import TrialRecord, TrialStatus

pytestmark = pytest.mark.slow


class Nodes:
    """A head without CPUs, and one node that has one, so that every lane is there."""

    def __init__(self) -> None:
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 100 * 2**20}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self._last = self._add()

    def _add(self) -> Any:
        return self.cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)

    def lose(self) -> None:
        """The node dies as if its power had gone, and another one comes."""
        gone, self._last = self._last, self._add()
        self.cluster.remove_node(gone, allow_graceful=False)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYTL_HOME", str(tmp_path_factory.mktemp("home")))
        nodes = Nodes()
        ray.init(address=nodes.cluster.address, log_to_driver=False, logging_level="ERROR")
        yield nodes
        ray.shutdown()
        nodes.cluster.shutdown()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_task(tmp_path_factory.mktemp("node"))


@pytest.fixture(scope="module")
def undisturbed(nodes: Nodes, root: Path) -> Run:
    return searched(root, "undisturbed")


def test_a_node_that_is_lost_changes_nothing(nodes: Nodes, root: Path, undisturbed: Run) -> None:
    lost: list[int] = []

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
