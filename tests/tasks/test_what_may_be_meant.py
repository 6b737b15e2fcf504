"""What a person would want to hear before a search: which labels are taken, which might be, and that there are none."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from raytl.core.errors import UserError
from raytl.tasks import read_labelled
from raytl.tasks.checks import check
from raytl.tasks.readers.file_names import pattern_of
from tests.tasks.pictures import make_folder
from tests.tasks.test_silent_misreadings import EIGHT


def with_table(root: Path, columns: str, rows: Sequence[str]) -> Path:
    """Eight images, and a table with a row for each."""
    make_folder(root, {".": 8})
    (root / "labels.csv").write_text("\n".join([columns, *rows]) + "\n")
    return root


def said(root: Path, **told: str) -> str:
    return "\n".join(problem.message for problem in read_labelled(root, **told).problems)


def test_a_flat_folder_of_images_is_told_to_have_no_labels(tmp_path: Path) -> None:
    report = check(make_folder(tmp_path, {".": 8}))
    assert report.ok  # for --unlabelled
    (problem,) = report.problems
    assert "no labels" in problem.message
    assert "--unlabelled" in problem.message


NAMES = {
    "the last word": (lambda n: f"IMG_{n:04}_{EIGHT[n]}", r"IMG_\d+_(.+)"),
    "one between numbers": (lambda n: f"7-{EIGHT[n]}-{n}", r"\d+-([^\W\d_]+)-\d+"),
    "one of several": (lambda n: f"img-1-{EIGHT[n]}-x-{n}", r"img-\d+-([^\W\d_]+)-x-\d+"),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_pattern_that_is_advised_finds_the_labels(name: str, tmp_path: Path) -> None:
    called, pattern = NAMES[name]
    make_folder(tmp_path, {".": 8})
    for n in range(8):
        (tmp_path / f"{n}.png").rename(tmp_path / f"{called(n)}.png")
    assert pattern_of([f"{called(n)}.png" for n in range(8)]) == (pattern, ["cat", "dog"])
    assert any(f"--label 'filename:{pattern}'" in problem.message for problem in check(tmp_path).problems)
    assert read_labelled(tmp_path, label=f"filename:{pattern}").images.classes == ("cat", "dog")


@pytest.mark.parametrize(
    "names",
    [
        [f"{n:04}" for n in range(40)],
        [f"frame_{n}_left" for n in range(40)],
        [f"{n * 2654435761 % 2**32:08x}-{n * 40503 % 2**16:04x}" for n in range(200)],
        [],
    ],
    ids=["numbers", "one word", "hashes", "none"],
)
def test_no_pattern_is_advised_where_names_say_nothing(names: list[str]) -> None:
    assert pattern_of([f"{name}.png" for name in names]) is None


def test_label_filename_that_finds_nothing_advises_what_does(tmp_path: Path) -> None:
    make_folder(tmp_path, {".": 8})
    for n in range(8):
        (tmp_path / f"{n}.png").rename(tmp_path / f"IMG_{n:04}_{EIGHT[n]}.png")
    with pytest.raises(UserError) as caught:
        read_labelled(tmp_path, label="filename")
    assert r"'filename:IMG_\d+_(.+)'" in str(caught.value)
    assert "cat, dog" in str(caught.value)


def test_folders_of_splits_further_down_are_not_called_class_folders(tmp_path: Path) -> None:
    make_folder(tmp_path, {"yolo/images/train": 6, "yolo/images/val": 3})
    for split, count in (("train", 6), ("val", 3)):
        (tmp_path / "yolo/labels" / split).mkdir(parents=True)
        for n in range(count):
            (tmp_path / "yolo/labels" / split / f"{n}.txt").write_text("0 .5 .5 .1 .1")
    told = [problem.message for problem in check(tmp_path).problems]
    assert any("its images lie in" in message for message in told)
    assert not any("class folders lie in" in message for message in told)


def test_a_row_without_a_label_names_its_image(tmp_path: Path) -> None:
    with_table(tmp_path, "path,label", [f"{n}.png,{EIGHT[n] if n < 6 else ''}" for n in range(8)])
    told = said(tmp_path)
    assert "2 rows have no label" in told
    assert "not named" not in told


def test_an_image_that_no_row_names_is_told_beside_one_without_a_label(tmp_path: Path) -> None:
    with_table(tmp_path, "path,label", [f"{n}.png,{EIGHT[n] if n < 6 else ''}" for n in range(7)])
    told = said(tmp_path)
    assert "1 row has no label" in told
    assert "1 image is not named in the table" in told


@pytest.mark.parametrize("outer", [("2026-01-01", "2026-01-02", "2026-01-03"), ("patient_1", "patient_2")])
def test_of_folders_with_the_classes_inside_all_can_be_learned_from(outer: tuple[str, ...], tmp_path: Path) -> None:
    make_folder(tmp_path, {f"{name}/{label}": 3 for name in outer for label in ("ok", "bad")})
    with pytest.raises(UserError, match=r"to learn from all.*path, label and group"):
        read_labelled(tmp_path)


COMBINED = ["cat clear road", "cat", "dog clear", "dog road", "cat road", "cat clear road", "dog clear", "cat"]
WORDED = {
    "tags": ("tags", COMBINED, True),
    "combined, whatever the column": ("kind", COMBINED, True),
    "species": ("species", ["Quercus robur", "Quercus alba", "Acer rubrum", "Acer negundo"] * 2, False),
    "breeds called labels": ("labels", ["great dane", "golden retriever", "labrador retriever", "pug"] * 2, False),
    "foxes and wolves": ("label", ["red fox", "arctic fox", "red wolf", "arctic wolf"] * 2, False),
    "single words": ("tags", ["cat", "dog"] * 4, False),
}


@pytest.mark.parametrize("name", WORDED)
def test_labels_of_words_that_recur_may_be_several_labels(name: str, tmp_path: Path) -> None:
    column, labels, warned = WORDED[name]
    with_table(tmp_path, f"image_name,{column}", [f"{n}.png,{label}" for n, label in enumerate(labels)])
    assert ("if it is several labels" in said(tmp_path)) == warned


FURTHER = {
    "words": (("red", "red", "blue", "blue"), True),
    "figures": (("40", "40", "30", "30"), False),
    "all different": (("a", "b", "c", "d"), False),
    "one word": (("red",) * 4, False),
}


@pytest.mark.parametrize("name", FURTHER)
def test_another_column_of_words_may_be_the_labels(name: str, tmp_path: Path) -> None:
    values, told = FURTHER[name]
    rows = [f"{n}.png,{EIGHT[n]},{values[n // 2]}{'' if values[0] != 'a' else n}" for n in range(8)]
    with_table(tmp_path, "filename,species,colour", rows)
    assert ("column 'species'; --label NAME takes another, such as 'colour'" in said(tmp_path)) == told


def test_of_two_labels_for_a_file_the_last_counts_and_is_told(tmp_path: Path) -> None:
    with_table(tmp_path, "path,label", [*(f"{n}.png,{EIGHT[n]}" for n in range(8)), "0.png,dog"])
    report = check(tmp_path)
    assert report.counts == {"cat": 3, "dog": 5}
    told = "\n".join(problem.message for problem in report.problems)
    assert "1 file has rows of different labels" in told
    assert "'cat' and 'dog'" in told
    assert "the same image" not in told
    assert "read once" not in told


VIA = "filename,file_size,file_attributes,region_count"
ATTRIBUTES = {
    "one": lambda label: {"class": label},
    "ticked": lambda label: {"class": {"cat": label == "cat", "dog": label == "dog"}},
    "named": lambda label: {"quality": "good", "label": label},
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_labels_in_objects_of_via_are_read_by_their_value(name: str, tmp_path: Path) -> None:
    cells = (json.dumps(ATTRIBUTES[name](label)).replace('"', '""') for label in EIGHT)
    with_table(tmp_path, VIA, [f'{n}.png,1234,"{cell}",0' for n, cell in enumerate(cells)])
    read = read_labelled(tmp_path, label="file_attributes")
    assert read.images.classes == ("cat", "dog")
    assert Counter(read.images.labels.tolist()) == {0: 4, 1: 4}


def test_objects_of_which_none_is_the_label_are_refused(tmp_path: Path) -> None:
    cell = '"{""colour"": ""red"", ""quality"": ""good""}"'
    with_table(tmp_path, VIA, [f"{n}.png,1234,{cell},0" for n in range(8)])
    with pytest.raises(UserError, match="'colour', 'quality'"):
        read_labelled(tmp_path, label="file_attributes")
