"""What source models are called, in sentences and in tables."""

from __future__ import annotations

import math

import pytest

from raytl.evaluation.intervals import Interval
from raytl.runs import wording


@pytest.mark.parametrize(
    ("uri", "spoken", "listed"),
    [
        ("torchvision:resnet18", "resnet18", "resnet18"),
        ("torchvision:resnet18@224px", "resnet18 at 224 px", "224 px resnet18"),
        ("torchvision:resnet18@3x96px", "resnet18 on 3 x 3 pieces of 96 px", "3 x 96 px resnet18"),
        ("torchvision:resnet18@96px-squash", "resnet18 at 96 px, squashed", "96 px squashed resnet18"),
        ("package:some-weights@160px", "some-weights at 160 px", "160 px some-weights"),
        ("pretrain:printed/scratch:cnn-small", "printed/cnn-small", "printed/cnn-small"),
        ("scratch:cnn-small", "scratch cnn-small", "scratch cnn-small"),
        ("plain:pixels", "pixels", "pixels"),
        ("file:my/m\udcfc.pth", r"m\xfc.pth", r"m\xfc.pth"),
        ("file:my/w.pth?arch=hf:some/vit@none", "w.pth", "w.pth"),
        ("file:my/w.pth?arch=timm:resnet18@none@160px", "w.pth at 160 px", "160 px w.pth"),
    ],
)
def test_a_source_model_has_a_short_name(uri: str, spoken: str, listed: str) -> None:
    assert wording.source(uri) == spoken
    assert wording.listed_source(uri) == listed


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("torchvision:resnet18@none", "resnet18 from random weights"),
        ("scratch:cnn-small", "cnn-small from random weights"),
        ("file:my/w.pth?arch=torchvision:resnet18@none", "fine-tuned from w.pth"),
        ("pretrain:printed/torchvision:resnet18@none", "resnet18 pretrained on printed"),
    ],
)
def test_what_was_trained_is_not_said_to_start_from_random_weights(uri: str, said: str) -> None:
    assert wording.strategy({"source_model": uri}) == said


@pytest.mark.parametrize(
    ("seconds", "measured", "estimated"),
    [
        (0.04, "0.0 s", "0.0 s"),
        (8.04, "8.0 s", "8.0 s"),
        (75, "1 min 15 s", "75 s"),
        (171, "2 min 51 s", "3 min"),
        (4500, "1 h 15 min", "75 min"),
        (11100, "3 h 5 min", "3.1 h"),
    ],
)
def test_seconds_in_words(seconds, measured, estimated):
    assert wording.duration(seconds) == measured
    assert wording.duration(seconds, rough=True) == estimated


@pytest.mark.parametrize(
    ("found", "share", "said"),
    [
        (Interval(0.481, 0.2, 0.7), True, "48.1 %, 95 % interval 20.0 to 70.0"),
        (Interval(0.481, 0.0, 1.0), True, "48.1 % (how far off, so few independent images cannot tell)"),
        (Interval(math.nan, 0.0, 1.0), True, "not known: so few independent images cannot tell"),
        (Interval(0.481, -0.1, 1.2), False, "0.481, 95 % interval -0.100 to 1.200"),
    ],
)
def test_what_one_group_cannot_tell_is_said_in_words(found: Interval, share: bool, said: str) -> None:
    assert wording.figure(found, share=share) == said
