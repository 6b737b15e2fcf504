"""Copies that were mirrored, turned or framed: found where labels say that it is one thing, and hardly by chance."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps
from sklearn.datasets import load_digits

from raytl.tasks import LabelledImages, Task
from raytl.tasks.duplicates import _low_frequencies, _whichever_way_up, find_alike
from raytl.tasks.items import PixelsItem
from raytl.tasks.survey import facts_of
from tests.tasks.pictures import encoded

TURNS = list(Image.Transpose)


def photograph(number: int, size: tuple[int, int] = (96, 64)) -> Image.Image:
    """Noise with enough detail for no two to be alike by chance."""
    coarse = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def recompressed(image: Image.Image) -> Image.Image:
    return Image.open(io.BytesIO(encoded(image, "JPEG", quality=75))).convert("RGB")


def joined(images: list[Image.Image], classes: list[int]) -> tuple[bool, bool]:
    """Whether the first two are one picture, and of one group."""
    found = find_alike([facts_of(image) for image in images], classes=np.array(classes))
    return bool(found.pictures[0] == found.pictures[1]), bool(found.within[0][0] == found.within[0][1])


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("number", range(3))
def test_a_picture_the_other_way_up_is_one_in_one_class_alone(turn: Image.Transpose, number: int) -> None:
    both = [photograph(number), recompressed(photograph(number).transpose(turn)), photograph(99)]
    assert joined(both, [4, 4, 4]) == (True, True)
    assert joined(both, [4, 5, 4]) == (False, False)
    assert joined(both, [-1, 4, 4]) == (False, False)
    assert joined(both, [-1, -1, -1]) == (False, False)


@pytest.mark.parametrize("colour", ["black", "white", "grey"])
@pytest.mark.parametrize("number", range(3))
def test_what_was_framed_is_one_but_in_two_classes(colour: str, number: int) -> None:
    framed = ImageOps.pad(photograph(number), (96, 96), color=colour)
    for classes, same in (([1, 1], True), ([-1, 1], True), ([-1, -1], True), ([0, 1], False)):
        assert joined([photograph(number), framed], classes) == (same, same)
    other = ImageOps.pad(photograph(number + 50), (96, 96), color=colour)
    assert joined([framed, other], [1, 1]) == (False, False)
    wide = ImageOps.pad(photograph(number), (200, 96), color="navy")
    assert joined([framed, wide], [1, 1]) == (True, True)


def test_narrow_and_empty_frames_are_none() -> None:
    assert facts_of(photograph(1)).content is None
    assert facts_of(Image.new("RGB", (60, 60), "red")).content is None
    assert facts_of(ImageOps.expand(photograph(1, (192, 128)), 1)).content is None
    content = facts_of(ImageOps.expand(photograph(1), 20)).content
    assert content is not None and (content.width, content.height) == (96, 64)
    assert facts_of(ImageOps.expand(photograph(1).convert("L"), 20, fill=7)).content is not None


def test_the_frame_of_a_large_image_is_found_in_a_smaller_one() -> None:
    content = facts_of(ImageOps.expand(photograph(1, (2400, 1600)), 300)).content
    assert content is not None
    assert abs(content.width - 2400) <= 8 and abs(content.height - 1600) <= 8


def test_a_six_is_no_nine_and_no_two_digits_are_one_turned() -> None:
    digits = [Image.fromarray(np.rint(image * 255 / 16).astype(np.uint8)) for image in load_digits().images[:900]]
    for size in (8, 28):
        facts = [facts_of(digit.resize((size, size), Image.Resampling.BICUBIC)) for digit in digits]
        found = find_alike(facts, classes=np.zeros(len(facts), dtype=np.int64))
        assert len(set(found.pictures)) == len(set(found.within[0])) == len(facts)


def test_flat_arrows_are_not_one_whatever_their_labels() -> None:
    right = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(right).polygon([(8, 26), (36, 26), (36, 12), (58, 32), (36, 52), (36, 38), (8, 38)], fill="navy")
    assert joined([right, ImageOps.mirror(right)], [0, 0]) == (False, False)


def test_all_ways_up_lie_where_the_picture_lies() -> None:
    thumbnail = np.random.default_rng(0).normal(size=(16, 16))
    ways = np.stack([np.rot90(side, turn).ravel() for side in (thumbnail, thumbnail[:, ::-1]) for turn in range(4)])
    low = _whichever_way_up(ways @ _low_frequencies().T)
    np.testing.assert_allclose(low, np.repeat(low[:1], 8, axis=0), atol=1e-5)
    other = np.random.default_rng(1).normal(size=(8, 256)) @ _low_frequencies().T
    near = np.linalg.norm(_whichever_way_up(other)[:, None] - low[None], axis=2)
    assert (near <= np.linalg.norm(other[:, None] - (ways @ _low_frequencies().T)[None], axis=2) + 1e-5).all()


def test_a_mirrored_test_image_leaves_the_target_where_its_label_is_the_same() -> None:
    def of(name: str, images: list[Image.Image], labels: list[int]) -> LabelledImages:
        items = [PixelsItem(f"{name}/{n}", np.asarray(image)) for n, image in enumerate(images)]
        return LabelledImages(name, items, None, ("left", "right"), np.array(labels))

    target = of("t", [photograph(number) for number in range(12)], [number % 2 for number in range(12)])
    copies = [ImageOps.mirror(photograph(number)) for number in (2, 4, 6)]
    test = of("final", [*copies, photograph(40), photograph(41)], [0, 0, 1, 0, 1])
    task = Task(target, test=test)
    assert task.data.target is not None
    assert [item.name for item in task.data.target.items] == [f"t/{n}" for n in range(12) if n not in (2, 4)]
