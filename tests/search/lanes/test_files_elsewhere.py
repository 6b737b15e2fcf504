"""Images in files, for lanes on nodes that may not have them: read there where that is possible, else by the driver.

Below ``/proc/self/cwd`` every process finds what lies where it works itself: what the driver finds there no lane does.
"""

from __future__ import annotations

import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import tiny
from joblist import JobList, trial
from PIL import Image
from ray.cluster_utils import Cluster
from ray.exceptions import RayTaskError

from raytl.core.errors import UserError
from raytl.core.hashing import hash_bytes
from raytl.machines.few_processes import few_processes
from raytl.search.driver import run_plan
from raytl.search.lanes.files import Files, SharedItem, shared
from raytl.search.lanes.here import do_here
from raytl.search.lanes.lane import lane_for
from raytl.search.lanes.sizing import Lanes
from raytl.tasks import Task, TrainingData
from raytl.tasks.readers import table
from raytl.tasks.rows import RowItem, Rows
from raytl.training.workspace import Budget, Workspace, WorkspaceSettings

pytestmark = pytest.mark.slow
HERE = Path("/proc/self/cwd")
IMAGES, SIDE = 200, 590
"""Of a MiB each."""
SETTINGS = WorkspaceSettings(budget=Budget(2, 2, 16), image_size=tiny.SIDE, folds=(2, 1), device="cpu", threads=1)
ONE_LANE = Lanes(1, 1.0, 0.0)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise in two shades."""
    root, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    for number in range(IMAGES):
        path = root / "photos" / ["dark", "light"][number % 2] / f"{number}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        shade = 60 + 100 * (number % 2)
        Image.fromarray(rng.integers(shade - 40, shade + 40, (SIDE, SIDE, 3), np.uint8)).save(path)
    return root


@pytest.fixture(scope="module")
def cluster(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A head without CPUs and a node with one, whose processes work elsewhere than the driver does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYTL_HOME", str(tmp_path_factory.mktemp("home")))
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 100 * 2**20}
        with few_processes():
            cluster = Cluster(initialize_head=True, head_node_args=head)
            cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        patch.chdir(root)
        yield
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(scope="module")
def data(cluster: None) -> TrainingData:
    """Of what the driver alone finds."""
    return Task(HERE / "photos", holdout=0.0).data


class Growing:
    """By how many bytes this process's own memory is larger at most, meanwhile, than it was."""

    def __enter__(self) -> Growing:
        self._over = threading.Event()
        self._before, self.by = own_bytes(), 0
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.02):
            self.by = max(self.by, own_bytes() - self._before)


def own_bytes() -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) * 1024


def timeless(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if "second" not in name}


def test_a_lane_has_what_the_driver_alone_can_read_and_the_driver_holds_none_of_it(
    data: TrainingData, tmp_path: Path
) -> None:
    plan, alone = JobList([trial(0)]), JobList([trial(0)])
    with Growing() as growing, shared(data) as given:
        assert given.fingerprint == data.fingerprint
        assert run_plan(plan, lane_for(given, SETTINGS), ONE_LANE, tmp_path)
    assert growing.by < IMAGES * 2**20 / 2
    result = plan.results[0]
    assert result is not None and result.reason is None
    job = alone.next_job()
    assert job is not None
    do_here(alone, Workspace(data, SETTINGS, tmp_path), job)  # type: ignore[arg-type]
    assert alone.results[0] is not None
    assert timeless(result.metrics) == timeless(alone.results[0].metrics)
    np.testing.assert_array_equal(result.validation_probabilities, alone.results[0].validation_probabilities)


def test_nodes_that_share_a_disk_read_there(data: TrainingData, root: Path) -> None:
    everywhere = data.with_items(lambda item: replace(item, path=item.path.replace(str(HERE), str(root))))
    with shared(everywhere) as given:
        there = digests_there(asking_nobody(files_of(given)))
    assert there == digests(data)


def tarred(root: Path, name: str, mode: Literal["w", "w:gz"]) -> TrainingData:
    with tarfile.open(root / name, mode) as tar:
        for number in range(20):
            inner = f"{['dark', 'light'][number % 2]}/{number}.bmp"
            tar.add(root / "photos" / inner, inner)
    return Task(root / name, holdout=0.0).data


