"""What a search says before it begins."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tiny import MODEL, SIDE, data

from raytl.core.errors import UserError
from raytl.search.driver import TIME, search
from raytl.search.planning import SearchSettings
from raytl.search.records import TrialRecord
from raytl.search.space.binding import BoundSpace
from raytl.search.space.definition import load_space


class Heard:
    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def on_trial(self, record: TrialRecord) -> None:
        """Nothing."""

    def on_phase(self, phase: str, detail: str) -> None:
        self.told.append((phase, detail))


@pytest.mark.parametrize(("gone_s", "said"), [(20.0, True), (5.0, False)])
def test_where_much_of_the_time_went_into_reading_that_is_said(tmp_path: Path, gone_s: float, said: bool) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(f"image_size: {SIDE}\nspace:\n  source_model: ['{MODEL}']\n")
    bound, heard = BoundSpace(load_space(str(file)), data()), Heard()
    settings = SearchSettings(time_budget_s=40.0, at="recall=0.9")  # of three classes: it goes no further
    with pytest.raises(UserError, match="two classes"):
        search(bound, None, settings, tmp_path, heard, begun=time.monotonic() - gone_s)
    sentence = (TIME, "20 s of the time budget went into starting and reading the data")
    assert heard.told == ([sentence] if said else [])
