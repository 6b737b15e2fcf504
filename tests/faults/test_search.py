"""Faults made in a search while it runs: what it comes to is what it comes to without them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from own_ray import own_ray
from s3 import S3Server, s3_server
from searching import WHY, Watching, last_words, make_task, make_whole, searched, table

import raytl
from raytl.api.by_hand import ask
from raytl.runs import Run, RunStore
from raytl.runs.requests import ask_to_stop, untried
from raytl.search.lanes.tuning import BY_HAND
from raytl.search.plan.by_hand import PHASE
from raytl.search.records import TrialRecord, TrialStatus
from raytl.training.strategy import Strategy

pytestmark = pytest.mark.slow
AWAY_S = 15.0
"""Longer than a storage's answer to a request is waited for."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_task(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module", autouse=True)
def session(root: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYTL_HOME", str(root / "home"))
        patch.setenv("no_proxy", "127.0.0.1")
        with own_ray(2):
            yield


@pytest.fixture(scope="module")
def undisturbed(root: Path, session: None) -> Run:
    return searched(root, "undisturbed")


def test_what_must_fail_fails_with_its_reason_and_nothing_else_does(undisturbed: Run) -> None:
    failed = [record for record in undisturbed.records() if record.status is TrialStatus.FAILED]
    for name, why in WHY.items():
        reasons = [str(record.reason) for record in failed if f"{name}.safetensors" in record.strategy["source_model"]]
        assert reasons and all(why in reason for reason in reasons)
    assert all("file:" in record.strategy["source_model"] for record in failed)
    assert undisturbed.status == "finished" and undisturbed.has_model


def test_a_lane_that_is_killed_changes_nothing(root: Path, undisturbed: Run) -> None:
    killed: list[int] = []
    lanes: list[str] = []

    def kill(record: TrialRecord) -> None:
        if record.lane and record.lane != "driver":
            lanes.append(record.lane)
        if record.status is TrialStatus.RUNNING and len(record.history) == 2 and lanes and len(killed) < 2:
            pid = int(lanes[-1].rpartition("-")[2])
            if pid not in killed:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    run = searched(root, "killed", kill)
    assert killed, "no lane was killed"
    assert table(run) == table(undisturbed)
    assert run.outcome is not None and undisturbed.outcome is not None
    assert run.outcome["best"]["strategy_key"] == undisturbed.outcome["best"]["strategy_key"]


@pytest.fixture
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


def test_storage_that_goes_away_and_comes_back_changes_nothing(
    root: Path, undisturbed: Run, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs on S3, which does not answer for a while: the search comes to what it comes to on a disk."""
    back: list[threading.Thread] = []
    completed = threading.Event()

    def come_back() -> None:
        time.sleep(AWAY_S)
        completed.wait(120)  # in which a search that waits for the storage completes nothing
        s3.go_on()

    def leave(record: TrialRecord) -> None:
        if record.status is TrialStatus.RUNNING and record.history and not back:
            s3.pause()
            back.append(threading.Thread(target=come_back))
            back[0].start()
        elif back and back[0].is_alive() and record.status is TrialStatus.COMPLETED:
            completed.set()

    run = searched(root, "disturbed", leave, s3.uri())
    assert back, "the storage never went away"
    back[0].join()
    monkeypatch.setenv("RAYTL_HOME", str(root / "another-machine"))
    there = RunStore(s3.uri()).open("disturbed")
    assert there.status == run.status == "finished" and there.has_model
    assert table(there) == table(undisturbed)
    assert completed.is_set(), "the search waited for the storage"
    assert there.outcome is not None and undisturbed.outcome is not None
    assert there.outcome["best"]["strategy_key"] == undisturbed.outcome["best"]["strategy_key"]


def test_what_is_asked_by_hand_is_done_between_epochs(root: Path) -> None:
    asked: list[int] = []

    def ask(record: TrialRecord) -> None:
        if record.status is not TrialStatus.RUNNING or not record.history or record.kind != "search":
            return
        if not asked:
            asked.append(record.number)
            ask_to_stop(RunStore(root / "runs").open("by-hand"), record.number)
            time.sleep(1.1)  # a driver looks once a second
        elif record.number != asked[0] and len(asked) < 2:
            asked.append(record.number)
            ask_to_stop(RunStore(root / "runs").open("by-hand"))
            time.sleep(1.1)

    run = searched(root, "by-hand", ask)
    ended = {record.number: record for record in run.records()}
    assert len(asked) == 2, "not both were asked"
    assert (ended[asked[0]].status, ended[asked[0]].reason) == (TrialStatus.FAILED, BY_HAND)
    assert run.status == "interrupted" and ended[asked[1]].status is TrialStatus.INTERRUPTED
    make_whole(root)
    gone_on = raytl.resume(run)
    assert gone_on.status == "finished"
    before = {number: record for number, record in ended.items() if record.status is not TrialStatus.INTERRUPTED}
    after = {record.number: record for record in gone_on.records()}
    assert all(after[number].score == record.score for number, record in before.items())


class Hearing:
    """Keeps what is said of strategies by hand, and does something once the search writes its report."""

    def __init__(self, act: Callable[[], Any] = lambda: None) -> None:
        self._act = act
        self.said: list[str] = []

    def on_trial(self, record: TrialRecord) -> None:
        pass

    def on_phase(self, phase: str, detail: str) -> None:
        if phase == "report":
            self._act()
        elif phase == PHASE:
            self.said.append(detail)


def test_a_strategy_that_is_asked_for_too_late_is_tried_once_the_search_goes_on(root: Path) -> None:
    before = raytl.open_run("by-hand", root / "runs")  # finished above
    tried = {record.strategy_key for record in before.records()}
    trained = [record for record in before.records() if record.kind == "search" and record.score is not None]
    variants = [(like, {**like.strategy, "head_lr": rate}) for like in trained for rate in (0.03, 0.1, 0.3)]
    like, late = next((like, values) for like, values in variants if Strategy.from_dict(values).key not in tried)
    key, words = Strategy.from_dict(late).key, f"{late['source_model']}, cut {late['cut']}"
    assignment = f"head_lr={late['head_lr']}"

    make_whole(root)
    hearing = Hearing(lambda: ask("by-hand", [assignment], like=like.number, storage=root / "runs"))
    run = raytl.resume(before, more_trials=1, listeners=[hearing])
    assert hearing.said == [f"asked for by hand and not tried: {words}; kept for when the search goes on"]
    hearing = Hearing()
    gone_on = raytl.resume(run, more_trials=1, listeners=[hearing])
    assert hearing.said == [f"asked for by hand, tried next: {words}"]
    assert key in {record.strategy_key for record in gone_on.records()}
    assert untried(gone_on.place, {record.strategy_key for record in gone_on.records()}) == {}


def test_a_driver_that_is_killed_loses_no_trial_that_ended(root: Path, undisturbed: Run) -> None:
    make_whole(root)
    script = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import searching
root, completed = Path(sys.argv[1]), set()

def stay(record):
    # Or it may have come to its end before it is killed.
    completed.update([record.number] if str(record.status) == "completed" else [])
    if len(completed) == 4:
        (root / "stays").touch()
        time.sleep(600)

searching.searched(root, "driver", stay)
"""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    address = ray.get_runtime_context().gcs_address
    said = root / "said"
    with said.open("wb") as errors, subprocess.Popen(
        [sys.executable, "-c", script, str(root), str(Path(__file__).parent)],
        env=environment | {"RAY_ADDRESS": address}, start_new_session=True, stderr=errors,
    ) as driver:  # fmt: skip
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and driver.poll() is None and not (root / "stays").exists():
            time.sleep(0.1)
        os.killpg(driver.pid, signal.SIGKILL)
    assert f"raytl search --resume {root / 'runs' / 'driver'}" in last_words(said)
    before = [row for row in table(RunStore(root / "runs").open("driver")) if row[3] in ("completed", "failed")]
    assert len(before) >= 3
    make_whole(root)
    run = raytl.resume("driver", storage=root / "runs", listeners=[Watching(root, lambda record: None)])
    after = [row for row in table(run) if row[3] != "interrupted"]
    assert all(row in after for row in before)
    assert sorted(map(str, after)) == sorted(map(str, table(undisturbed)))
    assert run.outcome is not None and undisturbed.outcome is not None
    assert run.status == "finished"
    assert run.outcome["best"]["strategy_key"] == undisturbed.outcome["best"]["strategy_key"]
