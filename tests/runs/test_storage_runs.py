"""Runs on a real S3 server: written here, read there, gone on with elsewhere, through faults of the storage."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pandas as pd
import pytest
from example import SETTINGS, outcome_of, play, write_example
from s3 import s3_server

from raytl.core.errors import UserError
from raytl.runs import Run, RunStore, labels, requests
from raytl.runs.report import write_report
from raytl.runs.storage import keeper, lease, mirror, remote
from raytl.runs.store import Known
from raytl.search.records import TrialRecord, TrialStatus


@pytest.fixture(scope="module")
def s3():
    with s3_server() as server:
        yield server


@pytest.fixture
def uri(s3, tmp_path):
    return s3.uri(tmp_path.name)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Moves to another machine: one with an empty disk, unless it was there before."""

    def move(name: str) -> None:
        monkeypatch.setenv("RAYTL_HOME", str(tmp_path / name))

    move("first")
    return move


def plainly(run) -> dict:
    return json.loads(json.dumps(run.summary() | {"path": None}))


def wait_for(uri: str, name: str) -> None:
    """Until a run that was just begun is there."""
    patience = time.monotonic() + 120
    while name not in [place.name for place in RunStore(uri).places()]:
        assert time.monotonic() < patience
        time.sleep(0.05)


def refit(writer, key: str, weights: bytes) -> None:
    """A refitted model, as a search leaves it."""
    folder = writer.path / "refits" / key
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "model.json").write_text("{}")
    writer.keep(f"refits/{key}")


class TestReading:
    def test_a_run_reads_there_as_it_does_on_a_disk(self, uri, machine, tmp_path):
        here = write_example(tmp_path / "runs", trials=12)
        write_example(uri, trials=12)
        machine("second")
        there = RunStore(uri).open("digits")
        assert plainly(there) == plainly(here) and there.summary()["path"] == f"{uri}/digits"
        pd.testing.assert_frame_equal(there.trials(), here.trials())
        pd.testing.assert_frame_equal(there.history(), here.history())
        pd.testing.assert_frame_equal(there.predictions(), here.predictions())
        assert [repr(record) for record in there.records()] == [repr(record) for record in here.records()]
        assert plainly(RunStore(tmp_path / "elsewhere").open(f"{uri}/digits")) == plainly(here)

    def test_what_is_left_there_has_the_names_of_a_runs_folder(self, uri, machine, tmp_path):
        here = write_example(tmp_path / "runs", trials=3)
        write_example(uri, trials=3)
        names = set(remote.ObjectStorage(uri).place("digits").listed())
        journal = {name for name in names if name.startswith("journal/")}
        assert len(journal) == 2 and "journal/000001" in journal  # in one piece, however many it came in
        assert names - journal == {path.name for path in here.path.iterdir()} - {"trials.jsonl", "run.lock", "lock"}

    def test_all_runs_of_a_storage_are_listed_and_the_nearest_is_named(self, uri, machine):
        assert RunStore(uri).list() == []
        for name in ("flowers", "weeds"):
            write_example(uri, name, trials=2)
        found = RunStore(uri).list()
        assert {(run.name, run.status, run.path) for run in found} == {
            ("flowers", "finished", f"{uri}/flowers"),
            ("weeds", "finished", f"{uri}/weeds"),
        }
        assert all(run.test == pytest.approx(0.96, abs=0.02) for run in found)
        with pytest.raises(UserError, match=rf"no run 'flowes' in {uri}; did you mean 'flowers'\?"):
            RunStore(uri).open("flowes")
        with pytest.raises(UserError, match=rf"no run at {uri}/flowes"):
            RunStore("runs").open(f"{uri}/flowes")

    def test_what_is_known_of_a_run_that_ended_is_not_fetched_again(self, uri, machine, monkeypatch):
        write_example(uri, trials=3)
        known = Known()
        (first,) = RunStore(uri).list(known)
        with monkeypatch.context() as patch:
            patch.setattr(Run, "summary", lambda run: pytest.fail("it was read again"))
            assert RunStore(uri).list(known) == [first]
        labels.tag(RunStore(uri).find("digits"), add=["good"])
        (tagged,) = RunStore(uri).list(known)
        assert list(tagged.tags) == ["good"]

    def test_a_run_is_read_elsewhere_while_it_is_written(self, uri, machine, monkeypatch):
        monkeypatch.setattr(mirror, "PAUSE_S", 0.0)
        with RunStore(uri).create("live", SETTINGS) as writer:
            play(writer, 4)
            machine("second")
            wait_for(uri, "live")
            patience = time.monotonic() + 120
            while len(RunStore(uri).open("live").trials()) < len(writer.trials) and time.monotonic() < patience:
                time.sleep(0.1)
            run = RunStore(uri).open("live")
            assert run.status == "running" and len(run.trials()) == len(writer.trials)
            writer.finish(outcome_of(writer.trials))
        assert RunStore(uri).open("live").status == "finished"

    def test_what_is_asked_of_a_search_from_elsewhere_is_heard(self, uri, machine):
        now = [0.0]
        with RunStore(uri).create("live", SETTINGS) as writer:
            requests.clear(writer.place)
            asked = requests.listening(writer.place, clock=lambda: now[0])
            assert not asked().stop
            wait_for(uri, "live")
            machine("second")
            requests.ask_to_stop(RunStore(uri).open("live"))
            patience = time.monotonic() + 120
            while not asked().stop:  # it looks beside the search
                now[0] += requests.PERIOD_URI_S
                assert time.monotonic() < patience
                time.sleep(0.05)

    def test_a_report_written_again_goes_there(self, uri, machine):
        write_example(uri, trials=3)
        run = RunStore(uri).open("digits")
        run.place.save(write_report(run).name)
        machine("second")
        assert "digits" in RunStore(uri).open("digits").place.file("report.html").read_text()

    def test_a_copy_is_a_run_of_its_own(self, uri, machine, tmp_path):
        there = write_example(uri, trials=4)
        for number, place in enumerate((RunStore(uri).find("digits"), there.place)):
            place.copy(tmp_path / f"copy-{number}")
            copied = RunStore(tmp_path).open(f"copy-{number}")
            assert plainly(copied) | {"run": "digits"} == plainly(there)
            assert [repr(record) for record in copied.records()] == [repr(record) for record in there.records()]

    def test_an_address_in_the_uri_will_do_without_an_environment(self, uri, machine, s3, monkeypatch):
        monkeypatch.delenv("AWS_ENDPOINT_URL")
        query = f"?endpoint_override={s3.endpoint}&region=us-east-1"
        write_example(f"{uri}{query}", trials=2)
        assert RunStore("runs").open(f"{uri}/digits{query}").status == "finished"
        assert [run.name for run in RunStore(f"{uri}{query}").list()] == ["digits"]


