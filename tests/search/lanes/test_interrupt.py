"""Ctrl-C during a search."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from joblist import JobList, trial
from ray.tune.search import Searcher
from ray.tune.tune import _setup_signal_catching

from raytl.search.lanes.tuning import PlanSearcher

MARK = "RAYTL_TEST_MARK"
SEARCH = """
import sys
from pathlib import Path
import tiny
from joblist import JobList, trial
from raytl.search.lanes.cluster import cluster
from raytl.search.driver import lane_trainable, run_plan
from raytl.training.workspace import Budget, WorkspaceSettings

def said(number, epoch):
    print("epoch", flush=True)
    return True

folder = Path(sys.argv[1])
settings = WorkspaceSettings(budget=Budget(10_000, 2, 16), image_size=16, folds=(2, 1), device="cpu", threads=1)
plan = JobList([trial(n) for n in range(10)], said)
with cluster(1, 0.0, 2) as lanes, lane_trainable(tiny.data(), settings, lanes, folder) as trainable:
    run_plan(plan, trainable, lanes, folder)
trackers = {"mlflow", "wandb", "comet_ml", "aim"} & set(sys.modules)  # whom nobody asked for
print("interrupted" if plan.interrupted else "finished", *trackers, flush=True)
"""


def processes(mark: str) -> list[int]:
    """Living processes that were started, directly or not, with the mark in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            marked = f"{MARK}={mark}".encode() in (folder / "environ").read_bytes()
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if marked and state != "Z":
            found.append(int(folder.name))
    return found


def test_is_heard_while_tune_waits_for_a_first_trial():
    """It asks for one for ten minutes, and looks at nothing else; first heads may take as long."""
    plan = JobList([trial(0)])
    searcher = PlanSearcher(plan, lambda: 0)
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        _setup_signal_catching()
        assert searcher.suggest("a") is None and searcher.suggest("b") is None
        signal.raise_signal(signal.SIGINT)
        assert searcher.suggest("c") == Searcher.FINISHED
    finally:
        signal.signal(signal.SIGINT, before)
        if hasattr(signal, "SIGUSR1"):
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)


@pytest.mark.slow
def test_ends_a_search_of_several_workers_a_trial_and_leaves_no_process(tmp_path):
    mark = uuid.uuid4().hex
    places = os.pathsep.join([str(Path(__file__).parents[2]), str(Path(__file__).parent)])
    environment = {**os.environ, MARK: mark, "RAYTL_HOME": str(tmp_path / "home"), "PYTHONPATH": places}
    command = [sys.executable, "-c", SEARCH, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as search:
        assert search.stdout is not None
        lines = iter(search.stdout.readline, "")
        assert "epoch" in (line.strip() for line in lines)
        search.send_signal(signal.SIGINT)
        assert "interrupted" in [line.strip() for line in lines]
        assert search.wait() == 0
    until = time.monotonic() + 120  # Ray's own processes take a moment to go, and on a busy machine a minute
    while (left := processes(mark)) and time.monotonic() < until:
        time.sleep(0.2)
    assert left == []
