"""Which set of images looks most like another."""

from __future__ import annotations

import string
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from raytl.tasks.resembling import resemblance
from raytl.tasks.survey import Facts, facts_of
from tests.tasks.pictures import picture


def seen(*numbers: int) -> list[Facts]:
    return [facts_of(picture(number)) for number in numbers]


def test_sets_of_the_very_same_images_share_the_votes_in_any_order() -> None:
    sets = {"a": seen(1, 2, 3), "b": seen(1, 2, 3), "c": seen(7, 8, 9)}
    for names in (["a", "b", "c"], ["c", "b", "a"]):
        found = resemblance(seen(1, 2, 3), {name: sets[name] for name in names})
        assert found == pytest.approx({"a": 0.5, "b": 0.5, "c": 0.0})


def test_dark_and_bright_exchanged_are_alike_and_nothing_is_said_of_nothing() -> None:
    turned = [facts_of(Image.eval(picture(number), lambda value: 255 - value)) for number in (1, 2, 3)]
    sets = {"near": seen(1, 2, 3), "far": seen(7, 8, 9)}
    assert resemblance(turned, sets)["near"] == 1.0
    assert resemblance([], sets) == {"near": 0.0, "far": 0.0}


def letter(name: str, size: int, shift: int = 0) -> Image.Image:
    """A white letter on black."""
    image = Image.new("L", (64, 64))
    ImageDraw.Draw(image).text((16 + shift, 8), name, fill=255, font=ImageFont.load_default(size))
    return image


@pytest.mark.parametrize(
    "made",
    [
        lambda image: image.resize((4, 4), Image.Resampling.BOX),
        lambda image: image.resize((8, 8), Image.Resampling.BOX),
        lambda image: image.filter(ImageFilter.GaussianBlur(6)),
        lambda image: image,
    ],
    ids=["4 pixels", "8 pixels", "blurred", "as they are"],
)
def test_what_is_small_or_blurred_is_nearest_to_what_shows_the_same(made: Callable[[Image.Image], Image.Image]) -> None:
    """Smooth patterns are near to anything smooth, unless all are looked at as closely as the least detailed can be."""
    coarse = np.random.default_rng(0).integers(0, 256, (100, 3, 3), dtype=np.uint8)
    sets = {
        "patterns": [facts_of(Image.fromarray(few).resize((64, 64), Image.Resampling.BICUBIC)) for few in coarse],
        "letters": [facts_of(letter(name, 44)) for name in string.ascii_letters],
    }
    small = [facts_of(made(letter(name, 50, shift=2))) for name in string.ascii_letters]
    assert resemblance(small, sets)["letters"] > 0.75
