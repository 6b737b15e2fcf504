"""A run on disk: finished, interrupted, killed, fought over, and on a full disk."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pandas as pd
import pytest
from example import SETTINGS, outcome_of, play, write_example

from raytl.core.errors import UserError
from raytl.runs import RunStore, RunWriter, render_leaderboard
from raytl.runs.lock import TakenOverError
from raytl.runs.sentences import sentences
from raytl.runs.storage import lease
from raytl.search.records import TrialRecord, TrialStatus
from raytl.ui.views import show


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return write_example(tmp_path_factory.mktemp("runs"), trials=30)


def python(code: str, *arguments: object, **options) -> subprocess.Popen[str]:
    """A Python process of its own that runs ``code`` with the example at hand."""
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        **options,
    )


class TestFinishedRun:
    def test_pandas_reads_the_trials_in_one_line(self, finished):
        frame = pd.read_parquet(finished.path / "trials.parquet")
        pd.testing.assert_frame_equal(frame, finished.trials())
        assert list(frame["number"]) == list(range(len(frame)))
        assert {"completed", "pruned", "failed"} == set(frame["status"])

    def test_table_and_journal_tell_the_same(self, finished):
        frame = finished.trials().set_index("number")
        for record in finished.records():
            row = frame.loc[record.number]
            assert (row["status"], row["epochs"], row["strategy.cut"]) == (
                record.status,
                len(record.history),
                record.strategy["cut"],
            )
        said = [record for record in finished.records() if record.status is TrialStatus.COMPLETED]
        assert said and all(len(r.validated) == len(r.predicted) == 10 and len(r.predicted[0]) == 10 for r in said)
        assert len(finished.history()) == sum(len(record.history) for record in finished.records())

    def test_summary_is_the_document_of_search_json(self, finished):
        summary = json.loads(json.dumps(finished.summary(), allow_nan=False))
        assert summary["run"] == "digits" and Path(summary["path"]).samefile(finished.path)
        assert summary["trials"]["count"] == sum(summary["trials"]["by_status"].values()) == 36
        assert set(summary["baselines"]) == {"scratch", "linear-probe", "fine-tune", "source-only"}
        for candidate in [summary["best"], *summary["baselines"].values()]:
            assert set(candidate) == {"trial", "strategy", "score", "validation_metric", "validated", "test_metric"}
            assert (
                candidate["test_metric"]["low"] <= candidate["test_metric"]["value"] <= candidate["test_metric"]["high"]
            )
        told = {control["part"]: control for control in summary["controls"]}
        assert set(told) == {"source-model", "adaptation", "classical"}
        for gain, part in (("transfer_gain", "source-model"), ("adaptation_gain", "adaptation")):
            assert summary[gain] == {name: told[part][name] for name in ("value", "low", "high")}
        assert summary["setting"] == "semi-supervised adaptation"
        assert summary["interrupted"] is False and summary["seconds"] == 171.3

    def test_predictions_agree_with_the_test_figure(self, finished):
        predictions = finished.predictions()
        accuracy = (predictions["label"] == predictions["predicted.best"]).mean()
        assert accuracy == pytest.approx(finished.summary()["best"]["test_metric"]["value"])
        assert predictions.filter(like="probability.").sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)

    def test_settings_and_environment_are_kept(self, finished):
        assert finished.settings == json.loads(json.dumps(SETTINGS))
        assert finished.environment["versions"]["torch"] and finished.environment["cores"] >= 1

    def test_no_pickle_and_no_leftovers_on_disk(self, finished):
        names = {path.name for path in finished.path.iterdir()}
        tables = {"trials.parquet", "history.parquet", "predictions.parquet"}
        assert names == tables | {"run.json", "outcome.json", "trials.jsonl", "run.lock", "lock", "optuna.journal"}
        assert not list((finished.path / "lock").iterdir())


class TestWhileItRuns:
    def test_figures_are_in_the_metric_of_the_search(self, tmp_path):
        store = RunStore(tmp_path)
        with store.create("loss", SETTINGS | {"metric": "log-loss"}) as writer:
            record = TrialRecord(0, "search", {"cut": 0}, "a", status=TrialStatus.COMPLETED, score=0.4)
            record.metrics = {"target-metric": 1.2, "target-accuracy": 0.6}
            writer.on_trial(record)
            going_on, shown = store.open("loss"), show(store.open("loss"), None)
            assert going_on.status == "running" and going_on.summary()["metric"] == "log-loss"
            assert shown["metric"] == "log-loss" and shown["best"]["validation"] == "1.200"
            assert sentences(going_on.summary(), 0)[0].text.startswith("The best model has log loss 1.200 on")
            assert [str(column.header) for column in render_leaderboard(going_on).columns].count("val") == 1
        assert store.open("loss").summary()["metric"] == "log-loss"  # interrupted

    def test_older_runs_are_taken_to_go_by_accuracy(self, tmp_path):
        assert RunStore(tmp_path).create("old", SETTINGS).interrupt().summary()["metric"] == "accuracy"

    def test_a_control_is_neither_the_best_nor_a_baseline(self, tmp_path):
        store = RunStore(tmp_path)
        with store.create("held", SETTINGS) as writer:
            done = {"status": TrialStatus.COMPLETED}
            writer.on_trial(TrialRecord(0, "search", {"cut": 0}, "a", score=0.8, **done))
            writer.on_trial(TrialRecord(1, "baseline", {"cut": 1}, "b", score=0.7, baseline="scratch", **done))
            writer.on_trial(TrialRecord(2, "control", {"cut": 2}, "c", score=0.9, baseline="without freezing", **done))
            writer.on_trial(TrialRecord(3, "control", {"cut": 0}, "a", score=0.8, baseline="the same", **done))
            summary, board = store.open("held").summary(), store.open("held").leaderboard()
        assert (summary["best"]["trial"], summary["best"]["strategy"]) == (0, {"cut": 0})
        assert set(summary["baselines"]) == {"scratch"}
        assert list(board["strategy_key"]) == ["a", "b", "c"]


class TestNames:
    def test_an_unknown_run_names_the_nearest(self, finished):
        store = RunStore(finished.path.parent)
        with pytest.raises(UserError, match=r"no run 'digts' in .*; did you mean 'digits'\?"):
            store.open("digts")
        with pytest.raises(UserError, match="it holds no run yet"):
            RunStore(finished.path.parent / "nowhere").open("digits")

    def test_a_run_opens_by_name_and_by_path(self, finished):
        by_name = RunStore(finished.path.parent).open("digits")
        by_path = RunStore(Path("elsewhere")).open(str(finished.path))
        assert by_name.summary() == by_path.summary()

    @pytest.mark.parametrize("name", ["", ".", "..", "../up", "a/b", "-x", ".hidden", "a b", "x" * 101, "a\n"])
    def test_a_malformed_name_is_refused(self, tmp_path, name):
        with pytest.raises(UserError, match="cannot be a run's name"):
            RunStore(tmp_path / "runs").create(name, {})
        assert not (tmp_path / "runs").exists()

    def test_unnamed_runs_get_names_of_their_own(self, tmp_path):
        store = RunStore(tmp_path)
        names = []
        for _ in range(3):
            with store.create(None, {}) as writer:
                names.append(writer.name)
        assert len(set(names)) == 3 and {run.name for run in store.list()} == set(names)

    def test_a_taken_name_is_refused(self, finished, tmp_path):
        with pytest.raises(UserError, match="run 'digits' exists already"):
            RunStore(finished.path.parent).create("digits", {})
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "a.png").touch()
        with pytest.raises(UserError, match="is not a run"):
            RunStore(tmp_path).create("photos", {})

    def test_storage_that_is_a_file_is_refused(self, tmp_path):
        (tmp_path / "runs").touch()
        with pytest.raises(UserError, match=r"runs.*cannot be written"):
            RunStore(tmp_path / "runs").create("digits", {})


class TestList:
    def test_damaged_runs_are_listed_as_such(self, tmp_path):
        write_example(tmp_path, "good", trials=6)
        (tmp_path / "bad").mkdir()
        (tmp_path / "bad" / "run.json").write_text('{"name": "ba')
        (tmp_path / "notes.txt").touch()
        found = {run.name: run for run in RunStore(tmp_path).list()}
        assert set(found) == {"good", "bad"}
        assert found["bad"].status == "damaged" and "run.json" in found["bad"].problem
        assert found["good"].status == "finished" and found["good"].test == pytest.approx(0.96, abs=0.02)
        json.dumps([run.to_json() for run in found.values()])

    def test_no_storage_no_runs(self, tmp_path):
        assert RunStore(tmp_path / "none").list() == []


class TestInterrupted:
    def test_an_error_in_the_search_leaves_a_readable_run(self, tmp_path):
        with pytest.raises(ZeroDivisionError), RunStore(tmp_path).create("half", SETTINGS) as writer:
            play(writer, 8)
            writer.on_trial(TrialRecord(99, "search", {"cut": 1}, "late"))
            raise ZeroDivisionError
        run = RunStore(tmp_path).open("half")
        assert run.status == "interrupted"
        assert run.trials().set_index("number").loc[99, "status"] == "interrupted"
        summary = run.summary()
        assert summary["interrupted"] and summary["transfer_gain"] is None and "interrupted" in summary["why"]
        assert summary["best"]["strategy"]["source_model"] and summary["best"]["validation_metric"]["value"] > 0.8
        assert set(summary["baselines"]) == {"scratch", "linear-probe", "fine-tune", "source-only"}

    def test_late_events_change_nothing(self, tmp_path):
        writer = RunStore(tmp_path).create("half", SETTINGS)
        play(writer, 1)
        before = len(writer.interrupt().records())
        writer.on_trial(TrialRecord(99, "search", {"cut": 1}, "late"))
        writer.on_phase("test", "")
        assert len(writer.interrupt().records()) == before
        with pytest.raises(RuntimeError, match="has ended"):
            writer.finish(outcome_of(writer.trials))

    def test_a_run_with_no_trial_at_all(self, tmp_path):
        run = RunStore(tmp_path).create("empty", {}).interrupt()
        assert run.summary()["best"] is None and run.summary()["trials"] == {
            "count": 0,
            "by_status": {},
            "trained": 0,
            "trainable": True,
            "scored": False,
            "told": True,
        }
        assert len(run.leaderboard()) == 0 and len(run.history()) == 0

    def test_a_head_on_plain_features_is_no_training_of_a_network(self, tmp_path):
        """With only such ones the report says that more time would tell whether training does better."""
        writer = RunStore(tmp_path).create("plain", SETTINGS)
        tried = [("plain:pixels", "mlp"), ("plain:gradients", "linear"), ("hf:a", "stages"), ("hf:a", "linear")]
        for number, (uri, head) in enumerate(tried):
            strategy = {"source_model": uri, "head": head, "cut": 1}
            status = TrialStatus.COMPLETED if number < 3 else TrialStatus.INTERRUPTED
            writer.on_trial(TrialRecord(number, "search", strategy, str(number), status=status, score=0.4))
        assert writer.interrupt().summary()["trials"]["trained"] == 0

    def test_a_running_run_can_be_read(self, tmp_path):
        writer = RunStore(tmp_path).create("live", SETTINGS)
        play(writer, 4)
        run = RunStore(tmp_path).open("live")
        assert run.status == "running" and len(run.trials()) == len(writer.trials)
        writer.finish(outcome_of(writer.trials))
        assert RunStore(tmp_path).open("live").status == "finished"

    def test_resume_goes_on_where_it_ended(self, tmp_path):
        store = RunStore(tmp_path)
        first = store.create("digits", SETTINGS)
        before = [repr(record) for record in play(first, 5)]
        first.interrupt()
        again = store.create("digits", SETTINGS, resume=True)
        assert [repr(record) for record in again.trials] == before
        again.on_trial(TrialRecord(100, "search", {"cut": 3}, "new", status=TrialStatus.COMPLETED, score=0.4))
        run = again.finish(outcome_of(again.trials))
        assert run.status == "finished" and set(run.trials()["number"]) == {*range(len(before)), 100}

    def test_resume_of_an_unknown_run_is_refused(self, tmp_path):
        with pytest.raises(UserError, match="no run 'digits'"):
            RunStore(tmp_path).create("digits", {}, resume=True)


@pytest.fixture
def no_further_beat(monkeypatch):
    """Leases give no sign of life but the first, however long a test takes."""
    monkeypatch.setattr(lease, "BEAT_S", 1e6)


def elsewhere(storage: Path, silent_s: float) -> tuple[RunStore, RunWriter]:
    """A run that a process of another machine writes, whose last sign of life is so long ago; and that process."""
    store = RunStore(storage)
    writer = store.create("flowers", SETTINGS)
    writer.on_trial(TrialRecord(0, "search", {"cut": 1}, "first", status=TrialStatus.COMPLETED, score=0.4))
    folder, host = storage / "flowers", {"pid": 4127, "host": "node a"}
    keeper = writer._keeper
    fcntl.flock(keeper._lock._file, fcntl.LOCK_UN)  # the locks of that machine do not reach this one
    (folder / "run.lock").write_text(json.dumps(host | {"leased": True}))
    for path in (folder / "lock").iterdir():
        if path.suffix == ".claim":
            path.write_text(json.dumps(host | {"machine": "another"}))
        os.utime(path, (time.time() - silent_s,) * 2)
    return store, writer


class TestTwoWriters:
    def test_the_second_is_told_who_the_first_is_and_takes_over_when_it_was_killed(self, tmp_path):
        code = """
            import sys, time
            from pathlib import Path
            from example import SETTINGS, play
            from raytl.runs import RunStore
            from raytl.search.records import TrialRecord
            writer = RunStore(Path(sys.argv[1])).create("flowers", SETTINGS)
            play(writer, 3)
            writer.on_trial(TrialRecord(50, "search", {"cut": 1}, "late", history=[{"epoch": 1, "accuracy": 0.5}]))
            print("ready", flush=True)
            time.sleep(600)
        """
        process = python(code, tmp_path)
        try:
            assert process.stdout.readline() == "ready\n"
            store = RunStore(tmp_path)
            assert store.open("flowers").status == "running"
            sentence = (
                rf"run 'flowers' is being written by another process \(pid {process.pid} on .+\)\. Wait for it, or "
            )
            for resume in (False, True):
                with pytest.raises(UserError, match=sentence):
                    store.create("flowers", {}, resume=resume)
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        run = store.open("flowers")
        assert run.status == "interrupted"
        killed = run.trials().set_index("number")
        assert killed.loc[50, "status"] == "interrupted" and killed.loc[50, "epochs"] == 1
        resumed = store.create("flowers", SETTINGS, resume=True)
        assert len(resumed.trials) == len(killed)
        resumed.interrupt()

    def test_a_writer_on_another_machine_is_respected_while_it_gives_signs_of_life(self, tmp_path, no_further_beat):
        store, _ = elsewhere(tmp_path, silent_s=lease.LEASE_S / 10)
        assert store.open("flowers").status == "running"
        sentence = r"\(pid 4127 on node a\).*its claim lapses 60 s after its last sign of life"
        with pytest.raises(UserError, match=sentence):
            store.create("flowers", {}, resume=True)
        with pytest.raises(UserError, match=sentence):
            store.create("flowers", {})
        with pytest.raises(UserError, match=sentence):
            store.delete("flowers")

    def test_a_writer_on_another_machine_that_is_silent_is_gone(self, tmp_path, no_further_beat):
        store, _ = elsewhere(tmp_path, silent_s=2 * lease.LEASE_S)
        assert store.open("flowers").status == "interrupted"
        resumed = store.create("flowers", {}, resume=True)
        assert store.open("flowers").status == "running" and len(resumed.trials) == 1
        resumed.interrupt()
        elsewhere(tmp_path / "other", silent_s=2 * lease.LEASE_S)[0].delete("flowers")
        assert not (tmp_path / "other" / "flowers").exists()

    def test_one_that_was_taken_for_dead_writes_nothing_more(self, tmp_path, no_further_beat):
        store, asleep = elsewhere(tmp_path, silent_s=2 * lease.LEASE_S)
        with store.create("flowers", {}, resume=True) as awake:
            record = TrialRecord(1, "search", {"cut": 2}, "new", status=TrialStatus.COMPLETED, score=0.5)
            awake.on_trial(record)
            before = (tmp_path / "flowers" / "trials.jsonl").read_bytes()
            for write in (
                lambda: asleep.on_trial(TrialRecord(2, "search", {"cut": 3}, "late")),
                lambda: asleep.on_phase("late", ""),
                lambda: asleep.drop("outcome.json"),
                lambda: asleep.finish(outcome_of(play(asleep, 1))),
                asleep.interrupt,
            ):
                with pytest.raises(TakenOverError, match="gave no sign of life for 60 s, and another one has taken"):
                    write()
            assert not asleep.is_ours()
            asleep.__exit__(UserError, UserError("said already"), None)
            assert (tmp_path / "flowers" / "trials.jsonl").read_bytes() == before
            assert store.open("flowers").status == "running"
            awake.on_phase("search", "")

    def test_a_lock_of_a_raytl_without_leases_is_respected_until_it_is_removed(self, tmp_path):
        RunStore(tmp_path).create("flowers", {}).interrupt()
        (tmp_path / "flowers" / "run.lock").write_text('{"pid": 4127, "host": "node a"}')
        with pytest.raises(UserError, match=r"\(pid 4127 on node a\).*If that machine is gone, remove .*run\.lock"):
            RunStore(tmp_path).create("flowers", {}, resume=True)

    def test_a_lock_torn_by_a_crash_is_taken_over(self, tmp_path):
        RunStore(tmp_path).create("flowers", {}).interrupt()
        (tmp_path / "flowers" / "run.lock").write_text('{"pid": 41')
        assert RunStore(tmp_path).create("flowers", {}, resume=True).interrupt().status == "interrupted"


def test_a_disk_that_takes_no_more_is_one_sentence_and_loses_nothing(tmp_path):
    """A limit on the size of files stands in for the end of the disk: the same error path of the same system calls."""
    code = """
        import resource, signal, sys
        from pathlib import Path
        from example import SETTINGS, play
        from raytl.core.errors import UserError
        from raytl.runs import RunStore
        writer = RunStore(Path(sys.argv[1])).create("flowers", SETTINGS)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, resource.RLIM_INFINITY))
        try:
            play(writer, 5)
        except UserError as error:
            print(error)
        journal = Path(sys.argv[1], "flowers", "trials.jsonl").read_bytes()
        print(len(journal) <= 6000 and journal.endswith(b"}\\n"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
        try:
            writer.interrupt()
        except UserError as error:
            print(error)
    """
    output, _ = python(code, tmp_path).communicate(timeout=300)
    first, whole, second = output.splitlines()
    assert f"{tmp_path}/flowers/trials.jsonl: cannot be written (file too large)" in first
    assert whole == "True"
    assert "cannot be written (file too large)" in second
    run = RunStore(tmp_path).open("flowers")
    assert run.status == "interrupted" and len(run.history()) > 5
    assert not list((tmp_path / "flowers").glob(".*.tmp"))
