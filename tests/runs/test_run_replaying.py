"""A recorded trial trained again: the same to the last bit, or what is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny import CLASSES, MODEL, STAGES, shape

from raytl.core.errors import UserError
from raytl.runs import Run, RunStore
from raytl.runs.replaying import replay
from raytl.search.planning import SearchSettings
from raytl.search.records import Candidate, SearchOutcome, TrialRecord, TrialStatus
from raytl.tasks import Task
from raytl.training.loop import run_trial
from raytl.training.strategy import Strategy
from raytl.training.trial import TrialJob
from raytl.training.workspace import Budget, Workspace, WorkspaceSettings

SETTINGS = WorkspaceSettings(budget=Budget(3, 4, 8), image_size=16, folds=(2, 1), device="cpu", threads=1)
WHOLE = Strategy(MODEL, augmentation="shift", ema=0.9)
PROBE = Strategy(MODEL, cut=STAGES)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAYTL_HOME", str(tmp_path / "home"))
    rng = np.random.default_rng(0)
    for kind, name in enumerate(CLASSES):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(8):
            Image.fromarray(shape(kind, rng)).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


def searched(
    photos: Path,
    change: Callable[[dict[str, Any]], None] = lambda outcome: None,
    said: Strategy = WHOLE,
    key: str = "",
    **search: Any,
) -> Run:
    """A run with a trial of each strategy, the second one stopped after two epochs, and one that failed.

    change: made to the outcome on disk. said: what the record says that the first one's strategy was.
    key: under which, unless its own.
    """
    task = Task(photos, holdout=0.2)
    workspace = Workspace(task.data, SETTINGS)
    records = []
    for number, strategy in enumerate((WHOLE, PROBE)):
        history: list[dict[str, float]] = []
        run_trial(workspace, TrialJob(strategy), lambda metrics, history=history: history.append(dict(metrics)))
        record = TrialRecord(number, "search", strategy.to_dict(), strategy.key, status=TrialStatus.COMPLETED)
        record.history = [{key: float(value) for key, value in m.items() if key != "last"} for m in history]
        records.append(record)
    records[0].strategy, records[0].strategy_key = said.to_dict(), key or said.key
    records[1].status, records[1].history = TrialStatus.PRUNED, records[1].history[:2]
    records.append(TrialRecord(2, "search", PROBE.to_dict(), "failed", status=TrialStatus.FAILED))
    best = Candidate("best", WHOLE.to_dict(), WHOLE.key, [0], None)
    assert task.test is not None
    settings = {
        "given": task.given,
        "fingerprint": task.data.fingerprint,
        "test_fingerprint": task.test.fingerprint,
        "search": asdict(SearchSettings(**search)),
    }
    with RunStore(photos.parent / "runs").create("shapes", settings) as writer:
        for record in records:
            writer.on_trial(record)
        writer.finish(SearchOutcome(records, best, [], "why", 1.0, workspace=SETTINGS.to_json()))
    outcome = writer.path / "outcome.json"
    document = json.loads(outcome.read_text())
    change(document)
    outcome.write_text(json.dumps(document))
    return Run(writer.path)


def test_every_figure_is_the_same(photos: Path) -> None:
    run = searched(photos)
    told = replay(run)
    assert told.same and told.difference is None and told.changed == {}
    assert (told.trial, told.epochs) == (0, 3)
    assert told.score == told.score_now is not None


def test_a_trial_that_was_stopped_is_trained_as_far_as_it_got(photos: Path) -> None:
    told = replay(searched(photos), 1)
    assert told.same and told.epochs == 2


@pytest.mark.parametrize("looks", [True, False])
def test_a_head_looks_at_images_without_labels_as_it_did(photos: Path, looks: bool) -> None:
    (photos.parent / "new").mkdir()
    for number in range(6):
        Image.fromarray(shape(number % 3, np.random.default_rng(9 + number))).save(
            photos.parent / "new" / f"{number}.png"
        )
    task = Task(photos, unlabelled=photos.parent / "new", holdout=0.2)
    assert task.test is not None and task.data.unlabelled is not None
    workspace = Workspace(task.data, SETTINGS)
    head = Strategy("plain:pixels", cut=1, head="logistic")
    told: list[dict[str, float]] = []
    run_trial(workspace, TrialJob(head, looks=looks), lambda metrics: told.append(dict(metrics)))
    record = TrialRecord(0, "probe", head.to_dict(), head.key, status=TrialStatus.COMPLETED)
    record.history = [{key: float(value) for key, value in metrics.items() if key != "last"} for metrics in told]
    settings = {
        "given": task.given,
        "fingerprint": task.data.fingerprint,
        "test_fingerprint": task.test.fingerprint,
        "search": asdict(SearchSettings()),
    }
    with RunStore(photos.parent / "runs").create("looking", settings) as writer:
        writer.on_trial(record)
        best = Candidate("best", head.to_dict(), head.key, [0], None)
        writer.finish(SearchOutcome([record], best, [], "why", 1.0, workspace=SETTINGS.to_json()))
    assert ("unlabelled" in record.history[0]) == looks and replay(Run(writer.path)).same


def test_other_figures_are_named_and_what_has_changed_since(photos: Path) -> None:
    def as_if(outcome: dict[str, Any]) -> None:
        outcome["workspace"]["seed"] = 7

    run = searched(photos, as_if)
    document = json.loads((run.path / "run.json").read_text())
    document["environment"] |= {"cores": 0}
    document["environment"]["versions"] |= {"torch": "1.0"}
    (run.path / "run.json").write_text(json.dumps(document))
    told = replay(Run(run.path))
    assert not told.same and told.difference is not None
    assert told.difference.epoch == 1 and told.difference.then != told.difference.now
    assert {"cores", "torch"} == told.changed.keys()
    assert told.changed["torch"][0] == "1.0"
    json.dumps(told.to_json(), allow_nan=False)


def test_a_trial_that_fails_now_did_not_get_that_far(photos: Path) -> None:
    told = replay(searched(photos, said=replace(WHOLE, head_lr=1e30)))
    assert not told.same and told.difference is not None
    assert (told.difference.epoch, told.difference.now, told.score_now) == (1, None, None)


@pytest.mark.parametrize(
    ("trial", "change", "search", "why"),
    [
        (9, lambda outcome: None, {}, "has no trial 9; its trials are 0 to 2"),
        (2, lambda outcome: None, {}, "ended before its first epoch"),
        (0, lambda outcome: outcome.pop("workspace"), {}, "does not say how its lanes were set up"),
        (0, lambda outcome: None, {"workers_per_trial": 2}, "several workers trained each"),
    ],
)
def test_is_refused(photos: Path, trial: int, change: Any, search: dict[str, Any], why: str) -> None:
    run = searched(photos, change, **search)
    with pytest.raises(UserError, match=why):
        replay(run, trial)


def test_is_refused_where_an_older_raytl_meant_another_strategy(photos: Path) -> None:
    """Of the same settings another head was made then: its figures would differ, and nothing would be wrong."""
    with pytest.raises(UserError, match="trial 0 was made by an older raytl, in which its strategy was another one"):
        replay(searched(photos, key="0123456789ab"), 0)


def test_is_refused_where_an_image_went(photos: Path) -> None:
    run = searched(photos)
    (photos / CLASSES[0] / "0.png").unlink()
    with pytest.raises(UserError, match="its data is not what it was"):
        replay(run)
