"""What an interrupted run must still have for its search to go on."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raytl.api.planning import bind
from raytl.api.searching import _run_settings, resume
from raytl.core.errors import UserError
from raytl.runs import Run, RunStore
from raytl.runs.going_on import More
from raytl.runs.resuming import UNLIMITED, read
from raytl.search.planning import SearchSettings
from raytl.search.space.definition import load_space
from raytl.serving.ports import free_port
from raytl.tasks import Task, demo_task, make_task

BEGUN = SearchSettings(trials=20, time_budget_s=600.0, lanes=2, seed=3)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("daisy", "poppy"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(6):
            pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


def interrupted(root: Path, task: Task, phases: tuple[str, ...] = ("search",), **changes: Any) -> Run:
    space = load_space("demo", ["epochs=5"])
    assert task.test is not None
    settings = {
        "space": space.name,
        "space_values": space.values,
        "given": task.given,
        "fingerprint": task.data.fingerprint,
        "test_fingerprint": task.test.fingerprint,
        "search": asdict(BEGUN),
    }
    kept = {key: value for key, value in (settings | changes).items() if value != "absent"}
    with RunStore(root / "runs").create("flowers", kept) as writer:
        for phase in phases:
            writer.on_phase(phase, "")
    return Run(root / "runs" / "flowers")


def test_gives_back_task_space_and_settings(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also from another working directory than it was begun in."""
    monkeypatch.chdir(tmp_path)
    task = Task("photos", seed=3, holdout=0.3)
    run = interrupted(tmp_path, task)
    monkeypatch.chdir(Path("/"))
    begun = read(run)
    assert begun.task.data.fingerprint == task.data.fingerprint
    assert begun.space == load_space("demo", ["epochs=5"])
    assert begun.first_settings == BEGUN


@pytest.mark.parametrize(
    ("removed", "asked", "name"),
    [(0, None, "accuracy"), (4, None, "balanced-accuracy"), (4, "log-loss", "log-loss")],
)
def test_a_run_knows_its_metric_from_the_start(photos: Path, removed: int, asked: str | None, name: str) -> None:
    """Also one that nobody asked for: what is killed must not be read as accuracy."""
    for number in range(removed):
        (photos / "poppy" / f"{number}.png").unlink()
    task = Task(photos, seed=3, holdout=0.0)
    settings = _run_settings(task, bind(task, "demo"), replace(BEGUN, metric=asked))
    assert settings["metric"] == name and settings["search"]["metric"] == asked


