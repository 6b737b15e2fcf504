"""The part that runs on the cluster: where data stays, where runs go, what the dashboard may hand out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from ray._private.runtime_env.packaging import create_package

from raytl.core.paths import note_run
from raytl.jobs.launch import JOB_CONFIG, LINKS, clear, come_back, link, resolve_storage, settle
from raytl.jobs.packing import DATA, Parcel
from raytl.jobs.submission import entrypoint


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A job's folder with data in it, as Ray unpacks it."""
    monkeypatch.setenv("RAYTL_HOME", str(tmp_path / "home"))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.txt").write_text("one")
    parcel = Parcel()
    parcel.add(tmp_path / "photos", "--target")
    parcel.write(tmp_path / "job.zip")
    with zipfile.ZipFile(tmp_path / "job.zip") as file:
        file.extractall(tmp_path / "job")
    return tmp_path / "job"


def test_data_stays_where_the_next_job_finds_it(job):
    place = settle(job)
    assert (place / "photos" / "1.txt").read_text() == "one"
    assert (
        place / "raytl-data" / "photos" / "1.txt"
    ).read_text() == "one"  # as lanes call it, which are in the job's folder
    (job / "raytl-data" / "photos" / "1.txt").unlink()  # Ray clears its folders
    assert settle(job) == place and (place / "photos" / "1.txt").exists()
    assert [path.name for path in place.parent.iterdir()] == [place.name]


def test_a_later_job_of_the_run_has_lanes_find_the_data_of_the_first(job, tmp_path, monkeypatch):
    """As Ray packs their folder: once, and without the circle that the link to the data makes."""
    first = {"working_dir": "gcs://second.zip", "env_vars": {"COLUMNS": "80"}}
    monkeypatch.setenv(JOB_CONFIG, json.dumps({"runtime_env": first, "metadata": {"raytl_run": "a"}}))
    assert come_back("/mnt/runs/a", tmp_path / "second") is None
    assert json.loads(os.environ[JOB_CONFIG])["runtime_env"] == first
    place = settle(job)
    monkeypatch.chdir(place)
    note_run("/mnt/runs/a")
    assert come_back("/mnt/runs/a", tmp_path / "second") == place
    document = json.loads(os.environ[JOB_CONFIG])
    environment = document["runtime_env"]
    assert document["metadata"] == {"raytl_run": "a"} and environment["env_vars"] == {"COLUMNS": "80"}
    assert environment["py_modules"] == [str(tmp_path / "second" / "raytl")]
    create_package(environment["working_dir"], tmp_path / "lane.zip", include_gitignore=True,
                   excludes=environment["excludes"])  # fmt: skip
    with zipfile.ZipFile(tmp_path / "lane.zip") as file:
        assert [name for name in file.namelist() if not name.endswith("/")] == ["raytl-data/photos/1.txt"]


def test_what_was_not_used_for_longest_goes_once_there_is_too_much(tmp_path):
    now = time.time()
    for days, (name, whole) in enumerate([("new", True), ("used", True), ("old", True), ("torn", False)]):
        (tmp_path / name).mkdir()
        (tmp_path / name / "picture").write_bytes(bytes(100))
        if whole:
            (tmp_path / name / DATA).symlink_to(".")
        os.utime(tmp_path / name, (now - 86400 * days, now - 86400 * days))
    left = lambda: sorted(path.name for path in tmp_path.iterdir())  # noqa: E731
    clear(tmp_path, limit_bytes=1000, spared_s=4 * 86400.0)
    assert left() == ["new", "old", "torn", "used"]  # somebody may be copying
    clear(tmp_path, limit_bytes=300, spared_s=3600.0)
    assert left() == ["new", "old", "used"]
    clear(tmp_path, limit_bytes=200, spared_s=3600.0)
    assert left() == ["new", "used"]
    clear(tmp_path, limit_bytes=0, spared_s=3600.0)
    assert left() == ["new"]


def test_without_data_nothing_is_settled(tmp_path):
    assert settle(tmp_path) is None


def test_runs_do_not_go_into_the_jobs_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAYTL_STORAGE", raising=False)
    assert resolve_storage(None) == str(tmp_path / "raytl-runs")
    assert resolve_storage("mine") == str(tmp_path / "mine")
    assert resolve_storage("/mnt/runs") == "/mnt/runs"
    assert resolve_storage("s3://bucket/runs") == "s3://bucket/runs"
    monkeypatch.setenv("RAYTL_STORAGE", "gs://team/runs")
    assert resolve_storage(None) == "gs://team/runs"


def test_a_run_is_linked_before_it_is_there_and_again(tmp_path):
    run = tmp_path / "runs" / "flowers"
    link(run, tmp_path)
    link(run, tmp_path)
    run.mkdir(parents=True)
    (run / "run.json").write_text("{}")
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.glob(f"{LINKS}/flowers/**/*")] == [
        f"{LINKS}/flowers/run.json"
    ]


def test_the_entrypoint_keeps_words_together():
    assert entrypoint("a", None, ["search", "--target", "my photos"]) == (
        "python -P -m raytl.jobs.launch --run a -- search --target 'my photos'"
    )
    assert entrypoint("a", "s3://b/r", []) == "python -P -m raytl.jobs.launch --run a --storage s3://b/r"


def test_outside_of_a_job_it_says_so():
    command = [sys.executable, "-m", "raytl.jobs.launch", "--run", "a", "--", "search"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 2
    assert done.stderr == "raytl: this is started by Ray Jobs (raytl submit), and by nobody else\n"
