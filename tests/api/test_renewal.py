"""Data that came along from elsewhere stays for as long as a search needs it."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

from photos import folder, space

import raytl
from raytl.api import conducting
from raytl.core.paths import in_use, lot_with, submitted
from raytl.search.records import TrialRecord


class Forgetting:
    """Makes a lot as old as one that is removed, waits until it is not, and has seen enough."""

    def __init__(self, lot: Path) -> None:
        self._lot = lot

    def on_trial(self, record: TrialRecord) -> None: ...

    def on_phase(self, phase: str, detail: str) -> None:
        os.utime(self._lot, (1e9, 1e9))
        until = time.monotonic() + 60
        while self._lot.stat().st_mtime == 1e9:
            assert time.monotonic() < until
            time.sleep(0.01)
        raise KeyboardInterrupt


def test_a_search_renews_its_data_while_it_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYTL_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(conducting, "in_use", partial(in_use, every_s=0.05))
    lot = submitted() / "lot"
    folder(lot / "photos", 5)
    folder(lot / "photos", 20, first=5, names=("poppy",))  # so much more that something is said before Ray is there
    monkeypatch.chdir(lot)
    run = raytl.search(
        raytl.Task(target="photos"), str(space(tmp_path)), trials=1, lanes=1, storage=tmp_path / "runs",
        listeners=[Forgetting(lot)],
    )  # fmt: skip
    assert run.status == "interrupted"
    assert lot_with(f"{tmp_path}/runs/{run.name}") == lot
    os.utime(lot, (1e9, 1e9))
    resumed = raytl.resume(run, listeners=[Forgetting(lot)])
    assert resumed.status == "interrupted"
