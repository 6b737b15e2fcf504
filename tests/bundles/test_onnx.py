"""As ONNX a bundle answers as it does in torch, for any number of images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from raytl import sources
from raytl.bundles import Bundle, export_bundle
from raytl.bundles.onnx import export_onnx
from raytl.bundles.onnx_model import ONNX_FILE
from raytl.core.errors import UserError
from raytl.sources.near_heads import NearestMeanHead, NeighboursHead

LABELS = ("ash", "birch", "cedar")


def bundle(folder: Path, head: str = "linear", channels: int = 3, network: str = "scratch:cnn-small") -> Path:
    model = sources.build_architecture(network, num_classes=3, channels=channels, image_size=24, seed=1)
    model.replace_head(3, LABELS, head)
    if head == "k-nn":
        model.head = NeighboursHead(model.feature_dim, 3, images=9, neighbours=5)
    if isinstance(model.head, NearestMeanHead | NeighboursHead):
        model.eval()
        noise = torch.randn(9, channels, 24, 24, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            model.head.place(model.run(noise), torch.arange(9) % 3, torch.ones(9))
    drawn = torch.Generator().manual_seed(0)  # not as the tests before left it
    for weight in model.head.parameters():
        weight.data.normal_(0, 2, generator=drawn)
    return export_bundle(folder, model, metrics={}, provenance={}, temperature=0.5)


@pytest.mark.parametrize(
    ("network", "head", "channels"),
    [
        ("scratch:cnn-small", "linear", 3),
        ("scratch:cnn-small", "stages", 1),
        ("scratch:cnn-small", "zero-shot", 3),
        ("scratch:cnn-small", "nearest-mean", 3),
        ("scratch:cnn-small", "k-nn", 1),
        ("plain:gradients", "linear", 1),
        ("plain:colour", "linear", 3),
    ],
)
def test_answers_as_the_bundle_does(tmp_path: Path, network: str, head: str, channels: int) -> None:
    path = bundle(tmp_path / "model", head, channels, network)
    assert export_onnx(path) <= 1e-3
    session = onnxruntime.InferenceSession(str(path / ONNX_FILE), providers=["CPUExecutionProvider"])
    brightest = np.linspace(10, 256, 7)[:, None, None, None]
    images = (np.random.default_rng(0).random((7, channels, 24, 24)) * brightest).astype(np.uint8)
    images[3, :, 12:] = images[4] = 0  # nothing changes there
    expected = Bundle.load(path).probabilities(torch.from_numpy(images))
    assert np.ptp(np.log(expected), axis=0).max() > 0.1, "tells images apart"
    for count in (1, 7):
        found = session.run(["probabilities"], {"images": images[:count]})[0]
        assert np.allclose(found, expected[:count], atol=1e-3)
    told = json.loads(session.get_modelmeta().custom_metadata_map["raytl"])
    assert tuple(told["labels"]) == LABELS and told["preprocessing"]["size"] == 24


def test_a_network_that_answers_otherwise_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bundle(tmp_path / "model")
    monkeypatch.setattr("raytl.bundles.onnx.TOLERANCE", -1.0)
    with pytest.raises(UserError, match="answers otherwise"):
        export_onnx(path)
    assert not (path / ONNX_FILE).exists()