def test_data_that_came_along_with_a_submitted_search_is_of_use_again(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYTL_HOME", str(tmp_path / "home"))
    place = tmp_path / "home" / "submitted" / "0123abcd"
    place.mkdir(parents=True)
    photos.rename(place / "photos")
    monkeypatch.chdir(place)  # as the launcher of a job does
    run = interrupted(tmp_path, Task("photos", seed=3, holdout=0.3))
    for path in (place, tmp_path / "home"):
        os.utime(path, (0, 0))
    began = time.time()
    read(run)
    assert place.stat().st_mtime > began - 60 and (tmp_path / "home").stat().st_mtime == 0


def test_time_that_was_used_is_spent_and_what_is_given_goes_before(tmp_path: Path, photos: Path) -> None:
    run = interrupted(tmp_path, Task(photos, seed=3, holdout=0.3))
    document = json.loads((run.path / "run.json").read_text())
    document |= {"started": "2026-01-31T10:00:00+00:00", "ended": "2026-01-31T10:07:30+00:00"}
    (run.path / "run.json").write_text(json.dumps(document))
    begun = read(Run(run.path))
    nothing: dict[str, Any] = {"trials": None, "time_budget_s": None, "lanes": None, "address": None, "verbose": False}
    rest = begun.settings(**nothing)
    assert (rest.trials, rest.time_budget_s, rest.lanes, rest.seed) == (20, 150.0, 2, 3)
    changed = begun.settings(**(nothing | {"trials": 1, "time_budget_s": 30.0, "lanes": 4}))
    assert (changed.trials, changed.time_budget_s, changed.lanes, changed.seed) == (1, 30.0, 4, 3)
    # Of what it was begun with: with another limit its source models would be made anew, and be others.
    assert rest.pretraining_s == changed.pretraining_s == begun.first_settings.pretraining_s == 60.0


def test_it_goes_on_where_it_is_told_to_or_the_environment_says_and_else_where_it_began(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job of a cluster is told by its environment: the one that the run began on may be gone."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    first = asdict(replace(BEGUN, address="10.0.0.7:6379"))
    begun = read(interrupted(tmp_path, Task(photos, seed=3, holdout=0.3), search=first))
    nothing: dict[str, Any] = {"trials": None, "time_budget_s": None, "lanes": None, "address": None, "verbose": False}
    assert begun.settings(**nothing).address == "10.0.0.7:6379"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.8:6379")
    assert begun.settings(**nothing).address == "10.0.0.8:6379"
    assert begun.settings(**(nothing | {"address": "local"})).address == "local"


def test_where_the_cluster_that_it_began_on_is_gone_it_is_said_how_to_go_on_elsewhere(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    gone = f"127.0.0.1:{free_port()}"
    run = interrupted(tmp_path, Task(photos, seed=3, holdout=0.3), search=asdict(replace(BEGUN, address=gone)))
    with pytest.raises(
        UserError, match=rf"'{gone}' \(connection refused\).*run 'flowers' was .* --address local"
    ) as said:
        resume(run.path)
    assert "\n" not in str(said.value)


def test_time_that_a_killed_run_was_copied_after_is_not_spent(tmp_path: Path, photos: Path) -> None:
    """Its end is when it was last heard of, and not the age of the files."""
    run = interrupted(tmp_path, Task(photos, seed=3, holdout=0.3))
    document, journal = json.loads((run.path / "run.json").read_text()), run.path / "trials.jsonl"
    began = datetime(2026, 1, 31, 10, tzinfo=UTC)
    (run.path / "run.json").write_text(
        json.dumps(document | {"status": "running", "started": began.isoformat(), "ended": None})
    )
    heard = began + timedelta(minutes=7)
    journal.write_text(f'{{"phase": "search", "detail": "", "at": {heard.timestamp()}}}\n{{"trial": 1, "at')
    assert Run(run.path).seconds == pytest.approx(420.0)


def test_time_between_two_sessions_is_not_spent(tmp_path: Path, photos: Path) -> None:
    """Begun at ten for seven minutes, gone on with the next day for two."""
    run = interrupted(tmp_path, Task(photos, seed=3, holdout=0.3))
    document = json.loads((run.path / "run.json").read_text())
    document |= {"started": "2026-01-31T10:00:00+00:00", "ended": "2026-01-31T10:07:00+00:00"}
    (run.path / "run.json").write_text(json.dumps(document))
    with RunStore(tmp_path / "runs").create("flowers", run.settings, resume=True):
        pass
    document = json.loads((run.path / "run.json").read_text())
    assert document["spent_s"] == 420.0
    document |= {"resumed": ["2026-02-01T09:00:00+00:00"], "ended": "2026-02-01T09:02:00+00:00"}
    (run.path / "run.json").write_text(json.dumps(document))
    assert read(Run(run.path)).used_s == 540.0


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"given": "absent"}, "begun by an older raytl"),
        ({"given": None}, "got its data from memory"),
        ({"fingerprint": "other"}, "its data is not what it was"),
        ({"test_fingerprint": "other"}, "its data is not what it was"),
    ],
)
def test_is_refused(tmp_path: Path, photos: Path, changes: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError, match=why):
        read(interrupted(tmp_path, Task(photos, seed=3, holdout=0.3), **changes))


def test_is_refused_where_an_image_went(tmp_path: Path, photos: Path) -> None:
    run = interrupted(tmp_path, Task(photos, seed=3, holdout=0.3))
    (photos / "daisy" / "0.png").unlink()
    with pytest.raises(UserError, match="its data is not what it was"):
        read(run)


