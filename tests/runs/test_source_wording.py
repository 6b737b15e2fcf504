"""What source models are called, in sentences and in tables."""

from __future__ import annotations

import pytest

from raytl.runs import wording


@pytest.mark.parametrize(
    ("uri", "spoken", "listed"),
    [
        ("torchvision:resnet18", "resnet18", "resnet18"),
        ("torchvision:resnet18@224px", "resnet18 at 224 px", "224 px resnet18"),
        ("package:some-weights@160px", "some-weights at 160 px", "160 px some-weights"),
        ("pretrain:printed/scratch:cnn-small", "printed/cnn-small", "printed/cnn-small"),
        ("scratch:cnn-small", "scratch cnn-small", "scratch cnn-small"),
        ("plain:pixels", "pixels", "pixels"),
    ],
)
def test_a_source_model_has_a_short_name(uri: str, spoken: str, listed: str) -> None:
    assert wording.source(uri) == spoken
    assert wording.listed_source(uri) == listed
