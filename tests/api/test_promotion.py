"""When the winner of a search is deployed by itself, and in which words it is not."""

from __future__ import annotations

import pytest

from raytl.api.promotion import Condition
from raytl.core.errors import UserError


def summary(low: float, value: float, high: float, *, metric="balanced-accuracy", test=None, controls=(), **more):
    best = {"validation_metric": {"value": value, "low": low, "high": high}, "test_metric": test}
    return {"best": best, "status": "finished", "metric": metric, "controls": list(controls), **more}


def refusal(document, text="balanced-accuracy>=0.9"):
    return Condition.parse(text).refusal(document)


def test_the_low_end_decides_and_not_the_figure():
    assert refusal(summary(0.9, 0.95, 0.97)) is None
    assert refusal(summary(0.899, 0.95, 0.97)) == (
        "not deployed: balanced accuracy 95.0 % (95 % interval 89.9 to 97.0) is too wide an interval to tell that the "
        "model reaches the 90.0 % that --deploy-when asks for; more labelled images make it narrower"
    )
    assert refusal(summary(0.8, 0.85, 0.97)).startswith(
        "not deployed: balanced accuracy 85.0 % (95 % interval 80.0 to 97.0) does not reach the 90.0 %"
    )


def test_of_a_loss_it_is_the_high_end():
    assert refusal(summary(0.1, 0.2, 0.29, metric="log-loss"), "log-loss<=0.3") is None
    assert "too wide" in refusal(summary(0.1, 0.2, 0.31, metric="log-loss"), "log-loss<=0.3")


def test_test_images_go_before_validation():
    assert "does not reach" in refusal(summary(0.95, 0.97, 0.99, test={"value": 0.7, "low": 0.6, "high": 0.8}))


@pytest.mark.parametrize(
    ("validated", "decided", "deployed"), [(0.92, 0.85, False), (0.85, 0.95, False), (0.92, 0.91, True)]
)
def test_without_test_images_a_threshold_is_judged_by_the_worse_of_two_figures(validated, decided, deployed):
    """Its own was counted on the images that it was set by, and not corrected for the choice."""
    point = {"metric": {"value": 0.97, "low": decided, "high": 0.99}, "test": None}
    assert (refusal(summary(validated, 0.97, 0.99, operating_point=point)) is None) == deployed


def test_with_test_images_a_threshold_is_judged_by_what_it_decides_there():
    good = {"value": 0.97, "low": 0.95, "high": 0.99}
    bad = {"value": 0.8, "low": 0.7, "high": 0.9}
    point = {"metric": good, "test": {"metric": bad}}
    assert "80.0 %" in refusal(summary(0.95, 0.97, 0.99, test=good, operating_point=point))
    ranked = summary(0.95, 0.97, 0.99, metric="auroc", test=good, operating_point=point)
    assert refusal(ranked, "auroc>=0.9") is None


@pytest.mark.parametrize("part", ["source-model", "adaptation", "source-domain"])
def test_harm_is_not_deployed_however_good(part):
    control = {"part": part, "verdict": "harm", "name": part}
    assert " did harm; see the report" in refusal(summary(0.95, 0.97, 0.99, controls=[control]))
    assert refusal(summary(0.95, 0.97, 0.99, controls=[control | {"verdict": "unsettled"}])) is None


def test_what_has_no_end_no_figure_or_another_metric_is_not_deployed():
    good = summary(0.95, 0.97, 0.99)
    assert refusal(good | {"status": "interrupted"}) == "not deployed: the search did not come to its end"
    assert refusal(good | {"best": None}) == "not deployed: the search did not come to its end"
    assert refusal(good | {"metric": "accuracy"}) == "not deployed: the run goes by accuracy, not balanced accuracy"
    unmeasured = {"validation_metric": None, "test_metric": None}
    assert "no labelled images" in refusal(good | {"best": unmeasured})


def test_percent_and_spaces():
    assert Condition.parse(" accuracy >= 90% ") == Condition.parse("accuracy>=0.9")


@pytest.mark.parametrize(
    ("text", "metric", "sentence"),
    [
        ("accuracy", None, "write it like balanced-accuracy>=0.9"),
        ("accuracy>0.9", None, "write it like balanced-accuracy>=0.9"),
        ("acuracy>=0.9", None, "accuracy"),
        ("accuracy<=0.9", None, "accuracy is to be >= something"),
        ("log-loss>=0.9", None, "log loss is to be <= something"),
        ("accuracy>=90", None, "accuracy lies between 0 and 1"),
        ("accuracy>=0.9.1", None, "'0.9.1' is no number"),
        ("accuracy>=0.9", "macro-f1", "the search goes by macro-f1"),
    ],
)
def test_mistakes_are_said_before_the_search(text, metric, sentence):
    with pytest.raises(UserError, match=sentence):
        Condition.parse(text, metric)