class TestMovedData:
    def test_is_found_where_it_is_said_to_be(self, tmp_path: Path, photos: Path) -> None:
        task = Task(photos, seed=3, holdout=0.3)
        run = interrupted(tmp_path, task)
        elsewhere = photos.rename(tmp_path / "elsewhere")
        begun = read(run, {str(photos): str(elsewhere)})
        assert begun.task.data.fingerprint == task.data.fingerprint
        assert begun.task.given == {**(task.given or {}), "target": str(elsewhere)}

    def test_a_folder_above_will_do_and_source_domains_keep_their_names(
        self, tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.copytree(photos, tmp_path / "a" / "target")
        shutil.copytree(photos / "daisy", tmp_path / "a" / "studio" / "daisy")
        shutil.copytree(photos / "daisy", tmp_path / "a" / "studio" / "poppy")
        for number, path in enumerate(sorted((tmp_path / "a" / "studio").glob("*/*.png"))):
            Image.new("RGB", (16, 16), (number, 20, 30)).save(path)
        task = Task(tmp_path / "a" / "target", tmp_path / "a" / "studio", seed=3, holdout=0.3)
        run = interrupted(tmp_path, task)
        (tmp_path / "a").rename(tmp_path / "b")
        monkeypatch.chdir(tmp_path)
        begun = read(run, {"a": "b"})
        assert list(begun.task.data.source_domains) == list(task.data.source_domains)
        assert begun.task.data.fingerprint == task.data.fingerprint

    def test_that_it_went_is_told_with_the_way_out(self, tmp_path: Path, photos: Path) -> None:
        run = interrupted(tmp_path, Task(photos, seed=3, holdout=0.3))
        photos.rename(tmp_path / "elsewhere")
        with pytest.raises(UserError, match=f"its data is not in {photos} any more.*add --moved {photos}=NEW"):
            read(run)
        with pytest.raises(UserError, match=f"is not in {tmp_path}/nowhere either; correct --moved {photos}=NEW"):
            read(run, {str(photos): str(tmp_path / "nowhere")})

    def test_other_data_is_refused(self, tmp_path: Path, photos: Path) -> None:
        run = interrupted(tmp_path, Task(photos, seed=3, holdout=0.3))
        elsewhere = photos.rename(tmp_path / "elsewhere")
        Image.new("RGB", (16, 16)).save(elsewhere / "daisy" / "0.png")
        with pytest.raises(UserError, match=f"'flowers': in {elsewhere} is other data than its search was begun with"):
            read(run, {str(photos): str(elsewhere)})

    def test_a_place_that_nothing_was_read_from(self, tmp_path: Path, photos: Path) -> None:
        run = interrupted(tmp_path, Task(photos, seed=3, holdout=0.3))
        with pytest.raises(
            UserError, match=f"--moved {photos}x=new: nothing was read from {photos}x; it was from {photos}"
        ):
            read(run, {f"{photos}x": "new"})


def test_is_refused_while_it_is_running(tmp_path: Path) -> None:
    with RunStore(tmp_path).create("flowers", {}) as writer, pytest.raises(UserError, match="'flowers' is running"):
        read(Run(writer.path))


def test_the_demo_is_made_again_from_its_seed() -> None:
    task = demo_task(4)
    assert task.given == {"demo": 4}
    assert make_task(task.given).data.fingerprint == task.data.fingerprint


def test_images_in_memory_cannot_be_made_again() -> None:
    images = demo_task(0).data.target
    assert images is not None
    assert Task(images).given is None


def killed_while_testing(root: Path, task: Task, *names: str) -> Run:
    """The test split was opened, and of what was found these files were written."""
    run = interrupted(root, task, phases=("search", "choice", "test"))
    before = outcome_document(run)
    for name in names:
        (run.path / name).write_text(json.dumps(before))
    return Run(run.path)


def outcome_document(run: Run) -> dict[str, Any]:
    best = {"strategy_key": "a", "strategy": {"cut": 1}, "test": {"value": 0.9, "low": 0.8, "high": 1.0}}
    return {"best": best | {"validation": None}, "baselines": [], "seconds": 5.0}


def test_killed_before_anybody_was_told_of_the_test_split_it_may_open_it(tmp_path: Path, photos: Path) -> None:
    assert read(killed_while_testing(tmp_path, Task(photos, seed=3, holdout=0.3))).before is None


def test_killed_after_its_outcome_was_written_it_may_not(tmp_path: Path, photos: Path) -> None:
    run = killed_while_testing(tmp_path, Task(photos, seed=3, holdout=0.3), "predictions.parquet", "outcome.json")
    assert read(run).before == {"trials_then": 0, **outcome_document(run)}


def test_opened_on_what_tells_nothing_it_was_opened_all_the_same(tmp_path: Path, photos: Path) -> None:
    """Test images of one class have no AUROC: no figure is no reason to look a second time, nor to be refused."""
    run = killed_while_testing(tmp_path, Task(photos, seed=3, holdout=0.3), "predictions.parquet")
    found = outcome_document(run)
    told = found | {"best": found["best"] | {"test": None}, "test_undefined": "the test images are all 'poppy'"}
    (run.path / "outcome.json").write_text(json.dumps(told))
    assert read(run).before == {"trials_then": 0, **told}


def test_is_refused_where_predictions_were_written_and_no_outcome(tmp_path: Path, photos: Path) -> None:
    run = killed_while_testing(tmp_path, Task(photos, seed=3, holdout=0.3), "predictions.parquet")
    with pytest.raises(UserError, match="had opened its test split"):
        read(run)


def test_what_opened_the_test_split_stays_through_further_extensions(tmp_path: Path, photos: Path) -> None:
    run = killed_while_testing(tmp_path, Task(photos, seed=3, holdout=0.3), "outcome.json")
    first = outcome_document(run) | {"trials_then": 7}
    (run.path / "outcome.before.json").write_text(json.dumps(first))
    assert read(run).before == first


def test_a_finished_run_asks_for_more(tmp_path: Path, photos: Path) -> None:
    run = interrupted(tmp_path, Task(photos, seed=3, holdout=0.3))
    document = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps(document | {"status": "finished"}))
    with pytest.raises(UserError, match=r"run 'flowers' is finished; .*--trials \+50 or --time-budget \+30m"):
        read(Run(run.path))
    begun = replace(read(Run(run.path), more=More(trials=50)), tried=13)
    assert begun.ended
    nothing: dict[str, Any] = {"trials": None, "time_budget_s": None, "lanes": None, "address": None, "verbose": False}
    further = begun.settings(**nothing, more=More(trials=50))
    assert (further.trials, further.time_budget_s, further.patience) == (63, None, None)
    longer = begun.settings(**nothing, more=More(seconds=1800.0))
    assert (longer.trials, longer.time_budget_s) == (UNLIMITED, 1800.0)
    both = begun.settings(**nothing, more=More(5, 60.0))
    assert (both.trials, both.time_budget_s) == (18, 60.0)


