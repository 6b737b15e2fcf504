"""``raytl predict`` says of a folder how often it is right, in words and as a document."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from documented import undocumented
from tiny import CLASSES, ENOUGH_S, data, shapes, workspace

from raytl.bundles import export_bundle
from raytl.training.loop import run_trial
from raytl.training.strategy import Strategy
from raytl.training.trial import TrialJob
from raytl.training.yardstick import gather_yardstick

PROBE = Strategy.from_dict({"source_model": "plain:pixels", "cut": 1, "head": "logistic"})


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``known``, ``few`` and ``older``: bundles with a yardstick, with one of few labels, without."""
    folder = tmp_path_factory.mktemp("models")
    for name, labels in (("known", 30), ("few", 8)):
        space = workspace(tmp_path_factory.mktemp("w"), data(labels, None, domains=False))
        model = run_trial(space, TrialJob(PROBE, None, final=True), lambda report: None).model
        yardstick = gather_yardstick(space, PROBE, 1.0, lambda rows: rows.argmax(axis=1), ENOUGH_S)
        export_bundle(folder / name, model, metrics={}, provenance={}, yardstick=yardstick)
    export_bundle(folder / "older", model, metrics={}, provenance={})
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    images = shapes(10, 90)
    (tmp_path / "new").mkdir()
    for number, item in enumerate(images.items):
        item.open().save(tmp_path / "new" / f"{number}.png")
    (tmp_path / "new" / "broken.png").write_text("no image")
    return tmp_path / "new"


def test_says_it_in_words(raytl, models, photos):
    done = raytl("predict", str(models / "known"), str(photos))
    assert done.code == 0, done.err
    said = " ".join(done.out.split())
    assert "% right, " in said and "look like none of the classes" in said and "of another kind" in said
    assert "few labelled images" not in said
    assert "rests on few labelled images (24)" in " ".join(
        raytl("predict", str(models / "few"), str(photos)).out.split()
    )


def test_names_that_are_no_utf_8_are_shown_in_a_document_too(raytl, models, photos):
    names = [os.fsencode(photos) + b"/" + name for name in (b"caf\xe9.png", b"no\xff.png")]
    Path(os.fsdecode(names[0])).write_bytes((photos / "0.png").read_bytes())
    Path(os.fsdecode(names[1])).write_text("no image")
    done = raytl("predict", str(models / "known"), str(photos), "--json", "--out", str(photos / "out.csv"))
    assert done.code == 0, done.err
    rows = {row["file"].rpartition("/")[2]: row for row in json.loads(done.out)["predictions"]}
    assert rows["caf\\xe9.png"]["label"] == rows["0.png"]["label"]
    assert "no\\xff.png: not an image" in rows["no\\xff.png"]["error"]
    gone = raytl("predict", str(models / "known"), os.fsdecode(b"/nowhere/\xff.png"), "--json")
    assert gone.code == 2 and "/nowhere/\\xff.png: does not exist" in json.loads(gone.out)["error"]


def test_and_as_a_document_with_the_labels_of_each_image(raytl, models, photos):
    done = raytl("predict", str(models / "known"), str(photos), "--sets", "--json")
    document = json.loads(done.out)
    assert undocumented("predict", document) == set()
    assert document["health"]["images"] == 30 and document["health"]["reference_images"] == 90
    for one in document["predictions"]:
        if one["error"] is None:
            assert one["label"] in one["labels"] and set(one["labels"]) <= set(CLASSES)
        else:
            assert one["labels"] is None and one["none_of_these"] is None


def test_an_older_bundle_is_used_as_ever_and_says_what_is_not_known(raytl, models, photos):
    done = raytl("predict", str(models / "older"), str(photos))
    assert done.code == 0 and "how often that is right is not known, for the model was exported without" in done.out
    assert json.loads(raytl("predict", str(models / "older"), str(photos), "--json").out)["health"] is None
    refused = raytl("predict", str(models / "older"), str(photos), "--sets")
    assert refused.code == 2 and "needs reference statistics" in refused.err


def test_sets_go_into_the_table(raytl, models, photos, tmp_path):
    out = tmp_path / "p.csv"
    assert raytl("predict", str(models / "known"), str(photos), "--sets", "--out", str(out)).code == 0
    assert out.read_text().splitlines()[0].endswith("error,labels,none_of_these")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("p.xlsx", "written as .csv or .parquet"), ("taken/p.csv", "cannot be written"), ("folder.csv", "is a folder")],
)
def test_where_to_write_is_looked_at_before_anything_is_classified(raytl, models, tmp_path, name, sentence):
    """Nor is the image looked for, which is not there."""
    (tmp_path / "taken").write_text("a file")
    (tmp_path / "folder.csv").mkdir()
    done = raytl("predict", str(models / "known"), str(tmp_path / "gone.png"), "--out", str(tmp_path / name))
    assert done.code == 2 and sentence in done.err


def test_a_name_that_no_system_takes_does_not_exist(raytl, models):
    done = raytl("predict", str(models / "known"), "x" * 300)
    assert done.code == 2 and "does not exist; check the path" in done.err
