"""What a lane reports as a trial's time: what the strategy took, not what its source model did."""

from __future__ import annotations

import time
from itertools import count
from pathlib import Path

import pytest
from joblist import trial
from tiny import data, workspace

from raytl.search.jobs import JobResult
from raytl.search.lanes import work
from raytl.sources import SourceModel
from raytl.training.distributed import Group
from raytl.training.workspace import Workspace


def test_leaves_out_waiting_for_the_source_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks, load = count(), Workspace._load
    waited: list[str] = []

    def slow(space: Workspace, uri: str) -> SourceModel:
        waited.append(uri)
        return load(space, uri)

    # A second passes at each look at the clock, and an hour with each source model.
    monkeypatch.setattr(Workspace, "_load", slow)
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)) + 3600.0 * len(waited))
    result = JobResult()
    work._trial(workspace(tmp_path, data()), trial(0), lambda report: None, result, Group())
    assert waited
    assert 0.0 < result.seconds < 3600.0
