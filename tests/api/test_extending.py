"""Going on with a search that came to its end, around the search itself: what it is handed, and what becomes of it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import raytl
from raytl.api import conducting
from raytl.evaluation.intervals import Interval
from raytl.runs import RunStore
from raytl.search.planning import SearchSettings
from raytl.search.records import Candidate, SearchOutcome, TrialRecord, TrialStatus
from raytl.search.space.definition import load_space
from raytl.sources.checkpoint import write_checkpoint
from raytl.sources.lookup import build_architecture
from raytl.sources.manifest import read_manifest

STRATEGY = {"source_model": "scratch:cnn-small", "cut": 0}
FIGURE = Interval(0.9, 0.8, 0.95)


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """A run that came to its end, on real images, with a test figure."""
    monkeypatch.setenv("RAYTL_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("daisy", "poppy"):
        Path("photos", name).mkdir(parents=True)
        for number in range(8):
            Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(f"photos/{name}/{number}.png")
    task, space = raytl.Task("photos", holdout=0.3), load_space("demo")
    settings = {
        "space": space.name,
        "space_values": space.values,
        "given": task.given,
        "fingerprint": task.data.fingerprint,
        "test_fingerprint": task.test.fingerprint,
        "search": asdict(SearchSettings(trials=1)),
    }
    with RunStore("raytl-runs").create("flowers", settings) as writer:
        writer.on_trial(trial(0))
        best = Candidate("best", STRATEGY, "key-0", [0], FIGURE, test=FIGURE)
        return writer.finish(SearchOutcome(writer.trials, best, [], "it led", 10.0))


def trial(number: int) -> TrialRecord:
    return TrialRecord(number, "search", STRATEGY, f"key-{number}", status=TrialStatus.COMPLETED, score=0.5)


def refit_of(directory: Path, of: str) -> Path:
    """A checkpoint as a refit leaves it."""
    model = build_architecture("scratch:cnn-small", num_classes=2, image_size=16)
    model.labels = ("daisy", "poppy")
    write_checkpoint(directory / "refits" / of, model, {})
    return directory / "refits" / of


def search_that(monkeypatch, *, interrupted: bool, winner: int):
    """In place of minutes on Ray: one trial more, and the outcome asked for. Tells what the search was handed."""
    handed = {}

    def drive(bound, test, settings, directory, listener, *, first, earlier, keep, refitted, asked, begun):
        handed.update(test=test, trials=settings.trials, earlier=[record.number for record in earlier])
        listener.on_trial(trial(1))
        best = Candidate("best", STRATEGY, f"key-{winner}", [winner], FIGURE)
        outcome = SearchOutcome([*earlier, trial(1)], best, [], "it leads now", 5.0)
        outcome.interrupted = interrupted
        first_model = replace(outcome, going_on=True, interrupted=False)
        keep(first_model, refit_of(directory, "first-model"))
        keep(outcome, refit_of(directory, f"key-{winner}"))
        return outcome

    monkeypatch.setattr(conducting, "drive", drive)
    return handed


def test_the_search_is_not_handed_the_test_split(finished, monkeypatch):
    handed = search_that(monkeypatch, interrupted=False, winner=1)
    run = raytl.resume("flowers", more_trials=3)
    assert handed == {"test": None, "trials": 4, "earlier": [0]}
    summary = run.summary()
    assert (run.status, summary["why"], summary["best"]["test_metric"]) == ("finished", "it leads now", None)
    assert summary["chosen_before"]["test_metric"] == FIGURE.to_json() and summary["chosen_before"]["trials"] == 1
    assert run.seconds == 15.0
    again = raytl.resume("flowers", more_trials=1)
    assert again.summary()["chosen_before"] == summary["chosen_before"]


def test_the_same_winner_keeps_its_figure(finished, monkeypatch):
    search_that(monkeypatch, interrupted=False, winner=0)
    assert raytl.resume("flowers", more_trials=3).summary()["best"]["test_metric"] == FIGURE.to_json()


def test_an_extension_that_is_cut_short_leaves_what_was_chosen(finished, monkeypatch):
    """Its best so far may be a probe, and there is a better model."""
    before = finished.outcome
    for _ in range(2):
        search_that(monkeypatch, interrupted=True, winner=1)
        run = raytl.resume("flowers", more_trials=3)
        assert run.status == "interrupted" and run.outcome == before
        assert len(run.records()) == 2 and not run.has_model  # neither the first model nor the best so far
    search_that(monkeypatch, interrupted=False, winner=1)
    run = raytl.resume("flowers")
    assert run.summary()["chosen_before"]["trials"] == 1
    assert read_manifest(run.bundle_path).provenance["why"] == "it leads now"


def test_a_model_that_was_trained_on_all_labels_stays_with_the_same_winner(finished, monkeypatch):
    document = finished.outcome | {"trained_on": "all"}
    (finished.path / "outcome.json").write_text(json.dumps(document))
    refit_of(finished.path, "shipped").rename(finished.path / "model")
    for winner, stays in ((0, True), (1, False)):
        search_that(monkeypatch, interrupted=False, winner=winner)
        run = raytl.resume("flowers", more_trials=3)
        assert run.summary()["trained_on"] == ("all" if stays else "target")
        assert ("why" not in read_manifest(run.bundle_path).provenance) == stays
