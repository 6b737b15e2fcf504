from __future__ import annotations

import tracemalloc
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageEnhance
from scipy.fft import dctn
from scipy.stats import entropy
from sklearn.datasets import load_digits

from raytl.tasks import duplicates
from raytl.tasks.decoding import decode
from raytl.tasks.duplicates import (
    components,
    exact_groups,
    find_alike,
    label_conflicts,
    merge_groups,
)
from raytl.tasks.survey import Facts, facts_of
from tests.tasks.pictures import encoded, picture


def reopened(data: bytes) -> Image.Image:
    return decode(data, "copy")


def near_groups(facts: list[Facts]) -> np.ndarray:
    return find_alike(facts).within[0]


def are_alike(*images: Image.Image) -> bool:
    return len(set(near_groups([facts_of(image) for image in images]))) == 1


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
    assert are_alike(original, COPIES[change](original))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("number", range(5))
def test_other_pictures_are_not(change: str, number: int) -> None:
    original = picture(number, size=(96, 64))
    assert not are_alike(original, CHANGES[change](original))


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
    groups = near_groups([facts_of(image) for image in [*pictures, *copies]])
    assert groups.tolist() == [*range(400), *range(50)]


def alike_plainly(one: Facts, other: Facts) -> bool:
    left, right = (fact.thumbnail.astype(float).ravel() for fact in (one, other))
    if min(left.std(), right.std()) < 4 or abs(np.log(one.width / one.height * other.height / other.width)) > np.log(
        1.05
    ):
        return False
    gap = (left - left.mean()) / left.std() - (right - right.mean()) / right.std()
    return bool(np.corrcoef(left, right)[0, 1] >= 0.994 and np.abs(gap).max() <= 0.3)


def one_picture_plainly(one: Facts, other: Facts) -> bool:
    tints = []
    for fact in (one, other):
        grey = fact.thumbnail.astype(float)
        steps = np.minimum((grey - grey.min()) / max(np.ptp(grey), 1) * 32, 31).astype(int)
        waves = dctn(grey - grey.mean(), norm="ortho") ** 2
        fine = 1 - waves[:3, :3].sum() / waves.sum()
        bits = entropy(np.bincount(steps.ravel()), base=2)
        if min(fact.width, fact.height) < 16 or bits < 3 or fine < 0.1:
            return False
        tints.append((np.array(fact.colour) - np.mean(fact.colour)) / grey.std())
    return one.greyscale or other.greyscale or bool(np.abs(tints[0] - tints[1]).max() <= 0.3)


@cache
def looks() -> list[Facts]:
    """Chains of pictures, each like the next and not like the last; copies, tinted, grey, small and without detail."""
    found = []
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
        first, second, _ = (Image.fromarray(part).resize((64, 64), Image.Resampling.BICUBIC) for part in noise)
        found += [Image.blend(first, second, share) for share in (0, 0.04, 0.08, 0.12, 0.16, 1)]
        found += [COPIES[change](first) for change in COPIES]
        found.append(Image.merge("RGB", [first.convert("L").point(lambda v, k=k: v * k // 4) for k in (4, 3, 2)]))
        found += [first.resize((12, 12)), first.resize((64, 90)), picture(number), COPIES["brighter"](picture(number))]
    return [facts_of(image) for image in [*found, Image.new("L", (30, 30), 9)]]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 48), st.integers(-1, 2), st.sets(st.integers(0, 1))), max_size=40))
def test_what_is_alike_is_what_all_pairs_say(drawn: list[tuple[int, int, set[int]]]) -> None:
    n, facts = len(drawn), [looks()[number] for number, _, _ in drawn]
    labels = np.array([label for _, label, _ in drawn], dtype=np.int64)
    parts = [np.array([part in among for _, _, among in drawn], dtype=bool) for part in range(2)]
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n) if alike_plainly(facts[i], facts[j])]
    sure = [(i, j) for i, j in pairs if one_picture_plainly(facts[i], facts[j])]
    across = [(i, j) for i, j in sure if labels[i] != labels[j] and min(labels[i], labels[j]) >= 0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_PAIRS", 6)
        patch.setattr(duplicates, "_CANDIDATES", 16)
        found = find_alike(facts, parts, labels)
    for within, part in zip(found.within, parts, strict=True):
        own = np.array([pair for pair in pairs if part[list(pair)].all()], dtype=np.int64).reshape(-1, 2)
        assert within.tolist() == components(n, own).tolist()
    assert found.pictures.tolist() == components(n, np.array(sure, dtype=np.int64).reshape(-1, 2)).tolist()
    assert found.across.first == across[:3]
    assert set(np.flatnonzero(found.across.images)) == {index for pair in across for index in pair}
    counts: dict[tuple[int, int], int] = {}
    for pair in across:
        kind = tuple(sorted(labels[list(pair)].tolist()))
        counts[kind] = counts.get(kind, 0) + 1
    assert list(found.across.counts.items()) == list(counts.items())


def test_the_looks_hold_all_cases() -> None:
    pairs = [(a, b) for k, a in enumerate(looks()) for b in looks()[k + 1 :]]
    alike = [pair for pair in pairs if alike_plainly(*pair)]
    assert {one_picture_plainly(*pair) for pair in alike} == {True, False}
    groups = near_groups(looks())
    chained = [
        groups[i] == groups[j] and not alike_plainly(a, b)
        for i, a in enumerate(looks())
        for j, b in enumerate(looks())
        if i < j
    ]
    assert any(chained)


def test_frames_of_a_fixed_camera_take_memory_by_their_number_not_by_their_pairs() -> None:
    random = np.random.default_rng(0)
    scene = random.integers(0, 200, (16, 16))
    frames = [
        facts_of(Image.fromarray((scene + random.integers(0, 3, (16, 16))).astype(np.uint8))) for _ in range(2000)
    ]
    labels = np.arange(2000) % 2
    tracemalloc.start()
    try:
        found = find_alike(frames, labels=labels)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.across.counts == {(0, 1): 1_000_000}
    assert len(set(found.within[0])) == len(set(found.pictures)) == 1
    assert peak_bytes < 100e6  # the two million pairs alone took that, and twice more was held on the way


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
