"""A finished run that went on: what was measured on the test images stays what it was, and with whom it was."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
from example import SETTINGS, outcome_of, play, write_example

from raytl.api.models import cautions_of, tell_figures
from raytl.bundles import Bundle, export_bundle
from raytl.runs import RunStore
from raytl.runs.files import read_json, write_json
from raytl.runs.going_on import BEFORE, merged
from raytl.runs.report import write_report
from raytl.runs.sentences import sentences
from raytl.sources import build_architecture


def gone_on_with(tmp_path, *, same: bool):
    """A run of 6 strategies and then of more; whether the winner is the same. Its outcome then, and the run now."""
    first = write_example(tmp_path, trials=6)
    before = {"trials_then": len(first.records()), **first.outcome}
    with RunStore(tmp_path).create("digits", SETTINGS, resume=True) as writer:
        write_json(writer.path / BEFORE, before)
        records = writer.trials
        if not same:
            records = play(writer, 30, seed=4)
        now = outcome_of(records)
        for candidate in [now.best, *now.baselines]:
            candidate.test = candidate.test_probabilities = None
        now = replace(now, test_labels=None, gains={}, controls=[], transfer_gain=None, adaptation_gain=None)
        return before, writer.finish(now, before=before)


def test_with_the_same_winner_all_that_was_said_of_it_stays(tmp_path):
    before, run = gone_on_with(tmp_path, same=True)
    summary = run.summary()
    assert summary["best"]["test_metric"] == before["best"]["test"]
    assert summary["controls"] == before["controls"] and summary["gains"] == before["gains"]
    assert summary["transfer_gain"] == before["transfer_gain"]
    assert summary["chosen_before"]["same"] and run.predictions() is not None
    said = [one.text for one in sentences(summary, 600)]
    assert f"Chosen before: figures on test images are from when {before['trials_then']} trials had been run." in said


def test_another_winner_has_no_test_figure_and_the_one_before_is_told_of(tmp_path):
    before, run = gone_on_with(tmp_path, same=False)
    summary = run.summary()
    assert summary["best"]["strategy"] != before["best"]["strategy"]
    assert summary["best"]["test_metric"] is None and summary["controls"] == [] and summary["gains"] == {}
    assert run.predictions() is None
    told = summary["chosen_before"]
    assert not told["same"] and told["test_metric"] == before["best"]["test"]
    tested = {key: entry["test_metric"] for key, entry in summary["baselines"].items()}
    assert tested == {entry["label"]: entry["test"] for entry in before["baselines"]}
    page = write_report(run).read_text("utf-8")
    assert "Chosen before, after" in page and "not opened a second time" in page


def test_a_baseline_that_wins_now_has_no_test_figure_as_the_winner(tmp_path):
    first = write_example(tmp_path, trials=6).outcome
    now = copy.deepcopy(first)
    baseline = next(entry for entry in now["baselines"] if entry["test"] is not None)
    now["best"] = {**baseline, "label": "best"}
    found = merged(now, {**first, "trials_then": 6})
    assert found["best"]["test"] is None and not found["chosen_before"]["same"]
    assert baseline["test"] in [entry["test"] for entry in found["baselines"]]


def test_the_card_of_the_model_says_what_the_run_says(tmp_path):
    before, run = gone_on_with(tmp_path, same=True)
    model = build_architecture("scratch:cnn-small", num_classes=2, channels=1, image_size=16)
    model.labels = ("a", "b")
    export_bundle(tmp_path / "m", model, metrics={}, provenance={})
    assert cautions_of(tmp_path / "m") == []  # as of a bundle of before
    tell_figures(tmp_path / "m", run.outcome, ["Expect less."])
    assert cautions_of(tmp_path / "m") == ["Expect less."]
    told = Bundle.load(tmp_path / "m").manifest.metrics
    assert told["test"] == before["best"]["test"] and told["gains"] == before["gains"]
    assert {name: control["verdict"] for name, control in told["controls"].items()} == {
        control["name"]: control["verdict"] for control in before["controls"] if control["value"] is not None
    }
    assert {control["measured_on"] for control in told["controls"].values()} == {"test"}


def test_a_run_that_was_not_gone_on_with_says_nothing_of_the_kind(tmp_path):
    run = write_example(tmp_path, trials=3)
    assert run.summary()["chosen_before"] is None
    assert not [one for one in sentences(run.summary(), 600) if "Chosen before" in one.text]


def test_both_searches_count_in_the_time(tmp_path):
    before, run = gone_on_with(tmp_path, same=True)
    assert run.seconds == pytest.approx(before["seconds"] + 171.3) and read_json(run.path / BEFORE) == before
