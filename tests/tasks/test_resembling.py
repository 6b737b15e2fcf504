"""Which set of images looks most like another."""

from __future__ import annotations

import pytest
from PIL import Image

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
