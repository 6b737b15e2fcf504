"""A run on Google's store, by an emulator of its server: written here, read there, gone on with elsewhere, removed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gcp_storage_emulator
import httpx
import pandas as pd
import pytest
from example import SETTINGS, outcome_of, play, write_example

from raytl.core.errors import UserError
from raytl.core.paths import below
from raytl.runs import Run, RunStore
from raytl.runs.storage.objects import Objects
from raytl.search.records import TrialRecord, TrialStatus
from raytl.serving.ports import free_port

EMULATOR = gcp_storage_emulator.__name__
BUCKET = "bucket"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    port, root = free_port(), tmp_path_factory.mktemp("google")
    told = ["--host", "127.0.0.1", "--port", str(port), "--in-memory", "--default-bucket", BUCKET]
    server = subprocess.Popen(
        [sys.executable, "-m", EMULATOR, "start", *told], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=root
    )
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/", trust_env=False)
                break
            except httpx.TransportError:
                assert server.poll() is None, "the emulator did not start"
                assert time.monotonic() < deadline, "the emulator does not answer"
                time.sleep(0.1)
        yield port
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def uri(port: int, tmp_path: Path) -> str:
    return f"gs://anonymous@{BUCKET}/{tmp_path.name}?scheme=http&endpoint_override=127.0.0.1:{port}"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Moves to another machine: one with an empty disk."""

    def move(name: str) -> None:
        monkeypatch.setenv("RAYTL_HOME", str(tmp_path / name))

    move("first")
    return move


def plainly(run: Run) -> dict[str, object]:
    plain: dict[str, object] = json.loads(json.dumps(run.summary() | {"path": None}))
    return plain


def test_a_run_reads_there_as_it_does_on_a_disk(uri: str, machine: Callable[[str], None], tmp_path: Path) -> None:
    here = write_example(tmp_path / "runs", trials=6)
    write_example(uri, trials=6)
    machine("second")
    assert [(run.name, run.status) for run in RunStore(uri).list()] == [("digits", "finished")]
    there = RunStore(uri).open("digits")
    assert plainly(there) == plainly(here)
    pd.testing.assert_frame_equal(there.trials(), here.trials())
    pd.testing.assert_frame_equal(there.predictions(), here.predictions())
    assert [repr(record) for record in there.records()] == [repr(record) for record in here.records()]
    assert plainly(RunStore(tmp_path / "elsewhere").open(below(uri, "digits"))) == plainly(here)


def test_one_driver_writes_and_another_goes_on(uri: str, machine: Callable[[str], None]) -> None:
    with RunStore(uri).create("digits", SETTINGS) as first:
        before = [repr(record) for record in play(first, 4)]
        machine("second")
        with pytest.raises(UserError, match="is being written by another process"):
            RunStore(uri).create("digits", SETTINGS)
        machine("first")
    machine("second")
    with RunStore(uri).create("digits", SETTINGS, resume=True) as again:
        assert [repr(record) for record in again.trials] == before
        again.on_trial(TrialRecord(100, "search", {"cut": 3}, "new", status=TrialStatus.COMPLETED, score=0.4))
        again.finish(outcome_of(again.trials))
    machine("third")
    run = RunStore(uri).open("digits")
    assert run.status == "finished" and len(run.records()) == len(before) + 1


def test_what_is_removed_leaves_nothing(uri: str, machine: Callable[[str], None]) -> None:
    write_example(uri, trials=2)
    RunStore(uri).find("digits").delete()
    assert Objects.at(uri).list() == {}
    assert RunStore(uri).list() == []


def test_objects_are_put_whole_read_listed_and_deleted(uri: str, tmp_path: Path) -> None:
    objects, large = Objects.at(uri), bytes(range(256)) * 80_000  # more than a part
    (tmp_path / "file").write_bytes(large)
    for key, content in (("a/b.txt", b"one"), ("empty", b""), ("a/b.txt", b"two"), ("large", tmp_path / "file")):
        objects.put(key, content)
    assert {key: seen.size for key, seen in objects.list().items()} == {"a/b.txt": 3, "empty": 0, "large": len(large)}
    assert list(objects.list("a")) == ["a/b.txt"]
    assert objects.get("a/b.txt") == b"two" and objects.get("large") == large
    objects.delete("empty")
    objects.delete("empty")
    with pytest.raises(FileNotFoundError):
        objects.get("empty")
    objects.delete_all()
    assert objects.list() == {}