class TestWriting:
    def test_a_second_driver_is_refused_on_any_machine(self, uri, machine):
        with RunStore(uri).create("flowers", SETTINGS):
            machine("second")
            wait_for(uri, "flowers")
            for resume in (False, True):
                with pytest.raises(UserError, match=r"run 'flowers' is being written by another process \(pid \d+ on "):
                    RunStore(uri).create("flowers", SETTINGS, resume=resume)
            assert RunStore(uri).open("flowers").status == "running"
        with pytest.raises(UserError, match=rf"run 'flowers' exists already in {uri}"):
            RunStore(uri).create("flowers", SETTINGS)

    def test_unnamed_runs_get_names_of_their_own(self, uri, machine):
        names = []
        for _ in range(2):
            with RunStore(uri).create(None, {}) as writer:
                names.append(writer.name)
        assert len(set(names)) == 2 and {run.name for run in RunStore(uri).list()} == set(names)

    def test_resume_goes_on_elsewhere_with_an_empty_disk(self, uri, machine):
        with RunStore(uri).create("digits", SETTINGS) as first:
            before = [repr(record) for record in play(first, 5)]
        machine("second")
        with RunStore(uri).create("digits", SETTINGS, resume=True) as again:
            assert [repr(record) for record in again.trials] == before
            again.on_trial(TrialRecord(100, "search", {"cut": 3}, "new", status=TrialStatus.COMPLETED, score=0.4))
            again.finish(outcome_of(again.trials))
        machine("third")
        run = RunStore(uri).open("digits")
        assert run.status == "finished" and set(run.trials()["number"]) == {*range(len(before)), 100}
        assert len(run.records()) == len(before) + 1

    def test_refitted_models_are_there_for_who_goes_on_and_gone_at_the_end(self, uri, machine):
        there = remote.Objects.at(f"{uri}/flowers")
        writer = RunStore(uri).create("flowers", SETTINGS)
        refit(writer, "key", b"weights")
        writer.interrupt()
        assert set(there.list("refits")) == {"refits/key/model.json", "refits/key/model.safetensors"}
        machine("second")
        writer = RunStore(uri).create("flowers", SETTINGS, resume=True)
        assert (writer.path / "refits" / "key" / "model.safetensors").read_bytes() == b"weights"
        play(writer, 2)
        writer.finish(outcome_of(writer.trials))  # which lets go of the run
        machine("third")
        with RunStore(uri).create("flowers", SETTINGS, resume=True) as writer:
            writer.drop("refits")
        assert writer.unkept is None and not there.list("refits") and not (writer.path / "refits").exists()

    def test_a_run_that_was_sent_days_ago_goes_on_and_others_working_copies_go(self, uri, machine):
        for name in ("old", "digits"):
            with RunStore(uri).create(name, SETTINGS) as writer:
                before = [repr(record) for record in play(writer, 2)]
                writer.finish(outcome_of(writer.trials))
        old = writer.path.with_name("old")
        for working_copy in (old, writer.path):
            os.utime(working_copy / keeper.SENT, (time.time() - 2 * remote.KEPT_S,) * 2)
        with RunStore(uri).create("digits", SETTINGS, resume=True) as again:
            assert [repr(record) for record in again.trials] == before
            again.interrupt()
        assert not old.exists()

    def test_what_a_killed_driver_had_not_sent_goes_with_the_next_one_on_its_machine(self, uri, machine):
        there = remote.Objects.at(f"{uri}/flowers")
        writer = RunStore(uri).create("flowers", SETTINGS)
        refit(writer, "key", b"weights")
        writer.interrupt()
        (writer.path / keeper.SENT).unlink()
        for name in ("refits/key/model.json", "refits/key/model.safetensors"):
            there.delete(name)
        there.put("refits/gone/model.safetensors", b"of an earlier model")
        RunStore(uri).create("flowers", SETTINGS, resume=True).interrupt()
        assert set(there.list("refits")) == {"refits/key/model.json", "refits/key/model.safetensors"}

    def test_something_else_in_the_place_is_refused(self, uri, machine):
        remote.Objects.at(f"{uri}/photos").put("daisy/0.png", b"x")
        with pytest.raises(UserError, match="photos exists and is not a run"):
            RunStore(uri).create("photos", {})
        assert list(remote.Objects.at(f"{uri}/photos").list()) == ["daisy/0.png"]


