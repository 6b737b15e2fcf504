"""ONNX files are measured on held-out images, the card says it, and 8 bits that cost too much are left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny import data, shapes, workspace

from raytl import sources
from raytl.bundles import Bundle, Reference, export_bundle, reference_images
from raytl.bundles.onnx_model import INT8_FILE, ONNX_FILE, OnnxModel
from raytl.bundles.shipping import ship_onnx
from raytl.serving.live import warmed
from raytl.serving.settings import ServingSettings
from raytl.tasks import Images
from raytl.tasks.items import PixelsItem
from raytl.training.loop import run_trial
from raytl.training.strategy import Strategy
from raytl.training.trial import TrialJob


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A convolutional network that tells shapes apart, with its training images and others."""
    held = data(40, None, domains=False)
    space = workspace(tmp_path_factory.mktemp("w"), held)
    cut = len(sources.info("scratch:cnn-small").stages)
    probe = Strategy.from_dict({"source_model": "scratch:cnn-small", "cut": cut, "head": "logistic"})
    model = run_trial(space, TrialJob(probe, None, final=True), lambda report: None).model
    return model, held.target, shapes(25, seed=99)


@pytest.fixture
def folder(trained, tmp_path) -> Path:
    model, target, _ = trained
    return export_bundle(
        tmp_path / "m", model, metrics={"metric": "accuracy"}, provenance={}, examples=reference_images(target)
    )


def test_all_files_are_measured_on_held_out_images_and_the_card_says_it(trained, folder):
    _, target, test = trained
    shipped = ship_onnx(folder, test, target, int8=True)
    assert shipped.int8["kept"] and shipped.int8["method"] == "static"
    assert (folder / INT8_FILE).stat().st_size == shipped.int8["size_bytes"] < (folder / ONNX_FILE).stat().st_size / 2
    measured = shipped.measured
    bundle = Bundle.load(folder)
    images = [item.open() for item in test.items]
    names = [test.classes[label] for label in test.labels]
    for file, model in {
        "bundle": bundle,
        ONNX_FILE: OnnxModel.load(folder),
        INT8_FILE: OnnxModel.load(folder, INT8_FILE),
    }.items():
        right = np.mean([p.label == name for p, name in zip(model.predict(images), names, strict=True)])
        assert measured.accuracy[file] == pytest.approx(right)
    assert measured.accuracy["bundle"] > 0.8 and measured.same[ONNX_FILE] == 1
    card = json.loads((folder / "model.json").read_text())["metrics"]
    assert card == {"metric": "accuracy", "onnx": shipped.to_json()}
    # Both are held to what they answered when they were made.
    for file in (ONNX_FILE, INT8_FILE):
        live = warmed(ServingSettings(bundle=str(folder)), lambda path, file=file: OnnxModel.load(path, file))
        assert live.bundle.reference(folder) is not None


def test_without_held_out_images_the_reference_images_tell(trained, folder):
    shipped = ship_onnx(folder, None, why="the run has no test images", int8=True)
    assert (shipped.measured.on, shipped.measured.images, shipped.measured.accuracy) == ("reference", 16, None)
    assert shipped.measured.why == "the run has no test images"
    assert shipped.int8["kept"] and shipped.measured.same[INT8_FILE] >= 15 / 16


def test_8_bits_that_cost_accuracy_are_left_out(trained, folder):
    """Calibrated with black images only, the activations of all others are cut off."""
    _, _, test = trained
    black = Images("black", [PixelsItem("black", np.zeros((32, 32), dtype=np.uint8))] * 3)
    shipped = ship_onnx(folder, test, black, int8=True)
    assert not shipped.int8["kept"] and "fewer of" in shipped.int8["why_not"]
    assert shipped.measured.accuracy[INT8_FILE] < shipped.measured.accuracy["bundle"] - 0.01
    assert (folder / ONNX_FILE).exists() and not (folder / INT8_FILE).exists()


def test_nothing_to_measure_8_bits_with(trained, tmp_path):
    model, _, _ = trained
    folder = export_bundle(tmp_path / "m", model, metrics={}, provenance={})
    shipped = ship_onnx(folder, None, int8=True)
    assert shipped.measured is None and not shipped.int8["kept"]
    assert "no image is at hand" in shipped.int8["why_not"] and not (folder / INT8_FILE).exists()


def test_a_model_that_is_nothing_but_its_head_stays_as_it_is(tmp_path):
    model = sources.load("plain:pixels", channels=3, image_size=16)
    model.replace_head(2, ("a", "b"))
    folder = export_bundle(tmp_path / "m", model, metrics={}, provenance={}, examples=_pictures())
    shipped = ship_onnx(folder, None, int8=True)
    assert "hardly smaller" in shipped.int8["why_not"] and not (folder / INT8_FILE).exists()
    assert Reference.read(folder) is not None


def _pictures():
    return [item.open() for item in shapes(2, seed=3).items]
