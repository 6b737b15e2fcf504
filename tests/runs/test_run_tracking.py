"""What trackers are told of a search, read back from what was written, and that none can harm it."""

from __future__ import annotations

import struct
import threading
import warnings
from pathlib import Path

import pytest
from example import CLASSES, SETTINGS, outcome_of, play
from mlflow.tracking import MlflowClient
from tensorboardX.proto.event_pb2 import Event

from raytl.core.errors import StorageWarning, UserError
from raytl.runs import Run, RunStore
from raytl.runs.tracking import Tracking, read_switches, tracking
from raytl.runs.tracking.tracking import Told
from raytl.search.records import TrialRecord, TrialStatus


class Both:
    """A writer with a tracker beside it, as a search has them."""

    def __init__(self, writer, beside) -> None:
        self.writer, self.beside = writer, beside

    def on_trial(self, record) -> None:
        self.writer.on_trial(record)
        self.beside.on_trial(record)

    def on_phase(self, phase, detail) -> None:
        self.writer.on_phase(phase, detail)


def search(folder: Path, *switches: str, again: bool = False, more: int = 0) -> Run:
    """A search of six strategies, told to trackers; again: it goes on, and its trials are told anew."""
    settings = SETTINGS | {"search": {"trials": 6, "seed": 0}}
    with RunStore(folder / "runs").create("digits", settings, resume=again) as writer:
        told = Told("digits", str(writer.path), writer.path, settings)
        with Tracking(read_switches(switches), told) as beside:
            records = writer.trials if again else play(Both(writer, beside), 6)
            for record in records if again else ():
                beside.on_trial(record)
            for number in range(len(records), len(records) + more):
                record = TrialRecord(number, "search", records[-1].strategy, "more", status=TrialStatus.COMPLETED)
                Both(writer, beside).on_trial(record)
                records.append(record)
            run = writer.finish(outcome_of(records))
            beside.end(run)
    return run


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Scalars by name of all event files of a folder: step and value. Text and settings without values."""
    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.glob("events*")):
        content = path.read_bytes()
        while content:  # length, its checksum, the event, its checksum
            size = struct.unpack("<Q", content[:8])[0]
            event, content = Event.FromString(content[12 : 12 + size]), content[16 + size :]
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


class TestTensorBoard:
    def test_trials_by_epoch_and_what_the_run_came_to(self, tmp_path):
        run = search(tmp_path, "tensorboard")
        folder = run.path / "tensorboard"
        records = run.records()
        assert [path.name for path in sorted(folder.iterdir())] == ["run", *(f"trial-{r.number:04d}" for r in records)]
        for record in records:
            read = events(folder / f"trial-{record.number:04d}")
            assert read["score"] == [(look["epoch"], pytest.approx(look["score"])) for look in record.history]
            assert "_hparams_/session_start_info" in read
        last = events(folder / "run")
        assert last["best_test"] == [(0, pytest.approx(run.summary()["best"]["test_metric"]["value"]))]
        assert last["gain_scratch_low"] == [(0, pytest.approx(run.summary()["gains"]["scratch"]["low"]))]

    def test_elsewhere_and_a_search_that_goes_on_writes_no_trial_twice(self, tmp_path):
        switch = f"tensorboard={tmp_path / 'board'}"
        search(tmp_path, switch)
        before = {path: path.stat().st_size for path in (tmp_path / "board").rglob("events*") if "trial" in str(path)}
        run = search(tmp_path, switch, again=True, more=2)
        files = [path for path in (tmp_path / "board" / "digits").rglob("events*") if "trial" in str(path)]
        assert len(files) == len(run.records()) == len(before) + 2
        assert all(path.stat().st_size == size for path, size in before.items())
        assert not (run.path / "tensorboard").exists()


class TestMlflow:
    def test_trials_are_runs_below_one_and_a_search_goes_on_in_its_own(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # making a database takes it most of a minute
        uri = (tmp_path / "mlruns").as_uri()
        run = search(tmp_path, f"mlflow={uri}")
        self.check(uri, run)
        self.check(uri, search(tmp_path, f"mlflow={uri}", again=True, more=2))

    def check(self, uri: str, run: Run) -> None:
        client, records = MlflowClient(uri), {str(record.number): record for record in run.records()}
        found = client.search_runs([client.get_experiment_by_name("raytl").experiment_id])
        (parent,) = (one for one in found if "mlflow.parentRunId" not in one.data.tags)
        nested = [one for one in found if one is not parent]
        assert {one.data.tags["mlflow.parentRunId"] for one in nested} == {parent.info.run_id}
        assert sorted(one.data.tags["raytl.trial"] for one in nested) == sorted(records)
        for one in nested:
            record = records[one.data.tags["raytl.trial"]]
            looks = client.get_metric_history(one.info.run_id, "score") if record.history else []
            assert [(look.step, look.value) for look in looks] == [(r["epoch"], r["score"]) for r in record.history]
            assert one.data.params["fold"] == str(record.fold)
            assert one.data.params["source_model"] == record.strategy["source_model"]
            assert (one.info.status == "FAILED") == (record.status is TrialStatus.FAILED)
        best = run.summary()["best"]
        assert (parent.info.status, parent.info.run_name) == ("FINISHED", "digits")
        assert parent.data.metrics["best_test"] == best["test_metric"]["value"]
        assert parent.data.metrics["trials"] == len(records)
        assert parent.data.tags["best.cut"] == str(best["strategy"]["cut"])
        assert parent.data.params["search.trials"] == "6"


class TestNoneCanHarmTheSearch:
    def test_one_that_cannot_be_written_to_is_warned_of_once(self, tmp_path):
        (tmp_path / "file").write_text("not a folder")
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            run = search(tmp_path, f"tensorboard={tmp_path / 'file'}")
        assert run.status == "finished" and len(run.records()) == len(run.trials())
        (sentence,) = [str(one.message) for one in said if one.category is StorageWarning]
        assert "nothing more is written there (" in sentence and "search itself is not touched" in sentence

    def test_one_that_does_not_answer_is_left_after_a_while(self, tmp_path, monkeypatch):
        never = threading.Event()
        monkeypatch.setattr(tracking, "_opened", lambda switch, told: never.wait())
        monkeypatch.setattr(tracking, "PATIENCE_S", 0.1)
        with pytest.warns(StorageWarning, match="did not take everything in time"):
            assert search(tmp_path, "tensorboard").status == "finished"
        never.set()

    def test_a_search_that_fails_is_not_left_running_there(self, tmp_path):
        told = Told("digits", "digits", tmp_path, {"classes": CLASSES})
        with pytest.raises(UserError), Tracking(["tensorboard"], told):
            raise UserError("no trial succeeded")
        assert "status/text_summary" in events(tmp_path / "tensorboard" / "run")


@pytest.mark.parametrize(
    ("switches", "why"),
    [
        (["mlfow"], "--log mlfow: there is no tracker 'mlfow'; did you mean 'mlflow'?"),
        (["mlflow", "mlflow=http://here"], "mlflow is given twice"),
        (["tensorboard="], "say where to after the ="),
    ],
)
def test_a_switch_that_is_wrong_is_told_before_the_search(switches, why):
    with pytest.raises(UserError) as told:
        read_switches(switches)
    assert why in str(told.value)


def test_a_tracker_that_is_not_installed_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"mlflow is not installed: pip install 'raytl\[mlflow\]'"):
        read_switches(["mlflow"])
