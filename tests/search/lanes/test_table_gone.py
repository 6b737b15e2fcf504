"""A large table that goes away, or changes, during a search: the trials that need its images fail, with a sentence."""

from __future__ import annotations

import io
import pickle
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
from joblist import trial

from raytl.search.lanes.work import do_job
from raytl.tasks import TrainingData
from raytl.tasks.readers import read_labelled, table
from raytl.tasks.rows import RowItem
from raytl.training.workspace import Workspace

PRETRAINED = f"pretrain:other/{tiny.MODEL}"


def parquet(path: Path, seed: int) -> Path:
    made = tiny.shapes(6, seed, classes=("p", "q"))
    files = []
    for item in made.items:
        item.open().save(file := io.BytesIO(), "BMP")
        files.append(file.getvalue())
    labels = [made.classes[label] for label in made.labels]
    pq.write_table(pa.table({"image": pa.array(files, pa.binary()), "label": labels}), path)
    return path


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainingData:
    """As a lane has it: a source domain lies in a table."""
    monkeypatch.setattr(table, "HELD_BYTES", 0)
    other = read_labelled(parquet(tmp_path / "other.parquet", 4)).images
    assert all(isinstance(item, RowItem) for item in other.items)
    data = tiny.data()
    arrived: TrainingData = pickle.loads(
        pickle.dumps(replace(data, source_domains={**data.source_domains, "other": other}))
    )
    return arrived


def reasons(workspace: Workspace) -> list[str | None]:
    jobs = [trial(0), trial(1, source_model=PRETRAINED), trial(2)]
    return [do_job(workspace, job, lambda message: None).reason for job in jobs]


def test_nothing_is_wrong_with_a_table_that_is_there(tmp_path: Path, held: TrainingData) -> None:
    assert reasons(tiny.workspace(tmp_path, held)) == [None, None, None]


def test_one_that_is_gone_fails_what_needs_it(tmp_path: Path, held: TrainingData) -> None:
    (tmp_path / "other.parquet").unlink()
    first, second, third = reasons(tiny.workspace(tmp_path, held))
    assert first is None and third is None
    assert second is not None and "other.parquet row 1: the table is not there any more; put it back" in second
    assert "\n" not in second


def test_so_does_one_that_is_another(tmp_path: Path, held: TrainingData) -> None:
    parquet(tmp_path / "other.parquet", 5)
    first, second, third = reasons(tiny.workspace(tmp_path, held))
    assert first is None and third is None
    assert (
        second is not None and "is not what it was when the table was first read; put it back or begin anew" in second
    )
