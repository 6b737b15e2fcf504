"""A run that lies at a URI is read from there, without the head."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from raytl.api.submitting import JobHandle, find_run
from raytl.core.errors import UserError
from raytl.jobs import Job
from raytl.runs import Run, RunStore
from raytl.runs.labels import note_of, tag, tags_of, write_note


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


class TestAgain:
    """What was done to a run here is not undone by fetching it a second time."""

    @pytest.fixture
    def there(self, bucket):
        """A run at the URI that is searched for a while, interrupted, and gone on with."""

        def search(*phases: str) -> None:
            store = RunStore(bucket)
            begun = "roses" in [place.name for place in store.places()]
            with store.create("roses", {}, resume=begun) as writer:
                for phase in phases:
                    writer.on_phase(phase, "")

        return search

    @pytest.fixture
    def fetch(self, bucket, tmp_path):
        return lambda: handle(bucket, "roses").fetch(tmp_path / "here")

    def test_tags_and_the_note_stay(self, there, fetch, bucket):
        there("search")
        got = fetch()
        tag(got.place, ["keep", "ours"])
        write_note(got.place, "for the paper")
        tag(RunStore(bucket).find("roses"), ["theirs"])
        there("confirm")
        again = fetch()
        assert [phase.phase for phase in again.phases()] == ["search", "confirm"]
        assert (tags_of(again.place), note_of(again.place)) == (["keep", "ours", "theirs"], "for the paper")

    def test_what_was_tried_here_is_not_replaced(self, there, fetch):
        there("search")
        got = fetch()
        with RunStore(got.path.parent).create("roses", {}, resume=True) as writer:
            writer.on_phase("here", "")
        there("there")
        with pytest.raises(UserError, match="roses was gone on with here, and what was tried here is not in the run"):
            fetch()
        assert [phase.phase for phase in Run(got.path).phases()] == ["search", "here"]
        assert [path.name for path in got.path.parent.iterdir()] == ["roses"]

    def test_half_a_line_of_a_driver_that_died_there_is_no_trial_from_here(self, there, fetch):
        there("search")
        with (fetch().path / "trials.jsonl").open("ab") as journal:
            journal.write(b'{"trial":7,"set":{"sta')
        there("confirm")
        assert [phase.phase for phase in fetch().phases()] == ["search", "confirm"]

    def test_one_that_is_searched_here_now_stays(self, there, fetch):
        there("search")
        got = fetch()
        with (
            RunStore(got.path.parent).create("roses", {}, resume=True),
            pytest.raises(UserError, match="is being written"),
        ):
            fetch()
        assert got.path.is_dir()


@pytest.mark.parametrize("run", ["", "..", "/", "../../x", "/mnt/runs/a"])
def test_a_name_from_the_cluster_leads_nowhere_else(bucket, tmp_path, run):
    with pytest.raises(UserError, match=r"is no name of a run|bring it home with: raytl fetch"):
        handle(bucket, run).fetch(tmp_path / "here")
    assert not (tmp_path / "here").exists() and not (tmp_path / "x").exists()


@pytest.mark.parametrize("run", ["", "..", "/", "runs/.."])
def test_what_is_no_name_is_not_asked_for(run):
    with pytest.raises(UserError, match="is no name of a run; 'raytl jobs list' shows"):
        find_run(run, address="http://127.0.0.1:9")