def test_an_interrupted_run_gets_more_on_top_of_what_it_had(tmp_path: Path, photos: Path) -> None:
    run = interrupted(tmp_path, Task(photos, seed=3, holdout=0.3))
    begun = replace(read(run, more=More(trials=50)), used_s=100.0)
    nothing: dict[str, Any] = {"trials": None, "time_budget_s": None, "lanes": None, "address": None, "verbose": False}
    assert BEGUN.time_budget_s is not None and BEGUN.trials is not None
    further = begun.settings(**nothing, more=More(trials=50))
    assert (further.trials, further.time_budget_s) == (BEGUN.trials + 50, BEGUN.time_budget_s - 100.0)
    longer = begun.settings(**nothing, more=More(seconds=60.0))
    assert (longer.trials, longer.time_budget_s) == (BEGUN.trials, BEGUN.time_budget_s - 40.0)
    by_time = replace(begun, first_settings=replace(BEGUN, trials=None), tried=7).settings(
        **nothing, more=More(trials=5)
    )
    assert by_time.trials == 12  # of a search that only time was to end
    by_number = replace(begun, first_settings=replace(BEGUN, trials=None, time_budget_s=None))
    assert by_number.settings(**nothing | {"time_budget_s": 60.0}).trials == begun.space.settings.trials
