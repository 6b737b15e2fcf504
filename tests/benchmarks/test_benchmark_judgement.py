"""How searches are judged: floors, verdicts, and figures with a known answer."""

from __future__ import annotations

import numpy as np
import pytest
from controls import _commonest
from judgement import Floors, _covers, _figures, _verdicts
from measured import auroc, calibration_error, paired, stated

from raytl.tasks import LabelledImages
from raytl.tasks.items import PixelsItem
from raytl.training.strategy import Strategy


def record(task: str, **changes):
    base = {
        "task": task, "labels": 5, "seed": 0, "chosen": 0.9, "strategy": {"cut": 1}, "regret": 0.01,
        "below_control": False, "covered": True, "verdicts": [], "predicted": np.array([0, 1, 1]),
    }  # fmt: skip
    return base | changes


def test_one_skewed_task_below_its_control_breaks_the_floor():
    good = _figures([record("digits"), record("digits-skewed")], Floors())
    bad = _figures([record("digits"), record("digits-skewed", below_control=True)], Floors())
    assert good["floors"]["below_control_skewed_or_junk"] is True
    assert bad["floors"]["below_control_skewed_or_junk"] is False


def test_refused_and_unknown_are_told_and_not_averaged():
    figures = _figures(
        [record("digits", regret=None), {"task": "letters", "labels": 1, "seed": 0, "refused": "no"}], Floors()
    )
    assert figures["regret_with_labels"] is None
    assert figures["floors"]["regret_with_labels"] is None
    assert figures["refused"] == 1


def test_an_order_that_changes_the_model_breaks_the_floor():
    first = record("digits-mixture")
    same = _figures([first, record("digits-mixture-reversed")], Floors())
    other = record("digits-mixture-reversed", chosen=0.8, predicted=np.array([0, 1, 0]))
    changed = _figures([first, other], Floors())
    assert same["floors"]["order"] is True
    assert changed["floors"]["order"] is False
    assert changed["order"][0]["same_answers"] == pytest.approx(2 / 3)


def test_another_domain_that_is_better_by_over_two_points_breaks_the_floor():
    joined = record("digits-mixture", joined="printed-digits", joined_of_use=True)
    none = record("letters-mixture", joined=None, joined_of_use=False)
    untried = _figures([joined, none], Floors())
    assert (untried["domains_of_use"], untried["better_domain"], untried["floors"]["better_domain"]) == (
        1.0,
        None,
        None,
    )
    near = _figures([joined | {"better_domain": 0.01}, none], Floors())
    assert (near["better_domain"], near["floors"]["better_domain"]) == (0.0, True)
    far = _figures([joined | {"better_domain": 0.03}, joined | {"better_domain": -0.2}], Floors())
    assert (far["better_domain"], far["floors"]["better_domain"]) == (0.5, False)


@pytest.mark.parametrize(
    ("word", "gain", "contradicted"),
    [
        ("helped", -0.2, True), ("helped", 0.2, False), ("helped", 0.0, False), ("harm", 0.2, True),
        ("harm", -0.2, False), ("did-not", 0.2, True), ("did-not", -0.2, True), ("did-not", 0.0, False),
        ("cannot-tell", 0.2, False), ("cannot-tell", -0.2, False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kept", [True, False])
def test_a_verdict_against_the_truth_is_a_contradiction(word, gain, contradicted, kept):
    labels = np.tile([0, 1], 100)
    wrong = labels.copy()
    wrong[: round(abs(gain) * 200)] = 1 - wrong[: round(abs(gain) * 200)]
    chosen, other = (labels, wrong) if gain > 0 else (wrong, labels)
    without = Strategy("scratch:cnn-small")
    control = {"part": "adaptation", "low": 0.02, "high": 0.2, "verdict": word, "strategy": without.to_dict()}
    tried = {without.key: other} if kept else {}
    (verdict,) = _verdicts({"controls": [control]}, chosen, tried, labels, "accuracy", {without: other}.get)
    assert verdict["true_gain"] == pytest.approx(gain)
    assert verdict["contradicted"] is contradicted


@pytest.mark.parametrize("metric", ["accuracy", "balanced accuracy"])
def test_paired_difference_has_the_value_of_the_metric(metric):
    labels = np.array([0] * 90 + [1] * 10)
    majority = np.zeros(100, dtype=int)
    gap, low, high = paired(labels, majority, labels, metric)
    assert gap == pytest.approx(0.1 if metric == "accuracy" else 0.5)
    assert low <= gap <= high


def test_calibration_and_ranking_have_known_values():
    rows = np.array([[0.8, 0.2]] * 5 + [[0.2, 0.8]] * 5)
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 0])
    assert calibration_error(rows, labels) == pytest.approx(0.0, abs=1e-9)
    assert calibration_error(rows, 1 - labels) == pytest.approx(0.6)
    assert auroc(rows, (rows[:, 1] > 0.5).astype(int)) == 1.0


def test_an_estimate_without_an_interval_is_none():
    assert stated({"best": {"validation_metric": {"value": 0.9, "low": None, "high": None}}}) is None
    assert stated({"best": {"validation_metric": {"value": 0.9, "low": 0.8, "high": 1.0}}})["low"] == 0.8


def test_coverage_is_only_missed_beyond_chance():
    assert _covers(10, 10, (0.90, 0.98)) is True
    assert _covers(400, 400, (0.90, 0.98)) is False
    assert _covers(5, 10, (0.90, 0.98)) is False
    assert _covers(0, 0, (0.90, 0.98)) is None


def _labelled(labels: list[int], classes: tuple[str, ...]) -> LabelledImages:
    items = [PixelsItem("one", np.zeros((4, 4), np.uint8))] * len(labels)
    return LabelledImages("some", items, classes=classes, labels=np.array(labels))


def test_where_no_class_is_the_commonest_chance_says_which():
    """With a label a class the first by name was, which of photographs of two classes had 68 %."""
    truth = _labelled([0] * 700 + [1] * 300, ("a", "b"))
    known, tie = (_labelled(labels, ("b", "a")) for labels in ([0, 0, 1], [0, 1]))
    assert _commonest(known, truth)[:, 1].all()
    assert abs(_commonest(tie, truth)[:700, 0].mean() - 0.5) < 0.06
