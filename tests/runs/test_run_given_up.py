"""What a run says of source models that nothing is known of, and of what there was to train."""

from __future__ import annotations

from typing import Any

import pytest
from tiny import data

from raytl.runs import RunStore
from raytl.search.records import TrialRecord, TrialStatus
from raytl.search.space.binding import BoundSpace
from raytl.search.space.definition import load_space
from tests.runs.example import DEFAULTS, SETTINGS, outcome_of, play

MISSING = {
    "severity": "warning",
    "where": "torchvision:resnet18",
    "message": "left out: the published weights could not be fetched; put them there",
}
SLOW = "300 images would take it about 40 s more, and 5 s of the time budget are left"


def probe(number: int, model: str, status: TrialStatus, reason: str | None = None) -> TrialRecord:
    strategy = DEFAULTS | {"source_model": model, "head": "logistic", "cut": number}
    return TrialRecord(number, "probe", strategy, f"key{number}", status=status, reason=reason)


def summary(tmp_path: Any, *records: TrialRecord, **settings: Any) -> dict[str, Any]:
    with RunStore(tmp_path).create("one", SETTINGS | settings) as writer:
        for record in records:
            writer.on_trial(record)
    return RunStore(tmp_path).open("one").summary()


def test_source_models_that_were_given_up_are_told_with_their_reasons(tmp_path):
    told = summary(
        tmp_path,
        probe(0, "timm:slow", TrialStatus.INTERRUPTED, f"timm:slow: {SLOW}"),
        probe(1, "timm:again", TrialStatus.FAILED, "no memory"),
        probe(2, "timm:again", TrialStatus.COMPLETED),
        probe(3, "timm:running", TrialStatus.INTERRUPTED),
        data={"counts": {}, "problems": [MISSING, {"severity": "info", "where": "photos/", "message": "as it is"}]},
    )
    reason = "the published weights could not be fetched; put them there"
    assert told["given_up"] == [
        {"source_model": "torchvision:resnet18", "reason": reason, "left_out": "weights", "weights_missing": True},
        {"source_model": "timm:slow", "reason": SLOW, "left_out": None, "weights_missing": False},
    ]


@pytest.mark.parametrize("kinds", [True, False], ids=["of now", "of before"])
def test_only_those_whose_weights_could_not_be_had_are_said_to_be_so(kinds, tmp_path, monkeypatch):
    """A licence is no lack of weights, and losses are no source models; runs of before say it in words alone."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    said, pool, none = [], data(), data(unlabelled=None)
    for number, (task, space, *settings) in enumerate((
        (pool, "{source_model: ['torchvision:resnet18', 'plain:pixels']}", "licence=commercial"),
        (pool, "{source_model: ['torchvision:resnet34', 'plain:pixels']}"),
        (pool, "{source_model: ['scratch:cnn-small', 'plain:pixels'], source_domain: any, adaptation: [coral]}"),
        (none, "{source_model: 'scratch:cnn-small', adaptation: [none, mcc]}"),  # which needs a pool
    )):  # fmt: skip
        file = tmp_path / f"{number}.yaml"
        file.write_text(f"space: {space}")
        said += [one.to_json() for one in BoundSpace(load_space(str(file), settings), task).problems]
    problems = said if kinds else [{key: one[key] for key in MISSING} for one in said]
    told = summary(tmp_path, data={"counts": {}, "problems": problems})["given_up"]
    assert [(one["source_model"], one["left_out"], one["weights_missing"]) for one in told] == [
        ("torchvision:resnet18", "licence", False),
        ("torchvision:resnet34", "weights", True),
        ("plain:pixels", "adaptation", False),
    ]
    assert "adaptation" in [one["where"] for one in problems]  # the losses, which are told apart


def test_one_that_could_not_be_made_had_no_trial_and_is_told_with_its_reason(tmp_path):
    with RunStore(tmp_path).create("one", SETTINGS) as writer:
        outcome = outcome_of(play(writer, 4), helped=True)
        outcome.given_up = {"pretrain:photos/scratch:cnn-small": "photos: too slow to be learned"}
        writer.finish(outcome)
    assert RunStore(tmp_path).open("one").summary()["given_up"] == [
        {
            "source_model": "pretrain:photos/scratch:cnn-small",
            "reason": "photos: too slow to be learned",
            "left_out": None,
            "weights_missing": False,
        }
    ]


@pytest.mark.parametrize(
    ("models", "trainable"),
    [
        (["plain:gradients"], False),
        ("plain:pixels", False),
        (["plain:pixels", "scratch:cnn-small"], True),
        (None, True),
    ],
)
def test_whether_there_was_anything_to_train_is_known(models, trainable, tmp_path):
    values = {} if models is None else {"space_values": {"space": {"source_model": models}}}
    told = summary(tmp_path, search={"time_budget_s": 60.0}, **values)
    assert told["trials"]["trainable"] == trainable
    assert told["time_budget_s"] == 60.0