class TestWhatCannotBeWritten:
    @pytest.mark.parametrize(
        ("storage", "why"),
        [
            ("s3://nowhere/runs", r"s3://nowhere/runs: cannot be written \(The specified bucket does not exist.*\)"),
            ("s3://", "names no bucket"),
            ("foo://bucket/runs", "foo://bucket/runs: cannot be opened"),
            ("s3://bucket/runs?foo=1", r"s3://bucket/runs\?foo=1: cannot be opened \(Unexpected query parameter"),
            ("smb://bucket/runs", r"smb://bucket/runs: cannot be opened \(SMB requires \"smbprotocol\""),
        ],
    )
    def test_is_said_in_one_sentence(self, s3, machine, storage, why):
        with pytest.raises(UserError, match=why) as raised:
            RunStore(storage).check()
        assert "\n" not in str(raised.value)

    def test_reading_from_a_bucket_that_is_not_there(self, s3, machine):
        assert RunStore("s3://nowhere/runs").list() == []

    def test_nothing_is_left_by_the_check(self, uri, machine):
        RunStore(uri).check()
        assert remote.Objects.at(uri).list() == {}

    def test_a_store_that_only_fsspec_knows(self, machine):
        write_example("memory://bucket/runs", trials=2)
        assert RunStore("memory://bucket/runs").open("digits").status == "finished"


