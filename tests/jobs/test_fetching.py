"""A run that lies at a URI is read from there, without the head."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from raytl.api.submitting import JobHandle
from raytl.core.errors import UserError
from raytl.jobs import Job
from raytl.runs import RunStore


def handle(storage: str, run: str = "flowers") -> JobHandle:
    job = Job("raytl-flowers", run, "succeeded", "", "", None, None, 0, storage, "node")
    return JobHandle(SimpleNamespace(url="http://127.0.0.1:9"), job)


@pytest.fixture
def bucket(tmp_path):
    run = tmp_path / "bucket" / "flowers"
    (run / "model").mkdir(parents=True)
    (run / "run.json").write_text('{"status": "finished", "started": "2026-01-31T10:00:00+00:00"}')
    (run / "model" / "model.json").write_text("{}")
    (run / "run.lock").touch()
    return f"file://{tmp_path}/bucket"


def test_it_is_copied_whole_and_again(bucket, tmp_path):
    for _ in range(2):
        got = handle(f"{bucket}/").fetch(tmp_path / "here")
        files = sorted(str(path.relative_to(got.path)) for path in got.path.rglob("*") if path.is_file())
        assert (got.name, files) == ("flowers", ["model/model.json", "run.json"])
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["flowers"]


def test_what_is_not_there_yet_and_what_cannot_be_read(bucket, tmp_path):
    with pytest.raises(UserError, match="tulips: there is no run yet; what its job says: raytl jobs logs tulips"):
        handle(bucket, "tulips").fetch(tmp_path / "here")
    with pytest.raises(UserError, match="nix://bucket: cannot be opened"):
        handle("nix://bucket").fetch(tmp_path / "here")
    assert list((tmp_path / "here").iterdir()) == []


def test_a_folder_of_that_name_that_is_no_run_stays(bucket, tmp_path):
    (tmp_path / "here" / "flowers").mkdir(parents=True)
    with pytest.raises(UserError, match="is there already and another one"):
        handle(bucket).fetch(tmp_path / "here")


def test_a_run_is_brought_into_a_folder(bucket, monkeypatch):
    monkeypatch.setenv("RAYTL_STORAGE", "s3://bucket/runs")
    with pytest.raises(UserError, match="s3://bucket/runs: a run is brought home into a folder; name one with"):
        handle(bucket).fetch()


def test_the_journal_comes_home_in_one_piece(bucket, tmp_path):
    """At a URI it lies in segments; a folder has it as a file."""
    with RunStore(bucket).create("roses", {}) as writer:
        writer.on_phase("search", "")
    got = handle(bucket, "roses").fetch(tmp_path / "here")
    assert [phase.phase for phase in got.phases()] == ["search"] and got.status == "interrupted"
    assert not (got.path / "journal").exists()
