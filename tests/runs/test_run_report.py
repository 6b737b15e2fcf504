"""The report is one page that needs nothing else, tells the truth, and shows names as they are written."""

from __future__ import annotations

import base64
import io
import itertools
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest
from example import CLASSES, SETTINGS, outcome_of, play, test_images, write_example
from PIL import Image

from raytl.core.errors import UserError
from raytl.evaluation import metrics as registered
from raytl.evaluation.intervals import Interval
from raytl.runs import RunStore
from raytl.runs.brought import adaptation, transfer
from raytl.runs.gains import shares
from raytl.runs.parts import PARTS
from raytl.runs.report import ReportExamples, write_report
from raytl.runs.report.charts import TONES, confusion, curves, parallel, waterfall
from raytl.runs.report.examples import data_uri
from raytl.runs.report.importance import importance
from raytl.runs.report.page import _cards, _outlook, _top
from raytl.runs.sentences import cautions, sentences
from raytl.runs.wording import strategy

test_images.__test__ = False  # a helper of the example, not a test


class Page(HTMLParser):
    """The elements of a page: (tag, attributes, text) in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(html)
        self.text = "".join(text for tag, _, text in self.elements if tag not in ("script", "style"))

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), ""))

    def handle_data(self, data):
        if self.elements:
            tag, attributes, text = self.elements[-1]
            self.elements[-1] = (tag, attributes, text + data)

    def all(self, *tags: str) -> list[tuple[dict[str, str | None], str]]:
        return [(attributes, text) for tag, attributes, text in self.elements if tag in tags]


def with_examples(run, classes=CLASSES) -> ReportExamples:
    predictions = run.predictions()
    sure = predictions.filter(like="probability.").max(axis=1)
    return ReportExamples(
        test_images(), predictions["label"].tolist(), predictions["predicted.best"].tolist(), classes, sure.tolist()
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_example(tmp_path_factory.mktemp("runs"), trials=40)


@pytest.fixture(scope="module")
def page(run):
    return Page(write_report(run, with_examples(run)).read_text("utf-8"))


class TestPage:
    def test_it_loads_nothing(self, page):
        for tag, attributes, _ in page.elements:
            for name in ("src", "href", "data", "action", "srcset"):
                assert (attributes.get(name) or "data:").startswith("data:"), (tag, name)
        styles = "".join(text for _, text in page.all("style"))
        assert "url(" not in styles and "@import" not in styles
        (policy,) = [a["content"] for a, _ in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
        assert policy.startswith("default-src 'none'")

    def test_plotly_is_in_it_once(self, page):
        sizes = [len(text) for attributes, text in page.all("script") if "data-figure" not in attributes]
        assert sum(size > 1_000_000 for size in sizes) == 1

    def test_it_is_accessible(self, page):
        assert page.all("html")[0][0]["lang"] == "en" and "digits" in page.all("title")[0][1]
        assert any(attributes.get("name") == "viewport" for attributes, _ in page.all("meta"))
        levels = [int(tag[1]) for tag, _, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(levels))
        assert all(attributes.get("alt") for attributes, _ in page.all("img"))
        pictures = [attributes for attributes, _ in page.all("div") if attributes.get("role") == "img"]
        assert len(pictures) == 9 and all(attributes["aria-label"] for attributes in pictures)
        identities = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
        assert len(identities) == len(set(identities))

    def test_every_figure_has_its_place_and_readable_data(self, page):
        figures = {a["data-figure"]: json.loads(text) for a, text in page.all("script") if "data-figure" in a}
        assert set(figures) == {
            "waterfall",
            "controls",
            "others",
            "gains",
            "anytime",
            "curves",
            "importance",
            "parallel",
            "confusion",
        }
        places = {attributes.get("id") for attributes, _ in page.all("div")}
        assert set(figures) <= places
        assert all(figure["data"] for figure in figures.values())

    def test_it_says_the_figures(self, page, run):
        summary = run.summary()
        assert f"{100 * summary['best']['test_metric']['value']:.1f} % on 600 test images" in page.text
        assert "Transfer helped: +" in page.text and "Domain adaptation helped: +" in page.text
        assert "Accuracy of the best strategy minus that of the same strategy" in " ".join(page.text.split())
        apart = {
            a["data-figure"]: json.loads(text)["data"][0]["y"]
            for a, text in page.all("script")
            if a.get("data-figure") in ("controls", "others")
        }
        assert apart["others"] == ["logistic regression on frozen features"]  # no part was taken out
        assert apart["controls"] == ["without adaptation", "without pretrained weights"]
        assert "cannot be decoded; left out" in page.text
        assert SETTINGS["command"] in page.text
        assert run.environment["versions"]["torch"] in page.text

    def test_a_figure_without_a_test_split_says_of_how_many_images_it_is(self, run):
        """Two images that are both wrong are an accuracy of 0, and no more than two images."""
        summary = run.summary() | {"controls": [], "gains": {}, "transfer_gain": None, "adaptation_gain": None}
        figure = {"value": 0.0, "low": 0.0, "high": 0.8}
        summary["best"] = summary["best"] | {"test_metric": None, "validation_metric": figure, "validated": 2}
        assert any("accuracy 0.0 % by cross-validation on 2 images" in one.text for one in sentences(summary, 0))
        assert "by cross-validation on 2 images; 95 % interval" in _cards(summary)

    def test_how_often_it_is_right_where_it_will_be_used_stands_beside_the_figure(self, run):
        right = {"value": 0.712, "low": 0.604, "high": 0.82}
        cards = _cards(run.summary() | {"on_unlabelled": {"images": 210, "accuracy": right}})
        assert '<dt>On the images without labels</dt><dd class="figure">71 %</dd>' in cards
        assert "right answers, by an estimate; 90 % interval 60 to 82<" in cards and 'class="card "' in cards
        moved = {"images": 210, "accuracy": right, "drift": {"alarm": True, "p": 0.001}}
        assert '<div class="card bad"><dt>On the images' in _cards(run.summary() | {"on_unlabelled": moved})
        for unknown in (None, {"images": 210, "accuracy": None}):
            assert "On the images without labels" not in _cards(run.summary() | {"on_unlabelled": unknown})

    def test_a_metric_keeps_its_capitals(self, run):
        summary = run.summary() | {"metric": "auroc"}
        summary["best"] = summary["best"] | {"test_metric": None}
        assert "<dt>Area under the ROC curve</dt>" in _cards(summary)

    def test_mistakes_are_shown_and_hits_wait_for_their_cell(self, page, run):
        figures = [a for a, _ in page.all("figure")]
        cells = [tuple(map(int, a["data-cell"].split(","))) for a in figures]
        assert [("hidden" in a) for a in figures] == [true == guess for true, guess in cells]
        predictions = run.predictions()
        wrong = predictions[predictions["label"] != predictions["predicted.best"]]
        assert set(zip(wrong["label"], wrong["predicted.best"], strict=True)) == {c for c in cells if c[0] != c[1]}
        assert {c for c in cells if c[0] == c[1]} == {(k, k) for k in range(10)}

    def test_it_is_not_larger_than_it_must_be(self, run):
        assert run.report_path.stat().st_size < 5_400_000


def test_names_are_shown_as_they_are_written(tmp_path):
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    classes = (evil, '" onmouseover="alert(3)', "<b>bold</b>", *CLASSES[3:])
    data = {"counts": {evil: 3}, "problems": [evil, {"severity": evil, "where": evil, "message": evil}]}
    settings = SETTINGS | {"classes": classes, "command": evil, "data": data, evil: evil, "setting": evil}
    run = write_example(tmp_path, trials=8, settings=settings)
    page = Page(write_report(run, with_examples(run, classes)).read_text("utf-8"))
    plain = Page(write_report(write_example(tmp_path, "plain", trials=8)).read_text("utf-8"))
    assert len(page.all("script")) == len(plain.all("script"))
    for tag, attributes, _ in page.elements:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert attributes.get("src", "data:").startswith("data:"), tag
    assert page.text.count(evil) >= 6


def test_each_problem_is_told_with_where_it_is(tmp_path):
    same = {"severity": "info", "message": "left out: all losses"}
    problems = [same | {"where": where} for where in ("adaptation", "digits/<pool>/")]
    settings = SETTINGS | {"data": {"counts": {}, "problems": [*problems, same, "a sentence"]}}
    page = Page(write_report(write_example(tmp_path, trials=4, settings=settings)).read_text("utf-8"))
    for line in ("adaptation: left out: all losses", "digits/<pool>/: left out: all losses", "a sentence"):
        assert line in page.text


def test_surrogates_in_a_name_do_not_stop_the_report(tmp_path):
    run = write_example(tmp_path, trials=8, settings=SETTINGS | {"classes": ("caf\udce9", *CLASSES[1:])})
    assert "caf?" in write_report(run).read_text("utf-8")


class TestOtherRuns:
    def test_interrupted(self, tmp_path):
        with RunStore(tmp_path).create("half", SETTINGS) as writer:
            play(writer, 8)
        page = Page(write_report(RunStore(tmp_path).open("half")).read_text("utf-8"))
        assert "has not come to its end. Its best so far: the search was interrupted" in page.text
        assert "Whether transfer helped is not known" in page.text

    def test_without_a_single_trial(self, tmp_path):
        page = Page(write_report(RunStore(tmp_path).create("empty", {}).interrupt()).read_text("utf-8"))
        assert "No trial was completed" in page.text

    def test_where_transfer_did_not_help(self, tmp_path):
        page = Page(write_report(write_example(tmp_path, trials=8, helped=False)).read_text("utf-8"))
        assert "Transfer helped" not in page.text
        assert re.search(r"Transfer (made no difference|did harm): |Whether transfer helped, these test", page.text)
        assert "A simpler model may do as well: logistic regression on frozen features" in page.text

    def test_a_disk_that_refuses_is_one_sentence(self, tmp_path):
        run = write_example(tmp_path, trials=4)
        run.report_path.mkdir()
        with pytest.raises(UserError, match=r"report\.html: cannot be written"):
            write_report(run)


def summary_of(part: str, verdict: str, gain: tuple[float, float, float] | None, **best: object) -> dict[str, Any]:
    """A run's summary with one control."""
    value, low, high = gain or (None, None, None)
    control = {"name": part, "part": part, "verdict": verdict, "measured_on": "test"}
    strategy = {"source_model": "pretrain:printed/scratch:cnn-small", "adaptation": "mcc"} | best
    figures = {"value": value, "low": low, "high": high}
    known = {"test_metric": {"value": 0.9, "low": 0.85, "high": 0.95}, "validation_metric": None}
    best_of_all = {"strategy": strategy} | known
    return {"best": best_of_all, "controls": [control | figures], "gains": {}, "metric": "accuracy"}


