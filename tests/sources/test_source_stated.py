"""Bare weights whose URI says how images were prepared for them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from raytl import sources
from raytl.core.errors import UserError
from raytl.sources.checkpoint import load_checkpoint, write_checkpoint

ARCH = "torchvision:squeezenet1_1"


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("bare") / "w.pth"
    model = sources.load(f"{ARCH}@none")
    torch.save(model.state_dict(), path)
    return f"file:{path}?arch={ARCH}"


def test_is_what_is_stated_and_else_the_architectures(uri: str, tmp_path: Path) -> None:
    usual = sources.load(f"{ARCH}@none").preprocessing
    assert sources.load(uri).preprocessing == usual
    model = sources.load(f"{uri}&mean=0.5&std=0.1,0.2,0.3&size=160&interpolation=bicubic&resize=squash")
    found = model.preprocessing
    assert (found.mean, found.std, found.size) == ((0.5,) * 3, (0.1, 0.2, 0.3), 160)
    assert (found.interpolation, found.resize, found.crop_fraction) == ("bicubic", "squash", usual.crop_fraction)
    write_checkpoint(tmp_path / "m", model, {})
    assert load_checkpoint(tmp_path / "m")[1].preprocessing == found
    (entry,) = sources.catalogue("file", f"{uri}&size=160&mean=0.5")
    assert (entry.image_size, entry.preprocessing.mean) == (160, (0.5,) * 3)


def test_a_size_that_is_wished_for_goes_before_the_stated_one(uri: str) -> None:
    at = f"{uri}&size=160"
    assert sources.info(at).image_size == sources.load(at).preprocessing.size == 160
    for model in (sources.load(at, image_size=64), sources.load(f"{at}@64px")):
        assert model.preprocessing.size == 64
    assert sources.info(at, image_size=64).image_size == 64


def test_whether_the_middle_is_shown_is_known_before_weights_are_read(uri: str) -> None:
    assert sources.info(uri).crops and sources.info(f"{uri}&resize=crop").crops
    assert not sources.info(f"{uri}&resize=squash").crops


def test_what_nobody_stated_is_said(uri: str) -> None:
    (note,) = sources.load(uri).notes
    assert note == (
        "images are prepared as is usual for torchvision:squeezenet1_1 (mean 0.485, 0.456, 0.406; std 0.229, 0.224, "
        "0.225; interpolation bilinear; resize crop); &mean=… behind it says otherwise"
    )
    (note,) = sources.load(f"{uri}&mean=0.5&std=0.5").notes
    assert "(interpolation bilinear; resize crop)" in note
    assert not sources.load(f"{uri}&mean=0.5&std=0.5&interpolation=bicubic&resize=pad").notes


def test_an_architecture_keeps_a_query_of_its_own(tmp_path: Path) -> None:
    shape = "hf:vit?width=16&depth=1&heads=2&hidden=24&patch=4&size=16&activation=gelu&epsilon=1e-06&qkv_bias=1"
    torch.save(sources.load(shape).state_dict(), tmp_path / "w.pth")
    uri = f"file:{tmp_path}/w.pth?arch={shape}"
    assert sources.load(uri).preprocessing.size == 16
    assert sources.load(f"{uri}&mean=0.25").preprocessing.mean == (0.25,) * 3


def test_a_network_of_one_channel_takes_one_number(tmp_path: Path) -> None:
    torch.save(sources.load("scratch:cnn-small", channels=1).state_dict(), tmp_path / "w.pth")
    uri = f"file:{tmp_path}/w.pth?arch=scratch:cnn-small"
    assert sources.load(f"{uri}&mean=0.1&std=0.2", channels=1).preprocessing.mean == (0.1,)
    with pytest.raises(UserError, match="mean has 3 numbers for 1 channels"):
        sources.load(f"{uri}&mean=0.1,0.2,0.3", channels=1)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("mean=127.5", r"mean is '127.5'; give one number from 0 to 1, or one for each channel"),
        ("mean=nan", "mean is 'nan'; give one number"),
        ("mean=", "mean is ''; give one number"),
        ("mean=0.1,0.2", "mean has 2 numbers for 3 channels"),
        ("std=0", "std is '0'; give one number above 0, to 1"),
        ("std=-1", "std is '-1'"),
        ("size=0", "size is '0'; give a side from 1 to 4096 pixels"),
        ("size=big", "size is 'big'; give a side"),
        ("size=9", "torchvision:squeezenet1_1 takes images of 17 pixels, not of 9"),
        ("interpolation=cubic", "interpolation is 'cubic'; give bilinear or bicubic"),
        ("resize=stretch", "resize is 'stretch'; give squash or crop or pad"),
        ("maen=0.5", "unknown key 'maen' behind the architecture; did you mean 'mean'"),
        ("mean=0.5&mean=0.4", "'mean' is given twice"),
    ],
)
def test_nonsense_gets_one_sentence(said: str, sentence: str, uri: str) -> None:
    with pytest.raises(UserError, match=sentence) as error:
        sources.load(f"{uri}&{said}")
    assert "\n" not in str(error.value)
