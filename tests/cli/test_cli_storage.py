"""A search whose data and runs are on S3: its driver killed, gone on with on an empty disk, and then for more."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest
from conftest import RAYTL, Place
from documented import undocumented
from photos import folder, space
from s3 import s3_server

from raytl.runs.storage.objects import Objects

pytestmark = pytest.mark.slow  # searches that start Ray


@pytest.fixture(scope="module")
def s3():
    with s3_server() as server:
        yield server


@pytest.fixture(scope="module")
def bucket(s3, tmp_path_factory):
    """Labelled photographs on S3."""
    here = tmp_path_factory.mktemp("photographs")
    folder(here / "photos")
    there = Objects.at(s3.uri("photos"))
    for path in (here / "photos").rglob("*.png"):
        there.put(path.relative_to(here / "photos").as_posix(), path.read_bytes())
    return s3.uri("runs")


@pytest.fixture(scope="module")
def machine(make_place, s3, monkeypatch_module):
    def make(name: str) -> Place:
        place = make_place(name)
        path = space(place.folder)
        path.write_text(path.read_text().replace("[0.03, 0.1]", "{low: 0.01, high: 0.2, log: true}"))
        return place

    return make


@pytest.fixture
def place(machine, request) -> Place:
    """A machine that has seen nothing of it."""
    return machine(request.function.__name__)


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "127.0.0.1")
        yield patch


def finished_trials(storage: str, name: str) -> dict[int, str]:
    """Trials that ended, with what is recorded of them, as anybody reads them."""
    from raytl.runs import RunStore

    try:
        records = RunStore(storage).open(name).records()
    except Exception:  # noqa: BLE001  # not there yet
        return {}
    return {record.number: repr(record) for record in records if str(record.status) in ("completed", "pruned")}


def searched(storage: str, name: str) -> int:
    """How many trials of the search itself were begun."""
    from raytl.runs import RunStore

    return sum(record.kind == "search" for record in RunStore(storage).open(name).records())


def refits(storage: str, name: str) -> list[str]:
    """Refitted models that are whole there."""
    return [key for key in Objects.at(f"{storage}/{name}").list("refits") if key.endswith("/model.json")]


@pytest.fixture(scope="module")
def resumed(machine, bucket, s3):
    """Killed by -9 once some of many trials had ended; then gone on with elsewhere, for two more."""
    first = machine("first")
    command = ["search", "--target", s3.uri("photos"), "--space", "tiny.yaml", "--trials", "300", "--holdout", "0.2"]
    driver = subprocess.Popen(
        [RAYTL, *command, "--lanes", "1", "--name", "flowers", "--storage", bucket],
        cwd=first.folder,
        env=first.environment | s3.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    before: dict[int, str] = {}
    while len(before) < 3 and time.monotonic() < deadline and driver.poll() is None:
        time.sleep(0.1)
        before = finished_trials(bucket, "flowers")
    deadline = time.monotonic() + 300
    while not refits(bucket, "flowers") and time.monotonic() < deadline and driver.poll() is None:
        time.sleep(0.2)  # the first model's
    assert driver.poll() is None, driver.communicate()[1].decode()
    os.killpg(driver.pid, signal.SIGKILL)
    said = driver.communicate()[1].decode()
    assert len(before) >= 3 and refits(bucket, "flowers"), said
    second = machine("second")
    more = ("--trials", str(searched(bucket, "flowers") + 2))
    done = second.run("search", "--resume", "flowers", *more, "--storage", bucket, "--json", **s3.environment)
    assert done.code == 0, done.err
    return before, second, done


def test_no_trial_that_ended_was_run_again(resumed, bucket):
    before, _, done = resumed
    after = finished_trials(bucket, "flowers")
    assert {number: after[number] for number in before} == before
    assert (done.document["status"], done.document["path"]) == ("finished", f"{bucket}/flowers")
    assert undocumented("search", done.document) == set()
    assert refits(bucket, "flowers") == []  # it came to its end: the model is what is kept


def test_all_commands_read_it_from_there(resumed, place, raytl, bucket):
    _, _, done = resumed
    folder(place.folder / "camera", 1, first=80, flat=True)
    at = ("--storage", bucket)
    shown = raytl("runs", "show", "flowers", *at, "--json")
    assert shown.document | {"deployment": None} == done.document
    human = raytl("runs", "show", f"{bucket}/flowers")
    assert f"report: {bucket}/flowers/report.html" in human.out and f"next: raytl deploy {bucket}/flowers" in human.out
    assert raytl("export", "flowers", "model", *at).code == 0
    assert (place.folder / "model" / "model.json").is_file()
    told = raytl("predict", f"{bucket}/flowers", "camera", "--json")
    assert len(told.document["predictions"]) == 3 and not any(one["error"] for one in told.document["predictions"])


def test_it_goes_on_for_more_with_its_test_split_shut(resumed, place, raytl, bucket):
    _, _, done = resumed
    at = ("--storage", bucket)
    refused = raytl("search", "--resume", "flowers", *at)
    assert refused.code == 2 and "run 'flowers' is finished; to go on with it, ask for more" in refused.err
    more = place.run("search", "--resume", "flowers", "--trials", "+3", *at, "--json")
    assert more.code == 0, more.err
    assert more.document["trials"]["count"] >= done.document["trials"]["count"] + 3
    before = more.document["chosen_before"]
    assert before["test_metric"] == done.document["best"]["test_metric"]
    assert before["trials"] == done.document["trials"]["count"]
    now = more.document["best"]["test_metric"]
    assert now == (before["test_metric"] if before["same"] else None)
    assert "Chosen before" in raytl("runs", "show", "flowers", *at).out


def test_labels_comparing_and_deleting(resumed, raytl, bucket):
    at = ("--storage", bucket)
    for command, arguments in {
        "runs tag": ["flowers", "production"],
        "runs compare": ["flowers", "flowers"],
        "runs prune": ["--keep", "0", "--dry-run"],
    }.items():
        done = raytl(*command.split(), *arguments, *at, "--json")
        assert done.code == 0, done.err
        assert undocumented(command, done.document) == set()
    assert done.document["runs"] == []  # it is tagged
    gone = raytl("runs", "delete", "flowers", "--yes", *at, "--json")
    assert undocumented("runs delete", gone.document) == set() and gone.document["deleted"]
    assert raytl("runs", "list", *at, "--json").document["runs"] == []


def test_where_runs_cannot_be_kept_the_search_does_not_start(place, raytl, bucket):
    folder(place.folder / "photos")
    done = raytl("search", "--target", "photos", "--space", "tiny.yaml", "--storage", "s3://nowhere/runs")
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith("raytl: s3://nowhere/runs: cannot be written (The specified bucket")
