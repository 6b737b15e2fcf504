from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageEnhance
from sklearn.datasets import load_digits

from raytl.tasks.decoding import decode
from raytl.tasks.duplicates import (
    components,
    exact_groups,
    label_conflicts,
    merge_groups,
    near_pairs,
)
from raytl.tasks.survey import Facts, facts_of
from tests.tasks.pictures import encoded, picture


def reopened(data: bytes) -> Image.Image:
    return decode(data, "copy")


def near_groups(facts: list[Facts]) -> np.ndarray:
    return components(len(facts), near_pairs(facts))


COPIES = {
    "recompressed": lambda image: reopened(encoded(image, "JPEG", quality=40)),
    "halved": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS),
    "doubled": lambda image: image.resize((image.width * 2, image.height * 2), Image.Resampling.BILINEAR),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(0.8),
    "grey": lambda image: image.convert("L"),
}
CHANGES = {
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "turned": lambda image: image.transpose(Image.Transpose.ROTATE_180),
    "another": lambda image: picture(999, size=image.size),
    "stretched": lambda image: image.resize((image.width * 2, image.height)),
    "negative": lambda image: image.point(lambda value: 255 - value),
}


@pytest.mark.parametrize("change", COPIES)
@pytest.mark.parametrize("number", range(5))
def test_copies_are_found(change: str, number: int) -> None:
    original = picture(number, size=(96, 64))
    assert near_pairs([facts_of(original), facts_of(COPIES[change](original))]).tolist() == [[0, 1]]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("number", range(5))
def test_other_pictures_are_not(change: str, number: int) -> None:
    original = picture(number, size=(96, 64))
    assert not len(near_pairs([facts_of(original), facts_of(CHANGES[change](original))]))


def test_handwritten_digits_stay_apart_though_they_are_much_alike() -> None:
    images = [Image.fromarray(np.rint(image * 255 / 16).astype(np.uint8)) for image in load_digits().images]
    assert len(np.unique(near_groups([facts_of(image) for image in images]))) == len(images)


def test_flat_icons_that_differ_in_a_detail_stay_apart() -> None:
    icons = []
    for x, y in [(4, 4), (12, 4), (20, 4), (4, 16), (12, 16), (20, 16)]:
        icon = Image.new("RGB", (32, 32), (240, 240, 240))
        ImageDraw.Draw(icon).rectangle((2, 2, 29, 29), fill=(30, 90, 200))
        ImageDraw.Draw(icon).rectangle((x, y, x + 5, y + 5), fill=(255, 255, 255))
        icons.append(icon)
    assert len(np.unique(near_groups([facts_of(icon) for icon in icons]))) == len(icons)


def test_blank_images_say_nothing_about_each_other() -> None:
    blanks = [Image.new("L", (20, 20), grey) for grey in (0, 1, 100, 255, 255)]
    assert len(np.unique(near_groups([facts_of(blank) for blank in blanks]))) == 5


def test_every_pair_is_found_among_many() -> None:
    pictures = [picture(n, size=(64, 64)) for n in range(400)]
    copies = [COPIES["recompressed"](image) for image in pictures[:50]]
    pairs = near_pairs([facts_of(image) for image in [*pictures, *copies]])
    assert sorted(map(tuple, pairs.tolist())) == [(n, 400 + n) for n in range(50)]


partitions = st.integers(1, 25).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(0, 8), min_size=n, max_size=n).map(np.array)] * 2)
)


@given(partitions)
def test_merged_groups_are_the_finest_that_keep_both(pair: tuple[np.ndarray, np.ndarray]) -> None:
    left, right = pair
    n = len(left)
    merged = merge_groups(n, left, None, right)
    reach = (left[:, None] == left) | (right[:, None] == right)
    for _ in range(n):  # transitive closure, plainly
        reach = (reach.astype(int) @ reach.astype(int)) > 0
    np.testing.assert_array_equal(merged[:, None] == merged, reach)


@given(st.lists(st.text("ab", max_size=2), max_size=20))
def test_exact_groups_are_equal_exactly_for_equal_digests(digests: list[str]) -> None:
    groups = exact_groups(digests)
    assert all((groups[i] == groups[j]) == (digests[i] == digests[j]) for i in range(len(digests)) for j in range(i))


def test_conflicts_name_the_first_and_the_one_that_contradicts() -> None:
    assert label_conflicts(["a", "b", "a", "a"], np.array([0, 1, 0, 1])) == [(0, 3)]
