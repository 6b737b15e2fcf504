"""A class more on the features that a bundle has kept: real heads on a real network, tiny shapes."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import tiny

from raytl.bundles import Bundle, Reference, export_bundle
from raytl.bundles.extending import Extension, extend_bundle
from raytl.bundles.features import FEATURES_FILE, read_features
from raytl.core.errors import UserError
from raytl.sources.checkpoint import write_metrics
from raytl.sources.manifest import Threshold, read_manifest
from raytl.tasks import LabelledImages, TrainingData
from raytl.training.kept_features import gather_features
from raytl.training.loop import run_trial
from raytl.training.strategy import Strategy
from raytl.training.trial import TrialJob
from raytl.training.yardstick import gather_yardstick

OLD = ("bar", "cross")
PER_CLASS = 25


def of(kind: str, count: int, seed: int = 7) -> LabelledImages:
    """So many new images of one shape."""
    images = tiny.shapes(count, seed, name=f"more {kind}")
    return images.subset(np.flatnonzero(images.labels == tiny.CLASSES.index(kind)))


def two_shapes() -> TrainingData:
    everything = tiny.shapes(PER_CLASS, 1, name="target")
    kept = everything.subset(np.flatnonzero(everything.labels < 2))
    target = replace(kept, classes=OLD)
    return replace(tiny.data(None, None, domains=False), classes=OLD, target=target)


def bundle(root: Path, strategy: dict[str, object], threshold: Threshold | None = None, **kept: bool) -> Path:
    data = two_shapes()
    if "adaptation" in strategy:
        data = replace(data, unlabelled=tiny.pool(tiny.shapes(9, 2, name="unlabelled")))
    space = tiny.workspace(root / "w", data, epochs=3, steps=8)
    read = Strategy.from_dict({"source_model": tiny.MODEL, **strategy})
    model = run_trial(space, TrialJob(read, None, final=True), lambda report: None).model
    yardstick = None
    if kept.get("yardstick", True):
        yardstick = gather_yardstick(space, read, 1.0, lambda rows: rows.argmax(axis=1), tiny.ENOUGH_S)
    features = gather_features(space, read, model)
    assert features is not None
    return export_bundle(
        root / "bundle",
        model,
        metrics={"metric": "accuracy", "validation": {"value": 0.9, "low": 0.8, "high": 1.0}},
        provenance={"run": "shapes", "strategy": read.to_dict()},
        examples=[data.target.items[i].open() for i in (0, 30)] if kept.get("images", True) else (),
        yardstick=yardstick,
        features=features if kept.get("features", True) else None,
        threshold=threshold,
    )


FROZEN = {
    "logistic": {"cut": tiny.STAGES, "head": "logistic"},
    "stages": {"cut": tiny.STAGES, "head": "stages"},
    "nearest-mean": {"cut": tiny.STAGES, "head": "nearest-mean"},
    "k-nn": {"cut": tiny.STAGES, "head": "k-nn"},
}


@pytest.fixture(scope="module", params=FROZEN)
def frozen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle(tmp_path_factory.mktemp(request.param), FROZEN[request.param])


@pytest.fixture(scope="module")
def extended(frozen: Path) -> tuple[Path, Extension]:
    out = frozen.with_name("extended")
    return frozen, extend_bundle(frozen, {"disc": of("disc", 6)}, out)


class TestNewClass:
    def test_is_named_and_the_old_ones_still_are(self, extended: tuple[Path, Extension]) -> None:
        _, done = extended
        model = Bundle.load(done.path)
        fresh = tiny.shapes(40, 99, name="fresh")
        named = [p.label for p in model.predict([item.open() for item in fresh.items])]
        right = np.array([name == fresh.classes[label] for name, label in zip(named, fresh.labels, strict=True)])
        assert model.labels == ("bar", "cross", "disc")
        assert right[fresh.labels == 2].mean() > 0.6  # of six examples, on random features; chance is a third
        assert right[fresh.labels < 2].mean() > 0.75

    def test_old_classes_are_tested_before_and_after_on_images_left_out(self, extended: tuple[Path, Extension]) -> None:
        old = extended[1].old
        assert old is not None and old.images == 2 * PER_CLASS and not old.worse
        assert old.before.low < old.before.value <= old.before.high
        assert old.change.value == pytest.approx(old.after.value - old.before.value)
        assert old.change.low <= old.change.value <= old.change.high

    def test_card_has_its_own_figures_and_where_it_comes_from(self, extended: tuple[Path, Extension]) -> None:
        _, done = extended
        manifest = Bundle.load(done.path).manifest
        assert done.old is not None
        assert manifest.metrics["old_classes"]["after"]["value"] == done.old.after.value
        assert manifest.metrics["test"] is None and 0 < manifest.metrics["validation"]["value"] <= 1
        step = manifest.provenance["extended"][0]
        assert step["classes"] == {"disc": 6} and step["metrics_before"]["validation"]["value"] == 0.9
        assert json.dumps(done.to_json())

    def test_reference_predictions_are_of_the_new_model(self, extended: tuple[Path, Extension]) -> None:
        _, done = extended
        reference = Reference.read(done.path)
        assert reference is not None and reference.labels == done.labels and len(reference.examples) == 6
        reference.check(Bundle.load(done.path), "it")

    def test_label_sets_and_health_know_the_class(self, extended: tuple[Path, Extension]) -> None:
        _, done = extended
        yardstick = Bundle.load(done.path).yardstick
        assert yardstick is not None and done.health
        assert yardstick.probabilities.shape[1] == 3
        assert (yardstick.labels == 2).sum() == 6
        sets = yardstick.sets(yardstick.probabilities, yardstick.chosen)
        held = sets[np.arange(len(sets)), yardstick.labels]
        assert held.mean() >= 0.9
        estimate = yardstick.correctness.estimate(yardstick.opinions, yardstick.chosen)
        assert estimate.value == pytest.approx(yardstick.correctness.usual, abs=0.03)

    def test_can_be_extended_again(self, extended: tuple[Path, Extension], tmp_path: Path) -> None:
        again = extend_bundle(extended[1].path, {"disc": of("disc", 5, seed=31)}, tmp_path / "again")
        assert again.labels == extended[1].labels and not again.added[0].new
        assert again.images == extended[1].images + 6
        assert len(Bundle.load(again.path).manifest.provenance["extended"]) == 2

    def test_is_the_same_every_time(self, extended: tuple[Path, Extension], tmp_path: Path) -> None:
        before, done = extended
        again = extend_bundle(before, {"disc": of("disc", 6)}, tmp_path / "again")
        assert Bundle.load(again.path).manifest.weights == Bundle.load(done.path).manifest.weights


class TestFeatures:
    def test_are_what_the_head_reads(self, frozen: Path) -> None:
        model, data = Bundle.load(frozen), two_shapes()
        kept = read_features(frozen, model.manifest.weights.sha256, 2)
        assert kept is not None and kept.frozen and len(kept) == 2 * PER_CLASS
        assert data.target is not None
        pixels = data.target.tensor(model.manifest.preprocessing)
        said = model.probabilities(pixels)
        head = model.model.head
        import torch

        with torch.inference_mode():
            again = head(torch.from_numpy(kept.features)).softmax(1).numpy()
        np.testing.assert_allclose(again, said, atol=1e-4)

    def test_of_many_images_keep_every_class(self, frozen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        kept = read_features(frozen, Bundle.load(frozen).manifest.weights.sha256, 2)
        assert kept is not None
        few = kept.subset(np.r_[0:25, 25:27])
        monkeypatch.setattr("raytl.judging.kept_features.MOST_IMAGES", 10)
        bounded = few.bounded()
        assert len(bounded) == 10 and (bounded.labels == 1).sum() >= 1
        monkeypatch.setattr("raytl.judging.kept_features.MOST_IMAGES", 1)
        assert set(few.bounded().labels) == {0, 1}  # more classes than room: none is forgotten

    def test_of_other_weights_are_refused(self, frozen: Path, tmp_path: Path) -> None:
        copy = Path(shutil.copytree(frozen, tmp_path / "copy"))
        arrays = safetensors.numpy.load_file(copy / FEATURES_FILE)
        told = {"version": "1", "weights": "0" * 64, "frozen": "1", "balanced": "0"}
        safetensors.numpy.save_file(arrays, copy / FEATURES_FILE, told)
        with pytest.raises(UserError, match="belongs to other weights"):
            extend_bundle(copy, {"disc": of("disc", 5)}, tmp_path / "out")


class TestMistakes:
    @pytest.fixture(scope="class")
    def plain(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return bundle(tmp_path_factory.mktemp("plain"), FROZEN["logistic"])

    def test_a_bundle_without_features(self, tmp_path: Path) -> None:
        without = bundle(tmp_path, FROZEN["logistic"], features=False, yardstick=False)
        with pytest.raises(UserError, match="holds no features of its training images"):
            extend_bundle(without, {"disc": of("disc", 5)}, tmp_path / "out")

    def test_a_name_that_is_no_text(self, plain: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError) as refused:
            extend_bundle(plain, {os.fsdecode(b"disc\xff"): of("disc", 5)}, tmp_path / "out")
        assert str(refused.value) == r"--class 'disc\xff': is no text in UTF-8; give another name"
        assert not (tmp_path / "out").exists()

    def test_a_name_that_differs_in_case_only(self, plain: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="there is 'bar', which differs in upper and lower case only"):
            extend_bundle(plain, {"Bar": of("bar", 5)}, tmp_path / "out")

    def test_one_image_of_a_new_class(self, plain: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="has 1 image in more disc; a new class needs 2"):
            extend_bundle(plain, {"disc": of("disc", 1)}, tmp_path / "out")

    def test_images_of_the_training_set_under_another_name(self, plain: Path, tmp_path: Path) -> None:
        known = two_shapes().target
        assert known is not None
        with pytest.raises(UserError, match="target 26 is in the training set already, as 'cross'"):
            extend_bundle(plain, {"disc": known.subset([26, 27])}, tmp_path / "out")

    def test_nothing_but_images_of_the_training_set(self, plain: Path, tmp_path: Path) -> None:
        known = two_shapes().target
        assert known is not None
        with pytest.raises(UserError, match="all 2 images of target are in the training set already"):
            extend_bundle(plain, {"bar": known.subset([1, 2])}, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_a_class_that_swallows_an_old_one(self, plain: Path, tmp_path: Path) -> None:
        twins = {"disc": of("cross", 30)}  # crosses under another name
        with pytest.raises(
            UserError, match=r"the old class 'cross' would lose accuracy beyond doubt .*--even-if-worse"
        ):
            extend_bundle(plain, twins, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        done = extend_bundle(plain, twins, tmp_path / "out", even_if_worse=True)
        assert done.old is not None and done.old.suffered == (1,)


class TestMoreOfAClass:
    def test_known_images_are_left_out_and_said(self, frozen: Path, tmp_path: Path) -> None:
        known = two_shapes().target
        assert known is not None
        mixed = replace(of("bar", 8), items=[*of("bar", 8).items[:5], *known.items[:3]])
        done = extend_bundle(frozen, {"bar": mixed}, tmp_path / "out")
        assert (done.added[0].new, done.added[0].images, done.added[0].left_out) == (False, 5, 3)
        assert done.labels == OLD

    def test_threshold_stays_with_two_classes_and_goes_with_three(self, tmp_path: Path) -> None:
        point = Threshold(label="bar", value=0.3)
        path = bundle(tmp_path, FROZEN["logistic"], threshold=point, yardstick=False)
        more = extend_bundle(path, {"bar": of("bar", 5)}, tmp_path / "more")
        assert Bundle.load(more.path).manifest.threshold == point and "stays 0.3" in " ".join(more.notes)
        new = extend_bundle(path, {"disc": of("disc", 5)}, tmp_path / "new")
        assert Bundle.load(new.path).manifest.threshold is None and "is gone" in " ".join(new.notes)


def test_what_unlabelled_images_taught_is_said_to_be_lost(tmp_path: Path) -> None:
    path = bundle(tmp_path, {"cut": tiny.STAGES, "head": "stages", "adaptation": "propagation"})
    done = extend_bundle(path, {"disc": of("disc", 6)}, tmp_path / "out")
    assert done.frozen and "learned from unlabelled images too, and the new one does not" in " ".join(done.notes)
    plain = extend_bundle(bundle(tmp_path / "plain", FROZEN["stages"]), {"disc": of("disc", 6)}, tmp_path / "more")
    assert "unlabelled" not in " ".join(plain.notes)


@pytest.mark.parametrize(
    "strategy",
    [{"head": "linear", "adaptation": "mcc"}, {"head": "mlp", "adaptation": "pseudo-label"}, {"head": "linear"}],
)
def test_a_head_that_was_trained_on_frozen_stages_leaves_the_images_witnesses(
    strategy: dict[str, object], tmp_path: Path
) -> None:
    """The network has not seen them: what is known of it stays, and what unlabelled images taught is said to go."""
    path = bundle(tmp_path, {"cut": tiny.STAGES, **strategy})
    done = extend_bundle(path, {"disc": of("disc", 6)}, tmp_path / "out")
    told = " ".join(done.notes)
    assert done.frozen and done.health and Bundle.load(done.path).yardstick is not None
    assert "was trained on the old images" not in told
    assert ("learned from unlabelled images too, and the new one does not" in told) == ("adaptation" in strategy)


def test_of_a_trained_network_it_says_so_and_claims_no_health(tmp_path: Path) -> None:
    path = bundle(tmp_path, {"cut": 0, "head": "mlp"})
    done = extend_bundle(path, {"disc": of("disc", 6)}, tmp_path / "out")
    assert not done.frozen and not done.health
    assert "the network below the head was trained on the old images" in done.notes[0]
    before, after = Bundle.load(path), Bundle.load(done.path)
    assert after.yardstick is None and before.yardstick is not None
    named = after.predict([item.open() for item in of("disc", 20, seed=44).items])
    assert sum(prediction.label == "disc" for prediction in named) >= 12


def test_without_reference_images_there_are_none_afterwards(tmp_path: Path) -> None:
    path = bundle(tmp_path, FROZEN["logistic"], images=False, yardstick=False)
    done = extend_bundle(path, {"disc": of("disc", 6)}, tmp_path / "out")
    assert Reference.read(done.path) is None


def test_what_spoke_against_the_old_figures_is_not_forgotten(tmp_path: Path) -> None:
    path, told = bundle(tmp_path, FROZEN["logistic"], images=False, yardstick=False), "The images are of another kind."
    write_metrics(path, {**read_manifest(path).metrics, "cautions": [told]})
    once = extend_bundle(path, {"disc": of("disc", 6)}, tmp_path / "once").path
    twice = extend_bundle(once, {"ring": of("disc", 6, seed=9)}, tmp_path / "twice").path
    for one in (once, twice):
        assert read_manifest(one).metrics["cautions"] == [f"Before classes were added: {told}"]
