"""Ray's object store full, and the disk that it spills to: what needs room there fails with a sentence, and no more.

A disk of which a ten-thousandth is used, beyond which Ray is told to take no more, and a folder that cannot be written
to stand in for a disk that is full.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ray
from own_ray import own_ray
from PIL import Image
from ray.exceptions import ObjectStoreFullError, OutOfDiskError, RayError
from searching import table as rows

import raytl
from raytl.core.errors import UserError
from raytl.search.jobs import JobResult
from raytl.search.lanes.lane import in_store
from raytl.search.lanes.pool import starved
from raytl.search.records import TrialRecord, TrialStatus

pytestmark = pytest.mark.slow
STORE_BYTES = 80 * 2**20
SPACE = """\
image_size: 16
epochs: 2
grace_epochs: 2
batch_size: 16
steps_per_epoch: 2
space: {source_model: [scratch:cnn-small], optimizer: [sgd], head_lr: [0.03, 0.1], backbone_ratio: [1.0]}
"""


@pytest.fixture(scope="module", autouse=True)
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYTL_HOME", str(tmp_path_factory.mktemp("home")))
        spilled = tmp_path_factory.mktemp("disk") / "spilled"
        spilled.mkdir()
        full = {"object_store_memory": STORE_BYTES, "_system_config": {"local_fs_capacity_threshold": 0.0001}}
        with own_ray(2, **full, object_spilling_directory=str(spilled)):
            spilled.rmdir()
            spilled.write_text("no folder")
            yield
            spilled.unlink()  # Ray tidies up there
            spilled.mkdir()


def filled() -> list[Any]:
    """References to what fills the store to its last 100 KiB."""
    kept: list[Any] = []
    for size in (2**23, 2**20, 2**17, 2**15):
        while True:
            try:
                kept.append(ray.put(np.ones(size, np.uint8)))
            except OutOfDiskError:
                break
    return kept


def table(path: Path, images: int, side: int) -> Path:
    """Noise in two shades, in the table itself: lanes have it from the store."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(images):
        shade = 60 + 100 * (number % 2)
        pixels = (shade + rng.normal(0, 20, (side, side, 3))).clip(0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "BMP")
        rows.append({"image": file.getvalue(), "label": ["dark", "light"][number % 2]})
    pd.DataFrame(rows).to_parquet(path)
    return path


def searched(root: Path, photos: Path, listener: Any = None) -> raytl.Run:
    root.mkdir(exist_ok=True)
    (root / "space.yaml").write_text(SPACE)
    return raytl.search(
        raytl.Task(photos, holdout=0.0), str(root / "space.yaml"), trials=2, lanes=1, name="found",
        storage=root / "runs", warm_start=False, listeners=[] if listener is None else [listener],
    )  # fmt: skip


def test_data_that_do_not_fit_are_one_sentence_before_anything_is_trained(tmp_path: Path) -> None:
    photos = table(tmp_path / "large.parquet", images=16, side=1500)
    sentence = (
        r"the search's data \(10\d MiB\) has no room in Ray's object store \(it holds 80 MiB\), and the disk that it "
        r"spills to is full as well: make room .*--object-store-memory BYTES"
    )
    with pytest.raises(UserError, match=sentence):
        searched(tmp_path, photos)


class Filling:
    """Fills the store once lanes have begun to train."""

    kept: list[Any] | None = None

    def on_phase(self, phase: str, detail: str) -> None: ...

    def on_trial(self, record: TrialRecord) -> None:
        if self.kept is None and record.lane not in ("", "driver"):
            self.kept = filled()


def test_a_search_comes_to_its_end_though_nothing_has_room_any_more(tmp_path: Path) -> None:
    photos = table(tmp_path / "small.parquet", images=40, side=24)
    undisturbed = searched(tmp_path / "undisturbed", photos)
    filling = Filling()
    run = searched(tmp_path / "full", photos, filling)
    assert filling.kept
    assert run.status == "finished" and run.has_model
    assert {record.status for record in run.records()} <= {TrialStatus.COMPLETED, TrialStatus.PRUNED}
    assert rows(run) == rows(undisturbed)
    assert run.outcome is not None and undisturbed.outcome is not None
    assert run.outcome["best"]["strategy_key"] == undisturbed.outcome["best"]["strategy_key"]


def test_what_has_no_room_is_no_process_out_of_memory() -> None:
    kept = filled()
    try:
        with pytest.raises(RayError) as put:
            ray.put(np.ones(2**20, np.uint8))
        with pytest.raises(RayError) as returned:
            ray.get(ray.remote(lambda: np.ones(2**24, np.uint8)).remote())
        assert "memory" in str(put.value) and not starved(put.value)
        assert "memory" in str(returned.value) and not starved(returned.value)
        assert not starved(ObjectStoreFullError("full"))
        result = in_store(JobResult(model_files={"model.safetensors": b"0" * 2**24}))
        assert (
            result.model_files is None and "refitted model (16 MiB) has no room in Ray's object store" in result.reason
        )
    finally:
        del kept
