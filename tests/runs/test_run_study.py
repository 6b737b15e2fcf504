"""The Optuna study beside a run: Optuna reads it, and finds the trials as they were."""

from __future__ import annotations

import shutil
from pathlib import Path

import optuna
import pytest
from example import SETTINGS, play, write_example
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from raytl.runs import RunStore


def test_optuna_finds_every_trial(tmp_path: Path) -> None:
    run = write_example(tmp_path, trials=12)
    storage = JournalStorage(JournalFileBackend(str(run.path / "optuna.journal")))
    study = optuna.load_study(study_name=run.name, storage=storage)
    records = run.records()
    assert len(study.trials) == len(records)
    for trial, record in zip(study.trials, records, strict=True):
        assert trial.user_attrs["number in the run"] == record.number
        assert (trial.state == TrialState.COMPLETE) == (record.status == "completed")
        assert (trial.state == TrialState.PRUNED) == (record.status == "pruned")
        assert trial.params.items() <= record.strategy.items()
        assert list(trial.intermediate_values.values()) == [look["score"] for look in record.history]
    assert study.best_value == max(r.score for r in records if r.status == "completed" and r.score is not None)
    assert study.metric_names == ["score"]
    for trial, record in zip(study.trials, records, strict=True):
        if record.ended is not None:
            assert trial.datetime_start is not None and trial.datetime_complete is not None
            begun = run.started.astimezone().replace(tzinfo=None)
            assert (trial.datetime_complete - begun).total_seconds() == pytest.approx(record.ended, abs=1e-3)
            assert trial.duration is not None and trial.duration.total_seconds() == pytest.approx(
                record.seconds, abs=1e-3
            )
    assert {"source_model", "head_lr", "adaptation"} <= study.best_trial.params.keys()


def test_of_a_search_that_was_killed_it_is_there_when_the_search_goes_on(tmp_path: Path) -> None:
    writer = RunStore(tmp_path / "here").create("digits", SETTINGS)
    play(writer, 3)
    shutil.copytree(tmp_path / "here", tmp_path / "left")  # as a process leaves it that is killed
    shutil.rmtree(tmp_path / "left" / "digits" / "lock")
    writer.interrupt()
    with RunStore(tmp_path / "left").create("digits", SETTINGS, resume=True) as again:
        storage = JournalStorage(JournalFileBackend(str(again.path / "optuna.journal")))
        study = optuna.load_study(study_name="digits", storage=storage)
        assert len(study.trials) == len(again.trials) > 3