@pytest.mark.parametrize("home", [HERE / "home", None])
def test_a_packed_tar_file_is_unpacked_by_the_driver_alone(
    cluster: None, root: Path, home: Path | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Lanes read what was unpacked where they find it, as on the driver's own node, and have none unpack it again."""
    monkeypatch.setenv("RAYTL_HOME", str(home or tmp_path))
    data = tarred(root, "photos.tar.gz", "w:gz")
    with shared(data) as given:
        there = digests_there(files_of(given))
        if home is None:
            assert digests_there(asking_nobody(files_of(given))) == there
        else:
            with pytest.raises(RayTaskError, match="object is not callable"):
                digests_there(asking_nobody(files_of(given)))
    assert there == digests(data)


def test_another_tar_file_is_read_where_it_lies(cluster: None, root: Path) -> None:
    data = tarred(root, "photos.tar", "w")
    with shared(data) as given:
        assert digests_there(asking_nobody(files_of(given))) == digests(data)


def parquet(root: Path) -> TrainingData:
    """Images in a Parquet file, as the driver alone finds it."""
    names = [f"{['dark', 'light'][number % 2]}/{number}.bmp" for number in range(IMAGES)]
    images = [(root / "photos" / name).read_bytes() for name in names]
    made = pa.table({"image": pa.array(images, pa.binary()), "label": [name.partition("/")[0] for name in names]})
    pq.write_table(made, root / "photos.parquet", row_group_size=10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "HELD_BYTES", 0)
        return Task(HERE / "photos.parquet", holdout=0.0).data


def test_images_in_a_large_table_are_sent_some_at_a_time_or_read_there(data: TrainingData, root: Path) -> None:
    there = parquet(root)
    assert set(digests(there)) == set(digests(data))
    with Growing() as growing, shared(there) as given:
        assert digests_there(files_of(given)) == digests(there)
    assert growing.by < IMAGES * 2**20 / 2
    assert there.target is not None
    item = there.target.items[0]
    assert isinstance(item, RowItem)
    known = item.rows
    everywhere = Rows(str(root / "photos.parquet"), None, known.column, known.groups, known.size_bytes)
    with shared(there.with_items(lambda item: replace(item, rows=everywhere))) as given:
        assert digests_there(asking_nobody(files_of(given))) == digests(there)
        pq.write_table(pq.read_table(root / "photos.parquet").slice(1), root / "photos.parquet")
        known.forget()
        with pytest.raises(UserError, match=r"photos\.parquet row 1: is not what it was"):
            digests_there(files_of(given))


def test_a_desk_that_dies_is_there_again(data: TrainingData) -> None:
    with shared(data) as given:
        files = files_of(given)
        assert digests_there(files, IMAGES - 3) == digests(data)[-3:]
        ray.kill(files._ask.args[0], no_restart=False)  # type: ignore[attr-defined]
        assert digests_there(files, IMAGES - 3) == digests(data)[-3:]


def test_what_became_of_a_file_is_said_where_the_driver_has_it_no_more_or_differently(
    cluster: None, root: Path
) -> None:
    for number in range(4):
        path = root / "few" / f"class {number % 2}" / f"{number}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((root / "photos" / ["dark", "light"][number % 2] / f"{number}.bmp").read_bytes())
    with shared(Task(HERE / "few", holdout=0.0).data) as given:
        files = files_of(given)
        gone, changed = (root / "few" / "class 0" / name for name in ("0.bmp", "2.bmp"))
        gone.unlink()
        changed.write_bytes((root / "photos" / "dark" / "0.bmp").read_bytes())
        with pytest.raises(UserError, match=r"0\.bmp: no such file"):
            digests_there(files, 0)
        with pytest.raises(UserError, match=r"2\.bmp: is not what it was when the search began; put it back"):
            digests_there(files, 1)
        assert len(digests_there(files, 2)) == 2
    with pytest.raises(UserError, match="cannot be had from where the search was started"):
        digests_there(files, 3)


def files_of(data: TrainingData) -> Files:
    assert data.target is not None
    (item, *_) = data.target.items
    assert isinstance(item, SharedItem)
    return item.files


def digests(data: TrainingData) -> list[str]:
    assert data.target is not None
    return [item.digest for item in data.target.items]


def digests_there(files: Files, first: int = 0) -> list[str]:
    """Of what a process of the node without the driver reads, from a file on."""

    def read() -> list[str]:
        return [hash_bytes(files.read(number)) for number in range(first, len(files.items))]

    found: list[str] = ray.get(ray.remote(read).remote())
    return found


def asking_nobody(files: Files) -> Files:
    return Files(files.items, None)  # type: ignore[arg-type]
