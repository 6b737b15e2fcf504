"""The Optuna study beside a run: Optuna reads it, and finds the trials as they were."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import optuna
import pytest
from example import SETTINGS, play, write_example
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
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


def test_what_optunas_dashboard_asks_for_is_there(tmp_path: Path) -> None:
    """A list of studies, each trial with its settings, score and times as JSON takes them, and what mattered."""
    run = write_example(tmp_path, trials=12)
    storage = JournalStorage(JournalFileBackend(str(run.path / "optuna.journal")))
    (summary,) = optuna.get_all_study_summaries(storage)
    assert (summary.study_name, summary.n_trials) == (run.name, len(run.records()))
    assert summary.direction == StudyDirection.MAXIMIZE and summary.best_trial is not None
    study = optuna.load_study(study_name=summary.study_name, storage=storage)
    assert study.best_trial.number == summary.best_trial.number
    settings = {name for trial in study.trials for name in trial.distributions}
    for trial, record in zip(storage.get_all_trials(0), run.records(), strict=True):
        assert trial.params == {name: value for name, value in record.strategy.items() if name in settings}
        assert trial.value == (record.score if record.status == "completed" else None)
        assert trial.state.is_finished() and trial.datetime_start is not None and trial.datetime_complete is not None
        assert trial.datetime_start <= trial.datetime_complete
        json.dumps([trial.user_attrs, trial.params, trial.value, trial.intermediate_values], allow_nan=False)
    assert optuna.importance.get_param_importances(study).keys() <= settings


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
