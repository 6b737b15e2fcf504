"""Two source models on one image: their features as each has them, in a model like any other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import SIDE, data, workspace
from torch.nn import functional as F

from raytl import sources
from raytl.bundles import Bundle, export_bundle
from raytl.bundles.onnx import export_onnx
from raytl.bundles.onnx_model import OnnxModel
from raytl.core.errors import UserError
from raytl.search.space.binding import BoundSpace
from raytl.search.space.definition import load_space
from raytl.sources.checkpoint import write_checkpoint
from raytl.sources.manifest import MANIFEST_FILE
from raytl.training.loop import run_trial
from raytl.training.strategy import Strategy
from raytl.training.trial import TrialJob


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A network that has learned, as far as anybody can tell, with a normalisation of its own."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    model = sources.load("scratch:cnn-small", channels=3, image_size=24, seed=5)
    model.preprocessing = type(model.preprocessing)(size=24, channels=3, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    write_checkpoint(folder, model, {})
    return f"file:{folder}"


def alike(features: torch.Tensor) -> torch.Tensor:
    return F.normalize(features - features.mean(dim=1, keepdim=True), dim=1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("turned", [False, True])
def test_its_features_are_those_of_the_two(channels: int, turned: bool, saved: str) -> None:
    uris = ["plain:gradients", saved] if turned else [saved, "plain:gradients"]
    model = sources.load(f"joined:{uris[0]}+{uris[1]}", channels=channels, image_size=24)
    shown = model.preprocessing.channels
    pixels = torch.randint(0, 256, (4, shown, 24, 24), dtype=torch.uint8)
    expected = []
    for uri in uris:
        own = sources.load(uri, channels=shown, image_size=24)
        seen = pixels.expand(4, own.preprocessing.channels, 24, 24)
        expected.append(alike(own.run(own.preprocessing.normalise(seen))))
    with torch.inference_mode():
        found = model.run(model.preprocessing.normalise(pixels))
    assert torch.allclose(found, torch.cat(expected, dim=1), atol=1e-5)
    assert not model.trainable
    known = sources.info(f"joined:{uris[0]}+{uris[1]}", channels=channels, image_size=24)
    assert (known.feature_dim, known.stages, known.image_size) == (found.shape[1], model.stage_names, 24)
    assert known.pretrained and not known.trainable and not sources.is_untrained(known.uri)


@pytest.mark.parametrize("head", ["logistic", "nearest-mean"])
def test_in_a_bundle_and_as_onnx_it_answers_as_it_did(head: str, saved: str, tmp_path: Path) -> None:
    space = workspace(tmp_path / "w", data(8), image_size=24)
    strategy = Strategy(f"joined:{saved}+plain:pixels", cut=1, head=head)
    model = run_trial(space, TrialJob(strategy, None, final=True), lambda report: None).model
    path = export_bundle(tmp_path / "bundle", model, metrics={}, provenance={})
    pixels = torch.randint(0, 256, (5, 3, 24, 24), dtype=torch.uint8)
    with torch.inference_mode():
        expected = model.eval()(model.preprocessing.normalise(pixels)).softmax(1).numpy()
    np.testing.assert_allclose(Bundle.load(path).probabilities(pixels), expected, atol=1e-4)
    export_onnx(path)
    np.testing.assert_allclose(OnnxModel.load(path).compute(pixels.numpy()), expected, atol=1e-3)
    assert json.loads((path / MANIFEST_FILE).read_text())["architecture"] == "joined:scratch:cnn-small+plain:pixels"


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("joined:plain:pixels", "of two source models"),
        ("joined:plain:pixels+plain:colour+plain:gradients", "of two source models"),
        ("joined:plain:pixels+scratch:cnn-small", "scratch:cnn-small has learned nothing"),
        ("joined:pretrain:bright/scratch:cnn-small+plain:pixels", "is made during a search"),
        ("joined:plain:pixels@32px+plain:colour", "has a size of its own"),
        ("joined:plain:pixels+plain:colours", "unknown plain features 'colours'; did you mean 'colour'"),
        ("joined:plain:pixels+nowhere:x", "unknown source model provider 'nowhere'"),
    ],
)
def test_what_cannot_be_joined_is_said(uri: str, why: str) -> None:
    for ask in (sources.load, sources.info):
        with pytest.raises(UserError, match=why):
            ask(uri)


def test_a_search_has_heads_on_it_and_trains_nothing_of_it(saved: str, tmp_path: Path) -> None:
    file = tmp_path / "joined.yaml"
    uri = f"joined:{saved}+plain:gradients"
    file.write_text(f"image_size: {SIDE}\nspace:\n  source_model: ['{uri}', 'plain:gradients']\n  cut: any\n")
    bound = BoundSpace(load_space(str(file)), data(8))
    assert bound.cuts(uri) == [1] and bound.source_models[0] == uri
