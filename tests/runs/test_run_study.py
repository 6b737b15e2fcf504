"""The Optuna study beside a run: Optuna reads it, and finds the trials as they were."""

from __future__ import annotations

from pathlib import Path

import optuna
from example import write_example
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState


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
    assert {"source_model", "head_lr", "adaptation"} <= study.best_trial.params.keys()
