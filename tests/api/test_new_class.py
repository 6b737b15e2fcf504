"""``raytl.extend`` on files: what is read and left out, where it goes, what is said. Heads: tests/bundles."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import tiny
from photos import folder, picture

import raytl
from raytl import api
from raytl.bundles import Bundle, export_bundle
from raytl.bundles.onnx_model import OnnxModel
from raytl.core.errors import UserError
from raytl.tasks import TrainingData, read_labelled
from raytl.training.kept_features import gather_features
from raytl.training.loop import run_trial
from raytl.training.strategy import Strategy
from raytl.training.trial import TrialJob


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Knows daisies and poppies by their pixels."""
    root = tmp_path_factory.mktemp("model")
    folder(root / "photos", 12)
    shutil.rmtree(root / "photos" / "tulip")
    target = read_labelled(root / "photos").images
    data = TrainingData("photos", target.classes, target, None, {}, channels=3)
    space = tiny.workspace(root / "w", data)
    probe = Strategy.from_dict({"source_model": "plain:pixels", "cut": 1, "head": "logistic"})
    trained = run_trial(space, TrialJob(probe, None, final=True), lambda report: None).model
    features = gather_features(space, probe, trained)
    return export_bundle(root / "model", trained, metrics={}, provenance={}, features=features)


def tulips(root: Path, count: int = 6) -> Path:
    root.mkdir(parents=True)
    for number in range(count):
        picture("tulip", 40 + number).save(root / f"{number}.png")
    return root


def test_writes_beside_the_bundle_and_never_over_another(model: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(model, tmp_path / "model"))
    done = raytl.extend(own, {"tulip": tulips(tmp_path / "tulips")})
    assert done.path == tmp_path / "model-extended" and done.labels == ("daisy", "poppy", "tulip")
    assert [p.label for p in Bundle.load(done.path).predict([picture("tulip", 90), picture("poppy", 90)])] == [
        "tulip",
        "poppy",
    ]
    with pytest.raises(UserError, match="model-extended: is there already; name another folder"):
        raytl.extend(own, {"tulip": tmp_path / "tulips"})
    again = raytl.extend(own, {"tulip": tmp_path / "tulips"}, done.path)
    assert Bundle.load(again.path).manifest.weights == Bundle.load(done.path).manifest.weights


def test_an_extended_model_becomes_onnx_in_place(model: Path, tmp_path: Path) -> None:
    """And it is said that the old file does not go along."""
    own = tmp_path / "model"
    first = api.export(model, own, onnx=True)
    assert first.onnx is not None and not raytl.extend(model, {"tulip": tulips(tmp_path / "t")}, tmp_path / "b").notes
    done = raytl.extend(own, {"tulip": tmp_path / "t"})
    assert not (done.path / "model.onnx").exists()
    assert done.notes[-1].endswith(f"raytl export {done.path} {done.path} --onnx")
    (done.path / "NOTES.md").write_text("whoever it is from")
    again = api.export(done.path, done.path, onnx=True)
    assert (done.path / "NOTES.md").exists()
    assert again.onnx is not None and OnnxModel.load(done.path).labels == done.labels
    assert Bundle.load(done.path).manifest.weights == Bundle.load(again.path).manifest.weights
    with pytest.raises(UserError, match="this is a bundle without one"):
        api.export(own, tmp_path / "other", moved={"a": "b"})
    assert "onnx" not in Bundle.load(api.export(again.path, tmp_path / "copy").path).manifest.metrics


def test_says_which_file_was_left_out_and_takes_copies_as_one(model: Path, tmp_path: Path) -> None:
    place = tulips(tmp_path / "tulips", 3)
    (place / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    done = raytl.extend(model, {"tulip": place}, tmp_path / "out")
    assert done.added[0].images == 3 and any("broken.png" in note for note in done.notes)
    alike = tulips(tmp_path / "alike", 1)
    for number in range(3):
        shutil.copy(alike / "0.png", alike / f"copy-{number}.png")
    done = raytl.extend(model, {"tulip": alike}, tmp_path / "out")
    assert done.added[0].found is None  # four copies of one picture: none can be left out and still be known


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ({}, "no class was given to add"),
        ({"tulip": "nowhere"}, "nowhere"),
        ({"tulip": "empty"}, "empty"),
        ({" tulip": "tulips"}, "without spaces around it"),
        ({"daisy": "tulips", "Daisy": "tulips"}, "differs in upper and lower case only"),
    ],
)
def test_mistakes_are_sentences(model, tmp_path, monkeypatch, classes, said):
    monkeypatch.chdir(tmp_path)
    tulips(tmp_path / "tulips")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=said) as raised:
        raytl.extend(model, classes, tmp_path / "out")
    assert "\n" not in str(raised.value) and not (tmp_path / "out").exists()


def test_words_on_the_terminal(model, tmp_path, monkeypatch, capfd):
    from raytl.cli import run as run_here

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["raytl", "extend", str(model), *map(str, arguments)])
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        with pytest.raises(SystemExit) as done:
            run_here()
        out, err = capfd.readouterr()
        return int(done.value.code or 0), out, err

    place, out = tulips(tmp_path / "tulips"), tmp_path / "out"
    code, _, err = run(place, "--class", "tulip", "--class", "iris")
    assert code == 2 and "--class is given 2 times for 1 folders; name one folder for each class" in err
    code, told, _ = run("--class", "tulip", place, "--out", out)
    assert code == 0 and "new class 'tulip', 6 images: 100.0% (" in told
    assert "the old classes, on 24 images left out in turn: " in told and "not worse beyond chance" in told
    assert f"serve it with: raytl deploy {out} --new-labels" in told