FIFTH = {"value": 0.2, "low": 0.15, "high": 0.25}
STANDING = {"interrupted": False, "trials": {"trained": 3}, "adaptation_gain": None}


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ([0.824, 0.7, 0.696, 0.695, 0.69, 0.68], "are expected to raise the best score by 0."),
        ([0.824, 0.7, 0.696, 0.304, 0.1, 0.074], "lie too far above the others to tell"),
        ([0.824, 0.7], "Too few trainings"),
    ],
)
def test_no_score_is_expected_that_cannot_be_reached(scores, words):
    """Scores are at most 1; of one good strategy among poor ones more was promised than there is."""
    trials = pd.DataFrame({"kind": "search", "score": scores, "status": "completed", "fold": 0})
    assert words in _outlook(trials, 24.0)


@pytest.mark.parametrize(("head", "words"), [(0.5, "by 0.053"), (0.61, "by 0.043"), (0.9, "A head on frozen features")])
def test_what_is_expected_is_more_than_the_heads_have(head, words):
    scores = [0.6, 0.58, 0.57, 0.56, 0.5, 0.45]
    trained = pd.DataFrame({"kind": "search", "score": scores, "status": "completed", "fold": 0})
    probes = pd.DataFrame({"kind": "probe", "score": [head, 0.99], "status": "completed", "fold": [0, 1]})
    told = _outlook(pd.concat([trained, probes], ignore_index=True), 60.0)
    assert words in told


class TestLosses:
    """Log loss is better the lower it is; gains in it are turned, so that above zero is better in it, too."""

    @pytest.fixture
    def by_loss(self, tmp_path):
        with RunStore(tmp_path).create("loss", SETTINGS) as writer:
            outcome = outcome_of(play(writer, 8))
            outcome.metric = "log-loss"
            outcome.best.test, outcome.gains = Interval(0.3, 0.25, 0.35), {"scratch": Interval(0.6, 0.5, 0.7)}
            for control, gain in zip(outcome.controls, (0.4, 0.1, 0.2), strict=True):
                control.comparison = replace(control.comparison, value=gain, low=gain - 0.05, high=gain + 0.05)
            return writer.finish(outcome)

    @pytest.fixture
    def page(self, by_loss):
        return Page(write_report(by_loss).read_text("utf-8"))

    def figure(self, page: Page, name: str) -> dict[str, Any]:
        return next(json.loads(text) for a, text in page.all("script") if a.get("data-figure") == name)

    def test_what_a_gain_is_is_not_told_the_wrong_way_round(self, page):
        words = " ".join(page.text.split())
        assert "By how much the log loss of the best strategy is better, which is lower, than that of the same" in words
        assert "By how much the test log loss of the best strategy is better, which is lower, than that of a" in words
        assert "minus that of" not in words
        for name in ("controls", "others", "gains"):
            assert self.figure(page, name)["layout"]["xaxis"]["title"]["text"] == "log loss, better by"

    def test_from_scratch_to_the_winner_it_goes_down(self, page):
        """0.9 from scratch, 0.3 the winner's: 0.4 by its weights, 0.1 by adaptation, 0.1 only by both."""
        waterfall = self.figure(page, "waterfall")
        (bars,) = waterfall["data"]
        assert bars["x"][0] == "from scratch" and bars["x"][-2:] == ["only together", "the winner"]
        assert bars["y"] == pytest.approx([0.9, -0.4, -0.1, -0.1, 0.3])
        assert bars["text"] == ["0.900", "−0.400", "−0.100", "−0.100", "0.300"]
        colours = {way: bars[way]["marker"]["color"] for way in ("increasing", "decreasing")}
        assert colours == {"increasing": TONES["bad"], "decreasing": TONES["good"]}
        low, high = waterfall["layout"]["yaxis"]["range"]
        assert 0 <= low < 0.3 and high > 0.9