class TestFaults:
    def test_storage_that_comes_back_gets_everything(self, uri, machine, s3, monkeypatch):
        with RunStore(uri).create("flowers", SETTINGS) as writer:
            s3.pause()
            started = time.monotonic()
            play(writer, 5)
            assert time.monotonic() - started < 60  # it is not held up: each of dozens of records would wait for 10 s
            s3.go_on()
            writer.finish(outcome_of(writer.trials))
        assert writer.unkept is None
        machine("second")
        run = RunStore(uri).open("flowers")
        assert run.status == "finished" and len(run.records()) == len(writer.trials)

    def test_large_models_that_are_gone_before_they_were_sent_hold_nothing_up(self, uri, machine, s3, monkeypatch):
        monkeypatch.setattr(mirror, "HELD_BYTES", 0)
        with RunStore(uri).create("flowers", SETTINGS) as writer:
            wait_for(uri, "flowers")
            s3.pause()
            for key in ("first", "second"):
                refit(writer, key, b"weights")
            time.sleep(0.3)  # the first file is on its way
            writer.drop("refits")
            s3.go_on()
            play(writer, 2)
            writer.finish(outcome_of(writer.trials))
        assert writer.unkept is None and not remote.Objects.at(f"{uri}/flowers").list("refits")
        assert RunStore(uri).open("flowers").status == "finished"

    def test_storage_that_stays_away_is_told_of_and_sent_to_later(self, uri, machine, s3, monkeypatch):
        monkeypatch.setattr(keeper, "PATIENCE_S", 0.5)
        monkeypatch.setattr(lease, "LETTING_GO_S", 0.5)
        given = f"{uri}?region=us-east-1&scheme=http"
        with RunStore(given).create("flowers", SETTINGS) as writer:
            play(writer, 2)
            s3.pause()
            try:
                run = writer.finish(outcome_of(writer.trials))
                writer.__exit__(None, None, None)
            finally:
                s3.go_on()
        said = rf"run 'flowers' is whole in {run.path}, but .+ of it could not be kept at {uri}/flowers\?\S+ \(.+\)\. "
        assert writer.unkept is not None and "outcome.json" in writer.unkept
        assert re.match(said, writer.unkept) and writer.unkept.endswith(f"raytl runs send flowers --storage '{given}'")
        assert run.status == "finished" and Path(run.path / "trials.parquet").exists()
        monkeypatch.setattr(keeper, "PATIENCE_S", 60.0)
        while lease.is_held(remote.Objects.at(f"{uri}/flowers")):  # let go as soon as the storage answers
            time.sleep(0.2)
        assert RunStore(uri).send("flowers") is None
        with pytest.raises(UserError, match="nothing of run 'flowers' on this machine waits"):
            RunStore(uri).send("flowers")
        machine("second")
        there = RunStore(uri).open("flowers")
        assert plainly(there) == plainly(run) and len(there.records()) == len(writer.trials)

    def test_what_a_search_removed_while_the_storage_was_away_is_removed_later(self, uri, machine, s3, monkeypatch):
        def model(writer, names: tuple[str, ...]) -> None:
            writer.drop("model")
            (writer.path / "model").mkdir()
            for name in names:
                (writer.path / "model" / name).write_text("{}")
            writer.keep("model")

        with RunStore(uri).create("flowers", SETTINGS) as writer:
            play(writer, 2)
            model(writer, ("model.json", "yardstick.safetensors"))
            writer.finish(outcome_of(writer.trials))
        monkeypatch.setattr(keeper, "PATIENCE_S", 0.5)
        monkeypatch.setattr(lease, "LETTING_GO_S", 0.5)
        with RunStore(uri).create("flowers", SETTINGS, resume=True) as writer:
            s3.pause()
            try:
                for name in ("outcome.json", "predictions.parquet"):
                    writer.drop(name)
                model(writer, ("model.json",))
                writer.interrupt()
                writer.__exit__(None, None, None)
            finally:
                s3.go_on()
        monkeypatch.setattr(keeper, "PATIENCE_S", 60.0)
        there = remote.Objects.at(f"{uri}/flowers")
        while lease.is_held(there):
            time.sleep(0.2)
        assert {"outcome.json", "predictions.parquet", "model/yardstick.safetensors"} <= set(there.list())
        assert RunStore(uri).send("flowers") is None
        assert set(there.list("model")) == {"model/model.json"}
        assert not {"outcome.json", "predictions.parquet"} & set(there.list())
