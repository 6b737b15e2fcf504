"""Runs on S3, which does not answer for a while in the middle of a search: it comes to what it comes to on a disk."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from s3 import S3Server, s3_server
from test_search import make_task, searched, table

from raytl.runs import RunStore
from raytl.search.records import TrialRecord, TrialStatus

pytestmark = pytest.mark.slow
AWAY_S = 15.0
"""Longer than a request is waited for."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        root = make_task(tmp_path_factory.mktemp("storage"))
        patch.setenv("RAYTL_HOME", str(root / "home"))
        patch.setenv("no_proxy", "127.0.0.1")
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield root
        ray.shutdown()


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


def test_storage_that_goes_away_and_comes_back_changes_nothing(
    root: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    back: list[threading.Timer] = []
    went_on: list[float] = []

    def leave(record: TrialRecord) -> None:
        if record.status is TrialStatus.RUNNING and record.history and not back:
            s3.pause()
            back.append(threading.Timer(AWAY_S, s3.go_on))
            back[0].start()
            went_on.append(time.monotonic())
        elif back and back[0].is_alive() and record.status is TrialStatus.COMPLETED:
            went_on.append(time.monotonic())

    run = searched(root, "disturbed", leave, s3.uri())
    assert back, "the storage never went away"
    back[0].join()
    undisturbed = searched(root, "undisturbed")
    monkeypatch.setenv("RAYTL_HOME", str(root / "another-machine"))
    there = RunStore(s3.uri()).open("disturbed")
    assert there.status == run.status == "finished" and there.has_model
    assert table(there) == table(undisturbed)
    assert len(went_on) > 1, "the search waited for the storage"
    assert there.outcome is not None and undisturbed.outcome is not None
    assert there.outcome["best"]["strategy_key"] == undisturbed.outcome["best"]["strategy_key"]