class TestVerdict:
    @pytest.mark.parametrize(
        ("verdict", "gain", "tone", "words"),
        [
            ("helped", (0.095, 0.07, 0.121), "good", "Transfer helped: +9.5 points (95 % interval +7.0 to +12.1)"),
            ("cannot-tell", (0.012, -0.008, 0.031), "open", "helped, these test images cannot settle: +1.2 points"),
            ("did-not", (0.0, -0.01, 0.01), "open", "Transfer made no difference: 0.0 points"),
            ("harm", (-0.05, -0.08, -0.02), "bad", "Transfer did harm: −5.0 points"),
            ("cannot-tell", None, "open", "it could not be compared"),
        ],
    )
    def test_of_a_part_is_that_of_its_control(self, verdict, gain, tone, words):
        found = transfer(summary_of("source-model", verdict, gain))
        assert found.tone == tone and words in found.text
        assert adaptation(summary_of("adaptation", verdict, gain)).tone == tone

    def test_of_several_controls_of_a_part_the_one_with_the_worst_news_is_told(self):
        summary = summary_of("source-model", "helped", (0.3, 0.2, 0.4))
        (scratch,) = summary["controls"]
        scratch["name"] = "trained from scratch"
        plain = scratch | {"name": "on plain image features", "value": 0.05, "low": 0.01, "high": 0.09}
        unknown = scratch | dict.fromkeys(("value", "low", "high")) | {"verdict": "cannot-tell"}
        for controls in ([plain, scratch], [scratch, plain], [plain, unknown], [unknown, plain]):
            told = transfer(summary | {"controls": controls})
            assert told.tone == "good" and told.text.startswith("Transfer helped: +5.0 points")
            assert told.text.endswith("against the same on plain image features.")
        plain |= {"verdict": "harm", "value": -0.05, "low": -0.09, "high": -0.01}
        assert transfer(summary | {"controls": [scratch, plain]}).tone == "bad"

    def test_training_from_scratch_is_no_part_of_the_gain_over_it(self):
        """It is all of it: a head on frozen features has it as a second control of its weights."""
        summary = summary_of("source-model", "helped", (0.2, 0.15, 0.25)) | {"gains": {"scratch": FIFTH}}
        (scratch,) = summary["controls"]
        scratch["name"] = "trained from scratch"
        adapted = scratch | {
            "name": "without adaptation",
            "part": "adaptation",
            "value": 0.06,
            "low": 0.02,
            "high": 0.1,
        }
        assert shares(summary | {"controls": [scratch, adapted]}) == (None, {})
        plain = scratch | {"name": "on plain image features", "value": 0.3}
        whole, parts = shares(summary | {"controls": [scratch, plain, adapted]})
        assert whole.value == 0.2
        assert {name: gain.value for name, gain in parts.items()} == {"the pretrained weights": 0.3, "adaptation": 0.06}

    def test_what_training_from_scratch_has_as_well_is_no_part_of_the_gain_over_it(self):
        """Nor another source model, which takes the place of the winner's: freezing and larger images are."""
        summary = summary_of("source-model", "helped", (0.2, 0.15, 0.25)) | {"gains": {"scratch": FIFTH}}
        (weights,) = summary["controls"]
        others = [weights | {"name": part, "part": part} for part in ("freezing", "augmentation", "other-source")]
        _, parts = shares(summary | {"controls": [weights, *others, weights | {"name": "usual", "part": "pixels"}]})
        assert list(parts) == ["the pretrained weights", "freezing", "the larger images"]

    def test_no_gain_that_may_be_chance_is_taken_apart(self):
        summary = summary_of("source-model", "helped", (0.2, 0.15, 0.25))
        summary["controls"] += [summary["controls"][0] | {"name": "without adaptation", "part": "adaptation"}]
        assert shares(summary | {"gains": {"scratch": FIFTH}})[0] is not None
        assert shares(summary | {"gains": {"scratch": FIFTH | {"low": -0.01}}}) == (None, {})

    def test_without_a_test_split_it_is_taken_apart_by_cross_validation(self, tmp_path):
        with RunStore(tmp_path).create("few", SETTINGS) as writer:
            outcome = outcome_of(play(writer, 8))
            outcome.best.test = outcome.best.test_probabilities = outcome.test_labels = None
            outcome.best.validation, outcome.gains = Interval(0.8, 0.7, 0.9), {"scratch": Interval(0.3, 0.2, 0.4)}
            run = writer.finish(outcome)
        page = Page(write_report(run).read_text("utf-8"))
        words = " ".join(page.text.split())
        assert "Accuracy by cross-validation: what is lost when one part is taken out" in words
        assert "Test accuracy" not in words and "test accuracy" not in words
        waterfall = next(json.loads(t) for a, t in page.all("script") if a.get("data-figure") == "waterfall")
        assert (waterfall["data"][0]["y"][0], waterfall["data"][0]["y"][-1]) == pytest.approx((50.0, 80.0))
        told = [one.text for one in sentences(run.summary(), 0)]
        begin = "Of +30.0 points (95 % interval +20.0 to +40.0) over plain training from scratch, taking out one part"
        assert any(sentence.startswith(begin) for sentence in told)

    @pytest.mark.parametrize(
        ("verdict", "words"),
        [
            ("helped", "This model is better than the usual fine-tuning, nothing frozen, without adaptation: +10.0"),
            ("harm", "This model is worse than the usual fine-tuning, nothing frozen, without adaptation: +10.0"),
            ("did-not", "This model is no better or worse than the usual fine-tuning, nothing frozen"),
            ("cannot-tell", "Whether this model is better than the usual fine-tuning, nothing frozen"),
        ],
    )
    def test_of_a_recipe_that_differs_in_several_parts_it_is_the_model_that_is_better(self, verdict, words):
        summary = summary_of("recipe", verdict, (0.1, 0.05, 0.15)) | STANDING
        summary["controls"][0]["name"] = "the usual fine-tuning, nothing frozen"
        told = [one.text for one in sentences(summary, 0)]
        assert any(sentence.startswith(words) for sentence in told)
        assert not any("reezing" in sentence for sentence in told)

    def test_what_adaptation_may_have_brought_over_training_from_scratch_is_not_called_transfer(self):
        summary = summary_of("source-model", "helped", (0.1, 0.05, 0.2))
        summary["controls"][0] |= {"name": "trained from scratch", "strategy": {"adaptation": "none"}}
        told = transfer(summary)
        assert told.tone == "open" and told.text == (
            "Whether transfer helped is not known by itself: +10.0 points (95 % interval +5.0 to +20.0) against "
            "training from scratch, without adaptation."
        )
        bare = summary_of("source-model", "helped", (0.1, 0.05, 0.2), adaptation="none")
        bare["controls"][0]["name"] = "trained from scratch"
        assert transfer(bare).tone == "good"

    def test_a_loss_that_left_with_the_source_domain_is_named(self):
        summary = summary_of("source-domain", "helped", (0.1, 0.05, 0.2)) | STANDING
        summary["controls"][0]["name"] = "without the source domain and its loss"
        told = [one.text for one in sentences(summary, 0)]
        assert any(
            sentence.startswith("Joining the source domain, and adapting by it, helped: +10.0")
            and sentence.endswith("against the same without either.")
            for sentence in told
        )

    def test_why_something_could_not_be_compared_is_told(self):
        summary = summary_of("source-model", "cannot-tell", None)
        summary["controls"][0]["why_not"] = "the search was interrupted before"
        told = transfer(summary).text
        assert told == "Whether transfer helped is not known: the search was interrupted before."

    UNDEFINED = "the test images are all 'x', and area under the ROC curve is not defined on them"

    @pytest.mark.parametrize("validated", [True, False])
    def test_a_test_on_which_the_metric_is_not_defined_is_not_called_missing(self, validated):
        figure = {"value": 0.8, "low": 0.7, "high": 0.9}
        summary = summary_of("freezing", "cannot-tell", None) | STANDING
        summary |= {"metric": "auroc", "test_undefined": self.UNDEFINED, "transfer_gain": None}
        summary["trials"] = {"trained": 3, "count": 3, "by_status": {"completed": 3}}
        summary["best"] |= {"test_metric": None, "validation_metric": figure if validated else None, "score": 0.4}
        told = [one.text for one in sentences(summary, 3)]
        assert f"On the test images there is no figure: {self.UNDEFINED}." in told
        assert not any("no labelled image was kept" in sentence for sentence in told)
        cards = _cards(summary)
        assert "the test images are all &#x27;x&#x27;" in cards and "no test split" not in cards

    def test_that_the_model_is_another_one_than_was_tested_is_said(self):
        summary = summary_of("freezing", "helped", (0.1, 0.05, 0.2)) | STANDING
        assert not any("once more" in one.text for one in sentences(summary, 60))
        told = [one.text for one in sentences(summary | {"trained_on": "all"}, 60)]
        figure, after = (
            next(i for i, s in enumerate(told) if "on 60 test images" in s),
            told.index(
                next(
                    s
                    for s in told
                    if s.startswith("The model that is left behind was trained once more, with the test")
                )
            ),
        )
        assert after == figure + 1

    @pytest.mark.parametrize(
        ("value", "shown"),
        [
            (0.02, "0.020"),
            (0.5, "0.500"),
            (0.00042, "0.00042"),
            (3e-7, "0.00000030"),
            (0.99996, "0.999960"),
            (1.0, "1.000"),
        ],
    )
    def test_a_threshold_is_told_by_what_it_is_away_from_0_or_1(self, value, shown):
        point = {"label": "b", "value": value, "reached": True, "recall": None, "precision": None, "metric": None}
        summary = summary_of("freezing", "cannot-tell", None) | STANDING | {"operating_point": point}
        told = [one.text for one in sentences(summary, 0)]
        assert any(sentence.startswith(f"It says 'b' from a probability of {shown} on: ") for sentence in told)

    def test_what_was_not_compared_is_not_known(self):
        nothing = summary_of("freezing", "helped", (0.1, 0.05, 0.2))
        assert "is not known" in transfer(nothing).text and "is not known" in adaptation(nothing).text

    NOTHING = ("scratch:cnn-small", "torchvision:resnet18@none", "torchvision:resnet18@none@96px", "plain:pixels")

    def test_weights_in_a_file_are_no_random_ones(self):
        told = transfer(summary_of("freezing", "helped", (0.1, 0.05, 0.2), source_model="file:w.pth?arch=timm:x@none"))
        assert told.text.startswith("Whether transfer helped is not known")

    @pytest.mark.parametrize("uri", NOTHING)
    def test_a_winner_that_transfers_nothing_is_called_that(self, uri):
        """Where it is better beyond doubt than a head on pretrained features; held against none, that is said."""
        alone = transfer(summary_of("freezing", "helped", (0.1, 0.05, 0.2), source_model=uri))
        assert alone.tone == "open" and alone.text.startswith("Whether transfer helps is not known: the best")
        assert alone.text.endswith(", and it was held against no pretrained one.")
        ahead = summary_of("classical", "helped", (0.1, 0.05, 0.2), source_model=uri)
        ahead["controls"][0]["name"] = "linear-probe"
        found = transfer(ahead)
        assert found.tone == "bad" and found.text.startswith("Transfer did not help: the best")
        assert uri.startswith("plain:") or "from random weights" in strategy({"source_model": uri, "cut": 0})

    @pytest.mark.parametrize(
        ("verdict", "gain", "words"),
        [
            ("harm", (-0.05, -0.08, -0.02), "Transfer would have helped: the best"),
            ("cannot-tell", (-0.01, -0.03, 0.01), "Whether transfer helps, these images cannot settle: the best"),
            ("helped", (0.05, 0.02, 0.08), "Transfer did not help: the best"),
        ],
    )
    @pytest.mark.parametrize("before", [False, True])
    def test_fine_tuning_has_its_say_in_whether_transfer_helps(self, verdict, gain, words, before):
        """Not logistic regression alone. Runs of before have its gain on the test split, and no control."""
        summary = summary_of("classical", "helped", (0.1, 0.05, 0.2), source_model="scratch:cnn-small")
        (probe,) = summary["controls"]
        probe["name"] = "linear-probe"
        figures = dict(zip(("value", "low", "high"), gain, strict=True))
        if before:
            summary["gains"] = {"fine-tune": figures}
        else:
            tuned = {"name": "the usual fine-tuning, nothing frozen", "part": "recipe", "verdict": verdict}
            summary["controls"] = [probe, probe | tuned | figures]
        told = transfer(summary)
        assert told.text.startswith(words) and told.tone == ("bad" if verdict == "helped" else "open")
        assert ("against the usual fine-tuning" in told.text) == (verdict != "helped")

    def test_of_one_that_learned_from_a_domains_images_it_is_not_said_that_nothing_was_transferred(self):
        ahead = summary_of(
            "classical", "helped", (0.1, 0.05, 0.2), source_model="plain:pixels", source_domain="printed"
        )
        ahead["controls"][0]["name"] = "linear-probe"
        found = transfer(ahead)
        assert found.text.startswith("A pretrained network did not help: the best model found is a classifier on")

    @pytest.mark.parametrize("uri", NOTHING)
    def test_nothing_is_said_to_have_helped_or_not_by_a_score_alone(self, uri):
        """Without a labelled image the winner was chosen by a score, which is no measurement."""
        summary = summary_of("freezing", "cannot-tell", None, source_model=uri, adaptation="none")
        summary["best"] |= {"test_metric": None, "validation_metric": None}
        for found, what in ((transfer(summary), "transfer"), (adaptation(summary), "adaptation")):
            assert found.tone == "open" and found.text.startswith(f"Whether {what} helps nobody has measured: by")

    def test_of_plain_features_nothing_is_said_to_be_frozen(self):
        trained = {"source_model": "plain:gradients", "cut": 1, "head": "mlp"}
        assert strategy(trained) == "a head trained on plain image features (gradients)"
        assert strategy(trained | {"head": "logistic"}) == "logistic regression on plain image features (gradients)"

    @pytest.mark.parametrize("uri", NOTHING)
    def test_but_not_where_that_cannot_be_told(self, uri):
        gain = (-0.03, -0.12, 0.06)
        behind = summary_of("classical", "cannot-tell", gain, source_model=uri)
        behind["controls"][0]["name"] = "linear-probe"
        found = transfer(behind)
        assert found.tone == "open" and "cannot settle" in found.text and "−3.0 points" in found.text
        behind["controls"][0] |= {"verdict": "harm", "value": -0.07, "low": -0.1, "high": -0.04}
        assert transfer(behind).text.startswith("Transfer would have helped: the best")
        going_on = transfer(summary_of("freezing", "helped", gain, source_model=uri) | {"interrupted": True})
        assert going_on.tone == "open" and "not known yet" in going_on.text
        alone = transfer(summary_of("freezing", "helped", gain, source_model=uri) | {"baselines": {"pixels": {}}})
        assert alone.tone == "open" and "no pretrained weights were tried" in alone.text
        assert "Where none could be had" in alone.text

    @pytest.mark.parametrize("uri", NOTHING)
    def test_of_weights_that_were_given_up_each_is_named_with_its_reason(self, uri):
        missing = {"source_model": "torchvision:resnet18", "reason": "no network", "weights_missing": True}
        slow = {
            "source_model": "timm:vit_tiny",
            "reason": "300 images would take it 40 s more",
            "weights_missing": False,
        }
        reason = "the licence of its weights (unknown) is not known to allow commercial use"
        barred = {"source_model": "timm:nc", "reason": reason, "left_out": "licence", "weights_missing": False}
        idle = {"source_model": "plain:pixels", "reason": "no adaptation", "left_out": "adaptation"} | {
            "weights_missing": False
        }
        told = {}
        for given_up in ([missing], [slow], [missing, slow, missing, slow, slow], [barred], [barred, barred, idle]):
            summary = summary_of("freezing", "helped", (0.1, 0.05, 0.2), source_model=uri) | {"baselines": {}}
            told[len(told)] = transfer(summary | {"given_up": given_up}).text
        assert told[0].endswith(
            " The weights of torchvision:resnet18 could not be had: 'raytl doctor' says how to get some."
        )
        assert told[1].endswith(" timm:vit_tiny was given up: 300 images would take it 40 s more.")
        assert told[2].endswith("So it was with 2 more.")
        assert told[3].endswith(" timm:nc was left out for its licence: not known to allow commercial use.")
        assert " were left out for their licences: not known" in told[4]
        assert told[4].endswith(" plain:pixels was left out: no adaptation.")
        assert not any("could not be had" in told[number] or "given up" in told[number] for number in (3, 4))
        assert not any("Where none could be had" in sentence for sentence in told.values())

    @pytest.mark.parametrize(
        ("trainable", "budget_s", "words"),
        [
            (False, None, "The search space has nothing to train: the model is a classifier on plain image features"),
            (
                True,
                None,
                "came to its end: the model is a classifier on plain image features, of which no network is part. More",
            ),
            (True, 60.0, "in the time given"),
        ],
    )
    def test_why_no_network_was_trained_is_told_by_what_there_was(self, trainable, budget_s, words):
        summary = (
            summary_of("freezing", "cannot-tell", None, source_model="plain:gradients", head="logistic") | STANDING
        )
        summary |= {"trials": {"trained": 0, "trainable": trainable, "scored": True}, "time_budget_s": budget_s}
        told = " ".join(one.text for one in sentences(summary | {"baselines": {}}, 0))
        assert words in told
        assert ("Where none could be had" in told) == trainable
        assert ("--time-budget" in told) == (budget_s is not None)

    @pytest.mark.parametrize(
        ("verdict", "tone", "words"),
        [
            ("cannot-tell", "open", "not known to be better than answering 'no' whatever the image: +1.0 points (95 %"),
            ("did-not", "open", "not known to be better than answering 'no'"),
            ("harm", "bad", "worse than answering 'no' whatever the image"),
            ("helped", None, ""),
        ],
    )
    def test_a_winner_that_may_be_no_better_than_one_answer_says_so_first(self, verdict, tone, words):
        summary = summary_of("constant", verdict, (0.01, -0.02, 0.04)) | STANDING
        summary["controls"][0]["strategy"] = {"answer": "no"}
        summary["best"] |= {"test_metric": {"value": 0.9, "low": 0.85, "high": 0.95}, "validation_metric": None}
        first = sentences(summary, 100)[0]
        if tone is None:
            assert first.text.startswith("The best model has accuracy 90.0 %")
        else:
            assert first.tone == tone and words in first.text

    def test_where_one_answer_for_all_is_not_the_best_blind_one_it_is_said_which_is(self):
        summary = summary_of("constant", "cannot-tell", (0.01, -0.02, 0.04)) | STANDING | {"metric": "macro-f1"}
        summary["controls"][0]["strategy"] = {"answers": "its own, at random"}
        assert sentences(summary, 100)[0].text.startswith(
            "This model is not known to be better than its own answers dealt out to the images at random: +1.0 points"
        )

    @pytest.mark.parametrize("part", ["constant", "source-model", "classical"])
    def test_an_interval_beyond_zero_that_settles_nothing_is_explained(self, part):
        """By itself it is beyond chance; with the others that were looked at it is not."""
        summary = summary_of(part, "cannot-tell", (0.2, 0.01, 0.4)) | STANDING
        summary["controls"][0]["strategy"] = {"answer": "no"}
        summary["controls"] = summary["controls"] * 3
        summary["best"] |= {"test_metric": {"value": 0.7, "low": 0.5, "high": 0.9}, "validation_metric": None}
        said = [found.text for found in sentences(summary, 40) if "+20.0 points" in found.text]
        assert said and all("among 3 of them, one is as far from zero by chance" in sentence for sentence in said)
        summary["controls"][0] |= {"low": -0.01}
        assert not any("among 3" in found.text for found in sentences(summary, 40)[:1])

    @pytest.mark.parametrize(("metric", "value", "gain"), [("accuracy", 0.9, -0.1), ("log-loss", 0.3, -0.3)])
    def test_test_images_of_one_class_are_said_to_tell_nothing_apart(self, metric, value, gain):
        """Nothing can be better than the one answer that is right for all, and no model is worse for that."""
        summary = summary_of("constant", "harm", (gain, gain - 0.05, gain + 0.05)) | STANDING | {"metric": metric}
        summary["controls"][0] |= {"strategy": {"answer": "no"}, "measured_on": "test"}
        summary["best"] |= {"test_metric": {"value": value, "low": 0.2, "high": 0.95}, "validation_metric": None}
        first = sentences(summary, 100)[0]
        assert first.tone == "open"
        assert first.text == (
            "All test images are 'no', so they do not say whether this model tells the classes apart."
        )

    @pytest.mark.parametrize(
        ("verdict", "gain", "tone", "words"),
        [
            (
                "harm",
                (-0.06, -0.09, -0.03),
                "bad",
                "A simpler model is better: −6.0 points (95 % interval −9.0 to −3.0)",
            ),
            ("did-not", (0.0, -0.01, 0.01), "open", "A simpler model does as well: 0.0 points"),
            ("cannot-tell", (0.0, -0.1, 0.1), "open", "A simpler model may do as well: logistic regression on "),
        ],
    )
    def test_whether_less_would_do_comes_first(self, verdict, gain, tone, words):
        """And where less is better, that goes with the model: its figures alone do not tell."""
        summary = summary_of("classical", verdict, gain) | STANDING
        summary["controls"][0]["name"] = "linear-probe"
        summary["controls"] += [summary["controls"][0] | {"part": "freezing"}] * 2
        first = sentences(summary, 100)[0]
        assert first.tone == tone and first.text.startswith(words)
        assert "logistic regression on frozen features" in first.text and "by chance" not in first.text
        assert [one for one in cautions(summary) if one == first] == ([first] if verdict == "harm" else [])

    @pytest.mark.parametrize(("gain", "said"), [(0.04, True), (0.28, False)])
    def test_that_less_may_do_is_said_only_of_what_lies_in_the_winners_interval(self, gain, said):
        """Of few groups no comparison tells, and what is 28 points worse was said first to be as good, perhaps."""
        summary = summary_of("classical", "cannot-tell", (gain, gain - 0.5, gain + 0.5)) | STANDING
        assert sentences(summary, 100)[0].text.startswith("A simpler model may do as well") == said

    @pytest.mark.parametrize(
        ("control", "verdict", "winner", "begin"),
        [
            ("pixels", "cannot-tell", {}, "A simpler model may do as well: logistic regression on plain pixels is not"),
            ("on plain image features", "did-not", {}, "A simpler model does as well: "),
            ("linear-probe", "cannot-tell", {}, None),
            ("linear-probe", "harm", {}, "A simpler model is better: "),
            ("linear-probe", "harm", {"head": "zero-shot"}, "A usual model is better: "),
            ("linear-probe", "harm", {"source_model": "plain:pixels"}, "A usual model is better: "),
            ("pixels", "cannot-tell", {"source_model": "plain:gradients"}, None),
            ("pixels", "helped", {}, None),
        ],
    )
    def test_of_a_head_it_is_said_where_no_network_would_do(self, control, verdict, winner, begin):
        strategy = {"head": "stages", "adaptation": "propagation"} | winner
        gain = {"harm": (-0.06, -0.09, -0.03), "helped": (0.2, 0.1, 0.3)}.get(verdict, (0.0, -0.01, 0.01))
        summary = summary_of("classical", verdict, gain, **strategy) | STANDING
        summary["controls"][0]["name"] = control
        if control == "on plain image features":
            summary["controls"][0]["part"] = "source-model"
        first = sentences(summary, 100)[0].text
        assert first.startswith(begin or "The best model has")

    @pytest.mark.parametrize("part", sorted({*PARTS} - {"source-model", "adaptation"}))
    @pytest.mark.parametrize(
        ("verdict", "gain", "tone"),
        [
            ("helped", (0.2, 0.1, 0.3), "good"),
            ("did-not", (0.0, -0.01, 0.01), "open"),
            ("harm", (-0.1, -0.2, -0.05), "bad"),
            ("cannot-tell", (0.0, -0.2, 0.2), "open"),
        ],
    )
    def test_what_each_part_brings_is_put_into_words(self, part, verdict, gain, tone):
        summary = summary_of(part, verdict, gain) | STANDING
        said = [one for one in sentences(summary, 100) if f"against {PARTS[part].against}" in one.text]
        if part == "recipe":
            said = [one for one in sentences(summary, 100) if PARTS[part].against in one.text]
        assert [one.tone for one in said] == [tone]

    def test_a_winner_that_nobody_measured_says_so(self):
        summary = summary_of("freezing", "cannot-tell", None) | STANDING
        summary["best"] |= {"test_metric": None, "validation_metric": None, "score": 0.4}
        told = [one.text for one in sentences(summary, 0)]
        assert "selection score" in told[0] and told[1].startswith("How often it is right nobody has measured")

    def test_that_nothing_would_tell_what_training_is_worth_is_no_want_of_time(self):
        summary = summary_of("freezing", "cannot-tell", None, head="stages") | STANDING
        summary |= {"trials": {"trained": 0, "scored": True, "told": False}, "time_budget_s": 60.0}
        told = " ".join(one.text for one in sentences(summary, 0))
        assert "A second labelled image of each class would" in told and "--time-budget" not in told

    @pytest.mark.parametrize("tested", [True, False])
    def test_a_winner_that_nothing_could_be_scored_by_is_said_to_be_chosen_by_its_kind(self, tested):
        summary = summary_of("freezing", "cannot-tell", None, head="logistic") | STANDING
        summary["trials"] = {"trained": 0, "scored": False}
        if not tested:
            summary["best"]["test_metric"] = None
        told = " ".join(one.text for one in sentences(summary, 40))
        assert ("was not chosen by a score" in told) == (not tested) and (
            "accuracy 90.0 % on 40 test" in told
        ) == tested
        assert ("nobody has measured" in told) == (not tested)
        assert (
            "No network was trained to do better, for nothing would have told" in told and "--time-budget" not in told
        )

    @pytest.mark.parametrize(
        ("shares", "known", "tone", "words"),
        [
            ((1.0, 0.0, 0.0), (), "bad", "For all of the unlabelled images its answer is 'a'"),
            ((0.03, 0.97, 0.0), (), "bad", "For 97.0 % of the unlabelled images its answer is 'b'"),
            ((0.03, 0.97, 0.0), (0.3, 0.4, 0.3), "bad", "For 97.0 % of the unlabelled images"),
            ((0.03, 0.97), (), "open", "For 97.0 % of the unlabelled images"),
            ((0.03, 0.97), (0.1, 0.9), None, ""),  # as frequent as it is known to be
            ((0.2, 0.8, 0.0), (), None, ""),
            (
                (0.58, 0.4, 0.02) + 23 * (0.0,),
                (),
                "bad",
                "For 98.0 % of the unlabelled images its answer is 'a' or 'b':",
            ),
            (
                (0.5, 0.2, 0.15, 0.11, 0.04) + 21 * (0.0,),
                (),
                "bad",
                "For 96.0 % of the unlabelled images its answer is one of 4 of",
            ),
            ((0.58, 0.4, 0.02) + 23 * (0.0,), (0.5, 0.4) + 24 * (0.1 / 24,), None, ""),
            (8 * (0.125,) + 18 * (0.0,), (), None, ""),
        ],
    )
    def test_a_winner_that_says_the_same_of_all_unlabelled_images_says_so_first(self, shares, known, tone, words):
        summary = summary_of("freezing", "cannot-tell", None) | STANDING
        summary["best"] |= {"test_metric": None, "validation_metric": None, "score": 0.4}
        summary |= {
            "answers": dict(zip("abcdefghijklmnopqrstuvwxyz", shares, strict=False)),
            "survey": {"frequencies": list(known)},
        }
        first = sentences(summary, 0)[0]
        assert words in first.text and (first.tone == tone or "best model" in first.text)
        assert ("unlabelled images" in first.text) == (tone is not None)

    @pytest.mark.parametrize(
        ("accuracy", "alarm", "tones", "words"),
        [
            (
                (0.6, 0.5, 0.7),
                False,
                ["plain"],
                "On the images without labels about 60 % of its answers are right (90 %",
            ),
            ((0.6, 0.5, 0.7), True, ["bad"], "are of another kind than the labelled ones: on them about 60 % of its"),
            (None, True, ["bad", "open"], "are of another kind than the labelled ones: expect less on them"),
            (None, False, ["open"], "on the images without labels is not known: there was no time."),
        ],
    )
    def test_what_is_known_of_the_images_without_labels_stands_beside_the_figure(self, accuracy, alarm, tones, words):
        summary = summary_of("freezing", "cannot-tell", None) | STANDING
        right = None if accuracy is None else dict(zip(("value", "low", "high"), accuracy, strict=True))
        summary |= {"on_unlabelled": {"images": 90, "accuracy": right, "drift": {"alarm": alarm, "p": 0.1}}}
        summary |= {"why_not_on_unlabelled": "there was no time" if right is None else None}
        told = [one for one in sentences(summary, 0) if "without labels" in one.text]
        assert [one.tone for one in told] == tones and words in told[0].text
        summary |= {"on_unlabelled": None, "why_not_on_unlabelled": "there are 7, and 20 are needed"}
        assert any("is not known: there are 7, and 20" in one.text for one in sentences(summary, 0))
        assert not any(
            "is not known: None" in one.text for one in sentences(summary | {"why_not_on_unlabelled": None}, 0)
        )

    @pytest.mark.parametrize(
        ("strategy", "told"),
        [
            ({"source_model": "plain:pixels", "source_domain": "wrong"}, True),
            ({"source_model": "pretrain:wrong/scratch:cnn-small", "source_domain": None}, True),
            ({"source_model": "plain:pixels", "source_domain": None}, False),
            ({"source_model": "plain:pixels", "source_domain": "other"}, False),
        ],
    )
    def test_that_domains_contradict_each_other_stands_with_what_learned_from_one(self, strategy, told):
        summary = (
            summary_of("freezing", "cannot-tell", None) | STANDING | {"survey": {"unconfirmed": ["wrong", "near"]}}
        )
        summary["best"] = {**summary["best"], "strategy": {**summary["best"]["strategy"], **strategy}}
        words = "none of the source domains near, wrong confirms another's, and this model has learned those of wrong."
        for said in (sentences(summary, 0), cautions(summary)):
            assert any(words in one.text and one.tone == "bad" for one in said) == told
        summary["survey"] = {"apart": False}  # of older versions
        assert not any("confirms" in one.text for one in sentences(summary, 0))

    @pytest.mark.parametrize("accuracy", [None, 0.6])
    @pytest.mark.parametrize(
        ("survey", "alarm", "words"),
        [
            ({"apart": True, "unclear": ""}, None, "are of another kind than the labelled ones"),
            ({"apart": True, "unclear": ""}, False, ""),  # the winner's own features do not show it
            (
                {"apart": False, "unclear": "4 groups cannot tell"},
                None,
                "labelled ones, 4 groups cannot tell: its figures",
            ),
            (
                {"apart": False, "unclear": "4 groups cannot tell"},
                False,
                "labelled ones, 4 groups cannot tell: its figures",
            ),
            ({"apart": False, "unclear": "4 groups cannot tell"}, True, "are of another kind than the labelled ones"),
            ({"apart": False}, None, ""),  # of older versions
        ],
    )
    def test_whether_they_are_of_another_kind_is_said_as_far_as_it_is_known(self, accuracy, survey, alarm, words):
        summary = summary_of("freezing", "cannot-tell", None) | STANDING | {"survey": survey}
        right = None if accuracy is None else {"value": accuracy, "low": 0.5, "high": 0.7}
        drift = None if alarm is None else {"alarm": alarm, "p": 0.1}
        summary |= {"on_unlabelled": {"images": 90, "accuracy": right, "drift": drift}}
        told = [one.text for one in sentences(summary, 0) if "another kind" in one.text]
        assert len(told) == bool(words) and all(words in one for one in told)
        if accuracy is None and alarm is None:  # no time was left to ask the winner of them
            summary |= {"on_unlabelled": None, "why_not_on_unlabelled": "there was no time left to ask it of them"}
            assert [one.text for one in sentences(summary, 0) if "another kind" in one.text] == told

    def test_what_was_at_hand_is_not_told_as_what_the_model_did(self, run):
        assert run.settings["setting"] == "semi-supervised adaptation"
        assert '<p class="soft">labelled and unlabelled images · started' in _top(run, 0)

    def test_how_often_one_answer_would_be_right_is_told_where_a_class_is_rare(self):
        """Of balanced accuracy 74 % it was said that 99 % of its answers are right, and one answer was on 97 %."""
        summary = summary_of("freezing", "cannot-tell", None) | STANDING
        right = {"value": 0.987, "low": 0.86, "high": 1.0}
        summary |= {"on_unlabelled": {"images": 90, "accuracy": right, "drift": {"alarm": False, "p": 0.6}}}
        summary |= {"answers": {"clean": 0.94, "marked": 0.06}, "survey": {"frequencies": [0.92, 0.08]}}
        told = next(one.text for one in sentences(summary, 0) if "without labels" in one.text)
        blind = "'clean' for every image would be right on about 92 % for all that is known"
        assert told.endswith(f"estimate without labels, where {blind}.")
        summary |= {"survey": {"frequencies": [0.6, 0.4]}}
        told = next(one.text for one in sentences(summary, 0) if "without labels" in one.text)
        assert told.endswith("by an estimate without labels.")

    def test_what_says_against_a_models_figures_goes_with_them(self):
        summary = summary_of("constant", "cannot-tell", (0.1, -0.1, 0.3)) | STANDING
        summary["controls"][0] |= {"name": "commonest-class", "strategy": {"answer": "a"}}
        summary |= {"answers": {"a": 0.95, "b": 0.03, "c": 0.02}, "survey": None, "why_not_on_unlabelled": "no time"}
        summary |= {"on_unlabelled": {"images": 90, "accuracy": None, "drift": {"alarm": True, "p": 0.01}}}
        told = [one.text for one in cautions(summary)]
        assert [sentence in [one.text for one in sentences(summary, 0)] for sentence in told] == [True] * 3
        begins = (
            "This model is not known to be better",
            "For 95.0 % of the",
            "The images without labels are of another",
        )
        assert all(sentence.startswith(begin) for sentence, begin in zip(told, begins, strict=True))
        summary["best"] |= {"test_metric": None}
        assert cautions(summary)[-1].text.startswith("How often it is right nobody has measured")
        good = summary_of("constant", "helped", (0.1, 0.05, 0.3)) | STANDING
        assert cautions(good) == []
        (doubt,) = cautions(good | {"survey": {"unclear": "4 groups cannot tell"}})
        assert doubt.text.endswith("4 groups cannot tell: its figures may not hold for them.")
        assert cautions(summary | {"best": None}) == []

    def test_an_interval_that_holds_everything_is_said_in_words(self):
        summary = summary_of("source-model", "cannot-tell", (0.45, -1.0, 1.0))
        told = "+45.0 points (how far off, so few independent images cannot tell) against the same from random weights"
        assert told in transfer(summary).text
        assert "(95 % interval −99.0 to +100.0)" in transfer(summary_of("source-model", "helped", (0.4, -0.99, 1))).text

    def test_what_is_most_probable_is_not_called_the_answer_of_a_model_with_a_threshold(self):
        point = {"label": "b", "value": 0.02, "reached": True, "recall": None, "precision": None, "metric": None}
        summary = summary_of("freezing", "cannot-tell", None) | STANDING
        summary["best"] |= {"test_metric": None, "validation_metric": None, "score": 0.4}
        summary |= {"answers": {"a": 1.0, "b": 0.0}, "survey": None, "operating_point": None}
        assert "unlabelled images" in sentences(summary, 0)[0].text
        told = [one.text for one in sentences(summary | {"operating_point": point}, 0)]
        assert not any("unlabelled images" in sentence for sentence in told)

    def test_a_winner_without_adaptation_is_called_that(self):
        found = adaptation(summary_of("freezing", "helped", None, adaptation="none"))
        assert "the best strategy found uses no adaptation loss" in found.text

    def test_losses_are_told_in_their_own_unit(self):
        summary = summary_of("source-model", "helped", (0.041, 0.02, 0.06)) | {"metric": "log-loss"}
        assert "+0.041 (95 % interval +0.020 to +0.060)" in transfer(summary).text


