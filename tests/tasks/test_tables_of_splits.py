"""Class folders for the training beside a table that says what is on the images of the test, as much data comes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from raytl.core.errors import UserError
from raytl.tasks import Task, read_labelled
from raytl.tasks.checks import check
from tests.tasks.pictures import make_folder
from tests.tasks.test_silent_misreadings import EIGHT

Make = Callable[[Path], Path]


def table(path: Path, columns: str, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([columns, *lines]) + "\n")
    return path


def labelled_test(at: str, name: str = "test/{n}.png", column: str = "filename") -> Make:
    """``train/{cat,dog}``, eight images in ``test/``, and their labels at a path."""

    def make(root: Path) -> Path:
        make_folder(root, {"train/cat": 6, "train/dog": 6, "test": 8})
        table(root / at, f"{column},label", *(f"{name.format(n=n)},{EIGHT[n]}" for n in range(8)))
        return root

    return make


def gtsrb(root: Path) -> Path:
    """As the traffic signs are downloaded: three tables, and a picture of each class's sign."""
    make_folder(root, {"Train/0": 6, "Train/1": 6, "Test": 8, "Meta": 2})
    columns = "Width,Height,Roi.X1,Roi.Y1,Roi.X2,Roi.Y2,ClassId,Path"
    train = (f"40,30,5,5,35,25,{label},Train/{label}/{n}.png" for label in range(2) for n in range(6))
    table(root / "Train.csv", columns, *train)
    table(root / "Test.csv", columns, *(f"40,30,5,5,35,25,{n % 2},Test/{n}.png" for n in range(8)))
    table(root / "Meta.csv", "Path,ClassId,ShapeId,ColorId,SignId", *(f"Meta/{n}.png,{n},0,1,3.2{n}" for n in range(2)))
    return root


def of_all_images(root: Path) -> Path:
    """One table that names the images of the training too, and calls the classes otherwise."""
    make_folder(root, {"train/cat": 6, "train/dog": 6, "test": 8})
    train = (f"train/{name}/{n}.png,{code}" for code, name in enumerate(("cat", "dog")) for n in range(6))
    table(root / "labels.csv", "path,label", *train, *(f"test/{n}.png,{n % 2}" for n in range(8)))
    return root


def wrapped(make: Make) -> Make:
    def made(root: Path) -> Path:
        make(root / "data")
        return root

    return made


LABELLED = {
    "test.csv beside the folders": labelled_test("test.csv"),
    "labels.csv beside the folders": labelled_test("labels.csv"),
    "bare names beside the folders": labelled_test("test_labels.csv", "{n}"),
    "metadata.csv in the folder": labelled_test("test/metadata.csv", "{n}.png", "file_name"),
    "labels.csv in the folder": labelled_test("test/labels.csv", "{n}.png"),
    "traffic signs": gtsrb,
    "one table of all": of_all_images,
    "in a folder of their own": wrapped(labelled_test("test.csv")),
    "in a folder of their own, the table in the test's": wrapped(labelled_test("test/metadata.csv", "{n}.png")),
}


@pytest.mark.parametrize("make", LABELLED.values(), ids=LABELLED)
def test_a_table_labels_the_test_that_has_no_class_folders(make: Make, tmp_path: Path) -> None:
    data = make(tmp_path / "data")
    read, test = read_labelled(data), read_labelled(data, role="test")
    assert len(read.images) == 12
    assert read.has_test
    assert test.images.classes == read.images.classes
    assert Counter(test.images.labels.tolist()) == {0: 4, 1: 4}
    assert not any("without labels" in problem.message for problem in read.problems)
    report = check(data)
    assert report.ok
    assert report.splits == {"train": 12, "test": 8}
    assert not any("is not an image" in problem.message for problem in report.problems)


def test_the_test_of_a_table_is_the_test_of_the_task(tmp_path: Path) -> None:
    make_folder(tmp_path, {"train/cat": 6, "train/dog": 6, "test": 8})
    table(tmp_path / "test.csv", "path,label", *(f"test/{n}.png,{EIGHT[n]}" for n in range(8)))
    task = Task(target=tmp_path)
    assert task.test is not None
    assert len(task.test) == 8


def test_labels_of_other_names_label_no_test_and_are_told(tmp_path: Path) -> None:
    make_folder(tmp_path, {"train/cat": 6, "train/dog": 6, "test": 8})
    table(tmp_path / "test.csv", "path,label", *(f"test/{n}.png,{n % 2}" for n in range(8)))
    read = read_labelled(tmp_path)
    assert len(read.images) == 12
    assert not read.has_test
    said = next(problem.message for problem in read.problems if "test.csv" in problem.message)
    assert "'0', '1'" in said
    assert "'cat', 'dog'" in said


def test_a_table_of_other_images_takes_the_folders_nothing(tmp_path: Path) -> None:
    """Images beside the class folders that a table names are learned from with its labels."""
    make_folder(tmp_path, {"cat": 6, "dog": 6, ".": 4})
    table(tmp_path / "more.csv", "path,label", *(f"{n}.png,{EIGHT[n]}" for n in range(4)))
    read = read_labelled(tmp_path)
    assert Counter(read.images.labels.tolist()) == {0: 8, 1: 8}


