"""What a search says before it begins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny import MODEL, SIDE, data, shapes

from raytl.core.errors import UserError
from raytl.evaluation.selection import LOG_LOSS_CAP, SPREAD
from raytl.search import driver
from raytl.search.driver import MEMORY, TIME, search
from raytl.search.planning import SearchSettings, check_goal
from raytl.search.records import TrialRecord, TrialStatus
from raytl.search.space.binding import BoundSpace
from raytl.search.space.definition import load_space
from raytl.tasks import TrainingData
from raytl.training import Strategy, arrays


class Heard:
    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def on_trial(self, record: TrialRecord) -> None:
        """Nothing."""

    def on_phase(self, phase: str, detail: str) -> None:
        self.told.append((phase, detail))


@pytest.mark.parametrize(("gone_s", "said"), [(20.0, True), (5.0, False)])
def test_where_much_of_the_time_went_into_reading_that_is_said(
    tmp_path: Path, gone_s: float, said: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "time", SimpleNamespace(monotonic=lambda: 1000.0))
    file = tmp_path / "space.yaml"
    file.write_text(f"image_size: {SIDE}\nspace:\n  source_model: ['{MODEL}']\n")
    bound, heard = BoundSpace(load_space(str(file)), data()), Heard()
    settings = SearchSettings(time_budget_s=40.0, at="recall=0.9")  # of three classes: it goes no further
    with pytest.raises(UserError, match="two classes"):
        search(bound, None, settings, tmp_path, heard, begun=1000.0 - gone_s)
    sentence = (TIME, "20 s of the time budget went into starting and reading the data")
    assert heard.told == ([sentence] if said else [])


class ToldError(Exception):
    """What was to be seen was seen."""


def test_trials_that_an_earlier_version_scored_are_on_todays_scale_before_they_count(tmp_path: Path) -> None:
    class Ended(Heard):
        def on_trial(self, record: TrialRecord) -> None:
            raise ToldError(record.score)

    file = tmp_path / "space.yaml"
    file.write_text(f"image_size: {SIDE}\nspace:\n  source_model: ['{MODEL}']\n")
    bound = BoundSpace(load_space(str(file)), data())
    strategy = Strategy(MODEL, head_lr=0.01)
    told = {"epoch": 1.0, "target-metric": 0.5, "target-log-loss": -1.0, "labelled": 0.4, "score": 0.4}
    earlier = TrialRecord(0, "search", strategy.to_dict(), strategy.key, status=TrialStatus.COMPLETED, score=0.4)
    earlier.history, earlier.metrics, earlier.validated = [dict(told)], dict(told), list(range(9))
    with pytest.raises(ToldError) as raised:
        search(bound, None, SearchSettings(), tmp_path, Ended(), earlier=[earlier])
    assert raised.value.args == (0.5 - SPREAD / 3 / LOG_LOSS_CAP,)


def test_where_there_is_no_room_to_keep_what_trials_share_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ended(Heard):
        def on_phase(self, phase: str, detail: str) -> None:
            if phase == MEMORY and "again and again" in detail:
                raise ToldError(detail)

    file = tmp_path / "space.yaml"
    file.write_text(f"image_size: {SIDE}\nspace:\n  source_model: ['{MODEL}']\n")
    monkeypatch.setattr(arrays, "room_bytes", lambda folder: -(2**40))
    with pytest.raises(ToldError, match="free space there, or point RAYTL_HOME at another place"):
        search(BoundSpace(load_space(str(file)), data()), None, SearchSettings(), tmp_path, Ended())


def test_an_operating_point_without_target_labels_is_refused_before_the_search() -> None:
    two = ("bar", "disc")
    held = TrainingData("x", two, None, shapes(4, 2).without_labels(), {"a": shapes(4, 1, classes=two)}, channels=1)
    with pytest.raises(UserError, match=r"--at needs labelled images of the target.*--target"):
        check_goal(held, SearchSettings(at="recall=0.9"))
    check_goal(replace(held, target=shapes(4, 3, classes=two)), SearchSettings(at="recall=0.9"))