class TestImportance:
    def board(self, count: int, **columns) -> pd.DataFrame:
        rng = np.random.default_rng(0)
        cut, rate = rng.integers(0, 4, count), 10 ** rng.uniform(-4, -1, count)
        frame = pd.DataFrame({"cut": cut, "head_lr": rate, "score": 0.5 + 0.1 * cut, "status": "completed"})
        return frame.assign(**columns)

    def test_the_setting_that_decides_comes_first(self):
        found = importance(self.board(60))
        assert next(iter(found)) == "cut" and found["cut"] > 0.5
        assert sum(found.values()) == pytest.approx(1.0)

    def test_a_setting_that_only_some_strategies_have_takes_part(self):
        board = self.board(60)
        board["adaptation"] = np.where(board.index % 2, "mcc", "none")
        board["adaptation.weight"] = np.where(board.index % 2, np.linspace(0.1, 1, 60), np.nan)
        board["score"] = board["adaptation.weight"].fillna(0)
        found = importance(board)
        assert set(found) == {"cut", "head_lr", "adaptation", "adaptation.weight"}
        assert found["adaptation.weight"] > found["cut"] + found["head_lr"]

    def test_stopped_trials_count_as_worse_whatever_their_score(self):
        board = self.board(60)
        board.loc[board["cut"] == 3, "status"] = "pruned"
        honest = board.assign(score=board["score"].where(board["status"] == "completed", 0.0), status="completed")
        assert importance(board) == pytest.approx(importance(honest))

    def test_a_constant_setting_has_none(self):
        assert "optimizer" not in importance(self.board(60, optimizer="sgd"))

    def test_too_few_strategies_say_nothing(self):
        assert importance(self.board(11)) == {}