def test_a_table_of_other_images_and_classes_is_asked_about(tmp_path: Path) -> None:
    make_folder(tmp_path, {"raw": 6, "thumbs": 6, ".": 8})
    table(tmp_path / "labels.csv", "path,label", *(f"{n}.png,{EIGHT[n]}" for n in range(8)))
    with pytest.raises(UserError, match=r"'raw', 'thumbs'.*'cat', 'dog'.*of different images and classes"):
        read_labelled(tmp_path)
    assert read_labelled(tmp_path / "labels.csv").images.classes == ("cat", "dog")
    assert read_labelled(tmp_path, split="none").images.classes == ("raw", "thumbs")


def test_tables_of_one_split_that_differ_are_refused(tmp_path: Path) -> None:
    make_folder(tmp_path, {"train/cat": 6, "train/dog": 6, "test": 8})
    for name, odd in (("one.csv", 0), ("two.csv", 1)):
        table(tmp_path / name, "path,label", *(f"test/{n}.png,{EIGHT[(n // 4 + odd * n) % 8]}" for n in range(8)))
    with pytest.raises(UserError, match=r"one\.csv.*two\.csv.*different labels"):
        read_labelled(tmp_path)


def test_folders_and_a_table_that_differ_over_an_image_are_still_asked_about(tmp_path: Path) -> None:
    make_folder(tmp_path, {"train/cat": 6, "train/dog": 6, "test": 8})
    table(tmp_path / "labels.csv", "path,label", *(f"train/cat/{n}.png,{EIGHT[n]}" for n in range(6)))
    with pytest.raises(UserError, match="give the images different labels"):
        read_labelled(tmp_path)


def test_tables_of_images_in_folders_of_splits_are_not_to_be_moved_into_folders(tmp_path: Path) -> None:
    read = read_labelled(gtsrb(tmp_path), split="none")
    assert not any("move those of the test" in problem.message for problem in read.problems)


@pytest.mark.parametrize("where", ["extra.csv", "val/labels.csv", "val.csv"])
def test_groups_of_images_that_a_table_labels_are_kept_as_it_says(where: str, tmp_path: Path) -> None:
    folders = {"cat": 6, "dog": 6, ".": 8} if where == "extra.csv" else {"train/cat": 6, "train/dog": 6, "val": 8}
    data = make_folder(tmp_path, folders)
    name = "val/{n}.png" if where == "val.csv" else "{n}.png"
    table(data / where, "path,label,group", *(f"{name.format(n=n)},{EIGHT[n]},{n // 2}" for n in range(8)))
    read = read_labelled(data)
    assert any("images of one 'group' stay on one side" in problem.message for problem in read.problems)
    assert Counter(filter(None, read.group_names)) == {str(group): 2 for group in range(4)}
    assert read.images.groups is not None
    assert len(np.unique(read.images.groups)) == 4 + 12


@pytest.mark.parametrize("other", ["test.csv", "labels.csv"])
def test_a_table_in_the_folder_of_a_split_may_not_differ_from_one_beside_it(other: str, tmp_path: Path) -> None:
    make_folder(tmp_path, {"train/cat": 6, "train/dog": 6, "test": 8})
    table(tmp_path / other, "path,label", *(f"test/{n}.png,{EIGHT[n]}" for n in range(8)))
    table(tmp_path / "test/labels.csv", "path,label", *(f"{n}.png,{EIGHT[n]}" for n in range(8)))
    read = read_labelled(tmp_path, role="test")
    assert Counter(read.images.labels.tolist()) == {0: 4, 1: 4}
    assert any("its table in test/ says the same of 8 images of test" in problem.message for problem in read.problems)
    table(tmp_path / "test/labels.csv", "path,label", *(f"{n}.png,{EIGHT[7 - n]}" for n in range(8)))
    with pytest.raises(UserError, match=rf"{other} and its table in test/ give different labels"):
        read_labelled(tmp_path)


def test_what_to_do_with_a_table_of_a_test_is_said_once(tmp_path: Path) -> None:
    make_folder(tmp_path, {"cat": 6, "dog": 6, ".": 8})
    table(tmp_path / "test.csv", "path,label", *(f"{n}.png,{EIGHT[n]}" for n in range(8)))
    said = [problem.message for problem in read_labelled(tmp_path).problems if "test.csv" in problem.message]
    assert len(said) == 1
    assert "pass it with --test" in said[0]


def test_a_class_that_only_the_table_of_the_test_names_is_told_with_a_way_out(tmp_path: Path) -> None:
    make_folder(tmp_path, {"train/cat": 6, "train/dog": 6, "test": 9})
    birds = ("cat", "dog", "bird")
    table(tmp_path / "test.csv", "path,label", *(f"test/{n}.png,{birds[n % 3]}" for n in range(9)))
    with pytest.raises(
        UserError, match=r"test class 'bird' \(its table test\.csv says it of .*test/2\.png\) .*--split train"
    ):
        Task(tmp_path)
    assert Task(tmp_path, split="train").test is None