class TestCharts:
    def test_lines_of_one_group_do_not_run_into_each_other(self, run):
        figure = curves(run.trials(), run.history(), run.outcome["best"]["strategy_key"])
        best = next(trace for trace in figure.data if trace.name == "best")
        assert sum(value is None for value in best.y) == 3  # three folds, a gap after each
        assert {trace.name for trace in figure.data} >= {"best", "scratch", "stopped early", "other strategies"}

    def test_a_thousand_trials_stay_a_handful_of_traces(self):
        trials = pd.DataFrame({"number": range(1000), "strategy_key": "k", "baseline": None, "status": "completed"})
        history = pd.DataFrame({"trial": range(1000), "epoch": 1, "score": 0.5})
        assert len(curves(trials, history, None).data) == 1

    def test_every_strategy_with_a_score_is_a_line(self, run):
        board = run.leaderboard()
        figure = parallel(board, {})
        lines = {len(axis["values"]) for axis in figure.data[0].dimensions}
        assert lines == {int(board["score"].notna().sum())}
        for axis in figure.data[0].dimensions[:-1]:
            assert axis["range"][0] <= min(axis["values"]) and max(axis["values"]) <= axis["range"][1]

    def test_from_scratch_to_the_winner_shares_go_up(self):
        parts = {"adaptation": Interval(0.05, 0.0, 0.1), "the pretrained weights": Interval(0.1, 0.05, 0.15)}
        (bars,) = waterfall(0.12, parts, 0.95, registered.get("accuracy")).data
        assert list(bars.y) == pytest.approx([83.0, 5.0, 10.0, -3.0, 95.0])
        assert bars.x[-2] == "counted twice" and bars.text[0] == "83.0 %"
        assert (bars.increasing.marker.color, bars.decreasing.marker.color) == (TONES["good"], TONES["bad"])

    def test_the_confusion_matrix_shows_each_count_once(self):
        counts = np.array([[5, 1], [0, 7]])
        hits, mistakes = confusion(counts, ["a", "b"]).data
        assert [list(row) for row in hits.text] == [["5", ""], ["", "7"]]
        assert [list(row) for row in mistakes.text] == [["", "1"], ["", ""]]

    def test_the_confusion_matrix_of_many_classes_is_of_the_most_confused(self):
        counts = np.diag(np.full(300, 20))
        counts[250, 3] = 7
        counts[250, 299] = 1
        figure = confusion(counts, [f"class {index}" for index in range(300)])
        hits, mistakes = figure.data
        assert len(mistakes.z) == len(figure.layout.xaxis.ticktext) == 100
        names = list(figure.layout.xaxis.ticktext)
        row, column = names.index("class 250"), names.index("class 3")
        assert mistakes.hovertext[row][column] == "class 250 taken for class 3: 7"
        assert mistakes.customdata[row][column] == "250,3"  # as the examples below have it
        assert hits.z[row][row] == pytest.approx(20 / 28, abs=1e-3)  # of all images of the class
        assert sum(map(bool, np.ravel(mistakes.hovertext))) == sum(map(bool, np.ravel(mistakes.customdata))) == 2
        assert len(figure.to_json()) < 500_000

    def test_of_many_classes_it_is_said_what_is_not_drawn(self, tmp_path):
        run = write_example(tmp_path, trials=4, settings=SETTINGS | {"classes": tuple(map(str, range(120)))})
        html = " ".join(write_report(run).read_text("utf-8").split())
        wrong = re.search(r"What it gets wrong</h2> <p class=\"note\">(\d+) of 600", html)
        assert wrong is not None
        told = (
            f"The figure has the 100 most confused of 120 classes, and with them {wrong[1]} of the {wrong[1]} mistakes"
        )
        assert told in html

    @pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK"])
    def test_images_of_every_mode_become_thumbnails(self, mode):
        uri = data_uri(Image.new(mode, (300, 200)))
        thumbnail = Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))
        assert (thumbnail.format, thumbnail.size) == ("PNG", (96, 64))
