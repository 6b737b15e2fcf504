"""Layouts on disk, and what they are taken for: a table of them, and any folder tree at all."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raytl.core.errors import UserError
from raytl.tasks import Severity, Task, check, read_labelled, read_unlabelled
from raytl.tasks.formats import is_image
from tests.tasks.pictures import encoded, make_folder, picture

TWO = {"cat": 4, "dog": 4}


def images(root: Path, per_folder: dict[str, int], first: int = 0) -> Path:
    return make_folder(root, per_folder, first=first)


def in_folders(per_folder: dict[str, int]) -> Callable[[Path], Path]:
    return lambda root: images(root, per_folder)


def rows(*labels: str, first: int = 0) -> dict[str, list]:
    return {"image": [encoded(picture(first + n)) for n in range(len(labels))], "label": list(labels)}


def shard(path: Path, columns: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def shards(root: Path) -> Path:
    shard(root / "data" / "train-00000-of-00001.parquet", rows(*["cat", "dog"] * 4))
    shard(root / "data" / "test-00000-of-00001.parquet", rows(*["cat", "dog"] * 2, first=50))
    return root


def shards_and_a_figure(root: Path) -> Path:
    images(root, {"assets": 1}, first=90)
    return shards(root)


def shards_without_test_labels(root: Path) -> Path:
    shard(root / "train-00000-of-00001.parquet", rows(*["cat", "dog"] * 4))
    table = rows(*["cat"] * 3, first=50) | {"label": pa.array([None] * 3, pa.string())}
    shard(root / "test-00000-of-00001.parquet", table)
    return root


def hive(root: Path) -> Path:
    for number, (split, label) in enumerate([("train", "cat"), ("train", "dog"), ("test", "cat"), ("test", "dog")]):
        shard(
            root / f"split={split}" / f"label={label}" / "part-0.parquet",
            {"image": rows(*["x"] * 4, first=10 * number)["image"]},
        )
    return root


def dictionaries(root: Path) -> Path:
    files = images(root, {"img": 8})
    paths = pa.array([f"img/{n}.png" for n in range(8)]).dictionary_encode()
    shard(root / "t.parquet", {"path": paths, "label": pa.array(["cat", "dog"] * 4).dictionary_encode()})
    return files / "t.parquet"


def structs(root: Path) -> Path:
    cells = [{"bytes": data, "path": None} for data in rows(*["x"] * 8)["image"]]
    shard(root / "t.parquet", {"image": [[cell] for cell in cells], "label": [[name] for name in ["cat", "dog"] * 4]})
    return root / "t.parquet"


def table(text: str, name: str = "labels.csv", *, give_folder: bool = False, folder: str = "img") -> Callable:
    """A table beside a folder of eight images 0.png … 7.png, of which those with an even number are cats."""

    def make(root: Path) -> Path:
        images(root, {folder: 8})
        (root / name).write_text(text)
        return root if give_folder else root / name

    return make


def lines(pattern: str, header: str = "path,label", *, numbers: range = range(8)) -> str:
    body = [pattern.format(n=n, label=["cat", "dog"][n % 2], is_cat=1 - n % 2, is_dog=n % 2) for n in numbers]
    return "\n".join([*([header] if header else []), *body]) + "\n"


def metadata(suffix: str) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        images(root, {".": 8})
        cells = [{"file_name": f"{n}.png", "label": ["cat", "dog"][n % 2]} for n in range(8)]
        if suffix == "parquet":
            pq.write_table(pa.Table.from_pylist(cells), root / "metadata.parquet")
        elif suffix == "jsonl":
            (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, cells)))
        else:
            (root / "metadata.csv").write_text(lines("{n}.png,{label}", "file_name,label"))
        return root

    return make


def split_column(root: Path) -> Path:
    images(root, {"img": 8})
    body = [f"img/{n}.png,{['cat', 'dog'][n % 2]},{'test' if n > 5 else 'train'}" for n in range(8)]
    (root / "t.csv").write_text("\n".join(["path,label,split", *body]))
    return root / "t.csv"


def one_table_a_split(root: Path) -> Path:
    """As an annotation tool exports it: in each split's folder its images, and a table with a column a class."""
    for number, split in enumerate(["train", "valid", "test"]):
        images(root, {split: 4}, first=10 * number)
        text = lines("{n}.png, {is_cat}, {is_dog}", "filename, cat, dog", numbers=range(4))
        (root / split / "_classes.csv").write_text(text)
    return root


def one_table_a_split_but_the_test(root: Path) -> Path:
    one_table_a_split(root)
    (root / "test" / "_classes.csv").write_text("filename\n" + "".join(f"{n}.png\n" for n in range(4)))
    return root


def tables_of_splits(root: Path) -> Path:
    """Class folders, and a table for each split that names their files and numbers the classes."""
    images(root, TWO)
    for split, numbers in {"train": range(3), "test": range(3, 4)}.items():
        body = [f"{label}/{n}.png,{index},{label}" for index, label in enumerate(TWO) for n in numbers]
        (root / f"{split}.csv").write_text("\n".join(["Filename,Label,ClassName", *body]))
    return root


def flat_train_with_table(root: Path) -> Path:
    images(root, {"train": 4, "test/cat": 2, "test/dog": 2})
    (root / "train" / "labels.csv").write_text(lines("{n}.png,{label}", numbers=range(4)))
    return root


def parts_and_metadata(root: Path) -> Path:
    """One collection in two folders, and a table that labels it in a column of another name."""
    images(root, {"a_part_1": 4})
    images(root, {"a_part_2": 4}, first=10)
    for n in range(4):
        (root / "a_part_2" / f"{n}.png").rename(root / "a_part_2" / f"{n + 4}.png")
    (root / "metadata.csv").write_text(lines("{n},{label},{n}", "image_id,dx,age"))
    return root


def parts_and_wide_metadata(root: Path) -> Path:
    parts_and_metadata(root)
    (root / "metadata.csv").write_text(lines("{n},{label},{is_cat}f,{n}", "image_id,dx,sex,age"))
    return root


def competition(root: Path) -> Path:
    """Flat images in train/ and test/, labels for the first, a form to hand in for the second."""
    images(root, {"train": 8})
    images(root, {"test": 2}, first=20)
    (root / "train.csv").write_text(lines("{n},{label}", "id,breed"))
    (root / "test").rename(root / "unseen")
    (root / "unseen").rename(root / "test")
    for n in range(2):
        (root / "test" / f"{n}.png").rename(root / "test" / f"t{n}.png")
    (root / "sample_submission.csv").write_text("id,breed\nt0,cat\nt1,cat\n")
    return root


def zipped(kind: str) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        images(root, {f"data/{s}/{c}": 2 for s in ("train", "test") for c in ("cat", "dog")} | {"__MACOSX": 1})
        return Path(shutil.make_archive(str(root.with_name("photos")), kind, root))

    return make


def zipped_with_table(root: Path) -> Path:
    table(lines("{n},{label}", "id,breed"))(root)
    return Path(shutil.make_archive(str(root.with_name("photos")), "zip", root))


def saved_to_disk(root: Path) -> Path:
    """As Hugging Face's save_to_disk does: a folder a split with an Arrow stream and JSON beside it."""
    for number, split in enumerate(["train", "test"]):
        (root / split).mkdir(parents=True)
        cells = pa.table(rows(*["cat", "dog"] * 4, first=10 * number))
        path = str(root / split / "data-00000-of-00001.arrow")
        with pa.OSFile(path, "wb") as file, pa.ipc.new_stream(file, cells.schema) as stream:
            stream.write_table(cells)
        (root / split / "state.json").write_text("{}")
    return root


def named_by_label(root: Path) -> Path:
    root.mkdir()
    for n in range(8):
        picture(n).save(root / f"{['cat', 'dog'][n % 2]}.{n}.png")
    return root


def broken_archive(root: Path) -> Path:
    path = zipped("zip")(root)
    path.write_bytes(path.read_bytes()[:300])
    return path


@dataclass
class Row:
    """What a layout must be taken for. test: images of its own test split. says: parts of messages, in leading ones."""

    make: Callable[[Path], Path]
    counts: dict[str, int]
    test: int = 0
    says: list[str] = field(default_factory=list)


HALF = {"cat": 4, "dog": 4}
LAYOUTS = {
    "class folders": Row(in_folders(TWO), HALF),
    "splits": Row(
        in_folders({"Training/cat": 4, "Training/dog": 4, "Testing/cat": 2, "Testing/dog": 2}),
        HALF,
        4,
        ["Training (8 images) is the target, Testing (4 images) the test unless --test is given"],
    ),
    "three splits": Row(
        in_folders({f"{s}/{c}": 2 for s in ("train", "valid", "test") for c in ("cat", "dog")}),
        HALF,
        4,
        ["train (4 images) and valid (4 images) are the target, test (4 images) the test"],
    ),
    "splits further down": Row(
        in_folders({f"archive/data/{s}/{c}": 4 for s in ("train", "test") for c in ("cat", "dog")}),
        HALF,
        8,
        ["the class folders lie in", "train (8 images) is the target"],
    ),
    "splits in folders of their own name": Row(
        in_folders(
            {**{f"seg_{s}/seg_{s}/{c}": 4 for s in ("train", "test") for c in ("cat", "dog")}, "seg_pred/seg_pred": 3}
        ),
        HALF,
        8,
        ["seg_train (8 images) is the target", "3 images outside the splits (first:"],
    ),
    "a test split without classes": Row(
        in_folders({"train/cat": 4, "train/dog": 4, "test": 3}),
        HALF,
        0,
        ["test has 3 images without labels; left out, pass them with --unlabelled"],
    ),
    "a test split without classes, in a folder of its name": Row(
        in_folders({"train/cat": 4, "train/dog": 4, "test/test": 3}), HALF, 0, ["test has 3 images without labels"]
    ),
    "only one split": Row(in_folders({"train/cat": 4, "train/dog": 4}), HALF, 0, ["the class folders lie in"]),
    "splits inside class folders": Row(
        in_folders({f"{c}/{s}": 4 for s in ("train", "test") for c in ("cat", "dog")}),
        HALF,
        8,
        ["train (8 images) is the target, test (8 images) the test"],
    ),
    "zip unpacked twice": Row(
        in_folders({"flowers/flowers/cat": 4, "flowers/flowers/dog": 4}), HALF, 0, ["flowers/flowers/; they are taken"]
    ),
    "groups of classes": Row(
        in_folders({"cat/lion": 2, "cat/tiger": 2, "dog/pug": 2, "dog/beagle": 2}),
        HALF,
        0,
        ["the classes are its folders cat, dog; the folders inside (lion, tiger, beagle, pug) are not told apart"],
    ),
    "a class called train": Row(
        in_folders({"bus": 4, "car": 4, "train": 4}),
        {"bus": 4, "car": 4, "train": 4},
        0,
        ["classes 'train' have names of splits; are they classes?"],
    ),
    "litter": Row(
        in_folders({**TWO, "$RECYCLE.BIN": 1, "lost+found": 1, "System Volume Information": 1, "__pycache__": 1}), HALF
    ),
    "nearly the same names": Row(
        in_folders({"cat": 4, "Cat": 4, "dog": 4}),
        {"Cat": 4, "cat": 4, "dog": 4},
        0,
        ["classes 'Cat' and 'cat' differ only in case, spaces, hyphens or as copies do"],
    ),
    "a class of nothing": Row(
        in_folders({"nan": 4, "dog": 4}), {"dog": 4, "nan": 4}, 0, ["class 'nan' looks like a missing label"]
    ),
    "months": Row(
        in_folders({"2024-01": 4, "2024-02": 4}), {"2024-01": 4, "2024-02": 4}, 0, ["have names of dates; are they"]
    ),
    "metadata.csv": Row(metadata("csv"), HALF, 0, ["labels are taken from its table metadata.csv"]),
    "metadata.jsonl": Row(metadata("jsonl"), HALF, 0, ["labels are taken from its table metadata.jsonl"]),
    "metadata.parquet": Row(metadata("parquet"), HALF, 0, ["labels are taken from its table metadata.parquet"]),
    "ids without ending": Row(
        table(lines("{n},{label}", "id,breed")), HALF, 0, ["found by looking below", "'0' in column 'id' is img/0.png"]
    ),
    "the folder of a table": Row(
        table(lines("{n},{label}", "id,breed"), give_folder=True),
        HALF,
        0,
        ["labels are taken from its table labels.csv", "'0' in column 'id' is img/0.png"],
    ),
    "names and a folder": Row(table(lines("{n}.png,{label}", "image_id,label")), HALF, 0, ["is img/0.png"]),
    "one-hot columns": Row(
        table(lines("img/{n}.png,{is_cat},{is_dog}", "image,cat,dog")),
        HALF,
        0,
        ["its columns 'cat', 'dog' hold a single 1 a row; they are read as 2 classes"],
    ),
    "a comma at the end": Row(table(lines("img/{n}.png,{label},")), HALF),
    "a comma at the end of every line": Row(table(lines("img/{n}.png,{label},", "path,label,")), HALF),
    "row numbers": Row(table(lines("{n},img/{n}.png,{label}", ",path,label")), HALF),
    "semicolons": Row(table(lines("img/{n}.png;{label}", "path;label")), HALF),
    "single quotes": Row(table(lines("'img/{n}.png','{label}'", "'path','label'")), HALF),
    "quoted cells": Row(table(lines("'img/{n}.png',{label}")), HALF),
    "comments": Row(
        table("# made by hand\n#\n" + lines("img/{n}.png,{label}")),
        HALF,
        0,
        ["header is passed over (# made by hand)"],
    ),
    "a header that begins with a number sign": Row(table(lines("{n},img/{n}.png,{label}", "#,path,label")), HALF),
    "a title": Row(
        table("My labels,,\n" + lines("img/{n}.png,{label},", "path,label,")), HALF, 0, ["passed over (My labels)"]
    ),
    "no header": Row(
        table(lines("img/{n}.png,{label}", "")), HALF, 0, ["the first line looks like data (img/0.png,cat)"]
    ),
    "no header, ids": Row(table(lines("{n},{label}", "")), HALF, 0, ["the first line looks like data (0,cat)"]),
    "backslashes": Row(table(lines(r"img\{n}.png,{label}")), HALF),
    "a drive letter": Row(
        table(lines(r"C:\Users\me\img\{n}.png,{label}")), HALF, 0, [r"'C:\Users\me\img\0.png' in column 'path' is img"]
    ),
    "a home folder": Row(table(lines("~/elsewhere/img/{n}.png,{label}")), HALF, 0, ["is img/0.png"]),
    "paths of another machine": Row(table(lines("/kaggle/input/x/img/{n}.png,{label}")), HALF, 0, ["is img/0.png"]),
    "missing labels": Row(
        table(lines("img/{n}.png,{label}") + "img/0.png,NaN\nimg/1.png,\nimg/2.png,nan\n"),
        HALF,
        0,
        ["2 rows have 'NaN' in column 'label', which means no label; left out"],
    ),
    "labels None": Row(
        table(lines("img/{n}.png,{label}", numbers=range(6)) + "img/6.png,None\nimg/7.png,None\n"),
        {"None": 2, "cat": 3, "dog": 3},
        0,
        ["class 'None' looks like a missing label"],
    ),
    "a split column": Row(split_column, {"cat": 3, "dog": 3}, 2, ["train (6 images) is the target, test (2 images)"]),
    "a table in each split": Row(
        one_table_a_split, HALF, 4, ["train (4 images) and valid (4 images) are the target, test (4 images) the test"]
    ),
    "a table in each split, without labels in the test": Row(
        one_table_a_split_but_the_test,
        HALF,
        0,
        ["test has 4 images without labels; left out", "train (4 images) and valid (4 images) are the target"],
    ),
    "a competition": Row(
        competition, HALF, 0, ["labels are taken from its table train.csv", "2 images are not named in the table"]
    ),
    "a zip file": Row(zipped("zip"), {"cat": 2, "dog": 2}, 4, ["the class folders lie in", "train (4 images) is the"]),
    "a tar file": Row(
        zipped("gztar"), {"cat": 2, "dog": 2}, 4, ["the class folders lie in", "train (4 images) is the"]
    ),
    "a zip file with a table": Row(zipped_with_table, HALF, 0, ["taken from its table labels.csv", "is img/0.png"]),
    "saved to disk": Row(saved_to_disk, HALF, 8, ["train (8 images) is the target, test (8 images) the test"]),
    "other endings": Row(table(lines("img/{n}.JPG,{label}")), HALF, 0, ["'img/0.JPG' in column 'path' is img/0.png"]),
    "a separator line": Row(table("sep=;\n" + lines("img/{n}.png;{label}", "path;label")), HALF),
    "no header, with splits": Row(
        table("".join(f"{'TEST' if n > 5 else 'TRAIN'},img/{n}.png,{['cat', 'dog'][n % 2]}\n" for n in range(8))),
        {"cat": 3, "dog": 3},
        2,
        ["the first line looks like data", "train (6 images) is the target, test (2 images) the test"],
    ),
    "labels with spaces": Row(
        table(lines("img/{n}.png,{label} ")), HALF, 0, ["8 labels have spaces around ('cat '); taken without them"]
    ),
    "images and labels": Row(
        in_folders({"images": 4, "labels": 4}),
        {"images": 4, "labels": 4},
        0,
        ["classes 'images', 'labels' have names of kinds of files; are they classes?"],
    ),
    "images and masks of each class": Row(
        in_folders({f"{label}/{kind}": 4 for label in TWO for kind in ("images", "masks")}),
        TWO,
        0,
        ["8 files in cat/masks, … are named like the images beside them and taken for masks; left out"],
    ),
    "a class that is called mask": Row(in_folders({"mask": 4, "no_mask": 4}), {"mask": 4, "no_mask": 4}, 0, []),
    "class folders and tables of splits": Row(
        tables_of_splits,
        {"cat": 3, "dog": 3},
        2,
        ["the split of each image is taken from its tables test.csv and train.csv", "test (2 images) the test"],
    ),
    "a table whose column of numbers has words beside it": Row(
        table(lines("img/{n}.png,{is_cat},{label}", "path,label,class_name")), HALF
    ),
    "splits of which two have one folder": Row(
        in_folders({"train/cat/images": 4, "train/dog/images": 4, "val/images": 3, "test/images": 3}),
        HALF,
        0,
        ["val has 3 images without labels", "test has 3 images without labels"],
    ),
    "a class only for validation": Row(
        in_folders({"train/cat": 4, "train/dog": 4, "val/cat": 2, "val/dogs": 2}),
        {"cat": 6, "dog": 4, "dogs": 2},
        0,
        ["class 'dogs' is in val only; did you mean 'dog'?", "train (8 images) and val (4 images) are the target"],
    ),
    "labelled and unlabelled": Row(
        in_folders({"labeled/cat": 4, "labeled/dog": 4, "unlabeled": 4}),
        {"labeled": 8, "unlabeled": 4},
        0,
        ["the folders inside (cat, dog) are not told apart", "class 'unlabeled' looks like a missing label"],
    ),
    "a copy of a folder": Row(
        in_folders({"cat": 4, "cat - Copy": 4, "dog": 4}),
        {"cat": 4, "cat - Copy": 4, "dog": 4},
        0,
        ["classes 'cat' and 'cat - Copy' differ only in"],
    ),
    "lists as text": Row(table(lines("img/{n}.png,['{label}']")), HALF),
    "labels of two words": Row(
        table(lines("img/{n}.png,{label}") + "img/0.png,cat dog\nimg/1.png,cat dog\n"),
        {"cat": 3, "cat dog": 2, "dog": 3},
        0,
        ["'cat dog' in column 'label' is learned as one class; if it is several labels, give one"],
    ),
    "shards and a figure": Row(
        shards_and_a_figure,
        HALF,
        4,
        ["its tables are read, and 1 image beside them left out", "train (8 images) is the"],
    ),
    "shards": Row(shards, HALF, 4, ["train (8 images) is the target, test (4 images) the test"]),
    "shards without test labels": Row(
        shards_without_test_labels, HALF, 0, ["test has 3 images without labels; left out"]
    ),
    "hive partitions": Row(hive, HALF, 8, ["train (8 images) is the target, test (8 images) the test"]),
    "dictionary columns": Row(dictionaries, HALF),
    "structs in lists of one": Row(structs, HALF),
}


every_layout = pytest.mark.parametrize("name", LAYOUTS)


class TestLayouts:
    @every_layout
    def test_is_taken_for_what_a_person_means_and_said_first(self, name: str, tmp_path: Path) -> None:
        row = LAYOUTS[name]
        result = read_labelled(row.make(tmp_path / "set"))
        assert result.images.counts() == row.counts
        assert result.has_test == bool(row.test)
        leading = [problem.message for problem in result.problems if problem.leading]
        for part in row.says:
            assert any(part in message for message in leading), leading
        assert row.says or not leading

    @pytest.mark.parametrize("name", [name for name, row in LAYOUTS.items() if row.test])
    def test_its_test_split_is_the_tasks_test(self, name: str, tmp_path: Path) -> None:
        row = LAYOUTS[name]
        path = row.make(tmp_path / "set")
        task = Task(path)
        assert task.test is not None
        assert len(task.test) == row.test
        assert task.data.target is not None
        assert task.data.target.counts() == row.counts
        assert len({problem.message for problem in task.problems if "the test" in problem.message}) == 1
        other = Task(path, test=path)
        assert other.test is not None
        assert other.test.fingerprint == task.test.fingerprint

    @every_layout
    def test_check_finds_nothing_to_refuse(self, name: str, tmp_path: Path) -> None:
        row = LAYOUTS[name]
        report = check(row.make(tmp_path / "set"))
        assert report.ok, report.problems
        assert report.layout
        messages = [problem.message for problem in report.problems]
        for part in row.says:
            assert any(part in message for message in messages), messages


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (in_folders({f"{d}/{c}": 2 for d in ("amazon", "dslr") for c in TWO}), "have the same folders inside"),
        (in_folders({"train/cat": 2, "train/dog": 2, "bus/old": 2}), "train may be splits or classes, and 'bus'"),
        (
            in_folders({f"{s}/{c}": 2 for s in ("train", "test", "holdout") for c in TWO}),
            "may be splits or classes, and 'holdout' is another",
        ),
        (in_folders({"train": 2, "test": 2}), "its folders are splits, not classes"),
        (
            in_folders({"train": 4, "test/cat": 2, "test/dog": 2}),
            r"set/train/: nothing says what its images are, .*set/test as --target and \S+set/train as --unlabelled",
        ),
        (
            flat_train_with_table,
            r"set/train/: its images lie in no class folders, .*set/train as --target and \S+set/test as --test",
        ),
        (in_folders({"photos": 4}), "only one class"),
        (
            named_by_label,
            "the files' names begin with 'cat', 'dog'; if these are the labels pass --label filename",
        ),
        (table(lines("img/{n}.png,\"['cat', '{label}']\"")), r"several labels \(\['cat', 'cat'\] in column 'label'\)"),
        (parts_and_metadata, "its folders and its table metadata.csv give the images different labels"),
        (
            parts_and_wide_metadata,
            "names of parts, not of classes, and of its table metadata.csv none of its columns 'dx', 'sex', 'age' is "
            "named 'label'; say which one holds the labels, as in --label dx",
        ),
        (broken_archive, "the archive cannot be read .*; unpack it and give the folder"),
        (table(lines("img/{n}.png,cat|{n}|dog") + "img/0.png,cat\n"), "several labels"),
        (table(lines("img/{n}.png,{label}") + "img/0.png,cat|dog\n"), "'cat\\|dog' in column 'label'"),
        (table(lines("img/{n}.png,1,{is_dog}", "path,fur,dog")), "several labels .* row 2 has several set"),
        (table(lines("img/{n}.png,0,{is_dog}", "path,fur,dog")), "row 1 has no 1 in any of the columns"),
        (table(lines("img/{n}.png,{label},x", "path,label")), "line 2 has more cells than the header's 2"),
        (table(lines("no/{n}.jpg,{label}")), r"none of the 8 files in column 'path' is there .* pass --images DIR"),
        (
            table(lines("img/{n}.png,{label},{is_dog}", "path,a,b")),
            "none of its columns 'a', 'b' is named 'label'; say which one holds the labels, as in --label a",
        ),
        (table(lines("{n}.png,{label}", "a,a")), "two columns are named 'a'"),
    ],
)
def test_what_is_ambiguous_or_missing_is_asked_in_one_sentence(make, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        Task(make(tmp_path / "set"))
    assert "\n" not in str(caught.value)


class TestTablesAndFolders:
    def test_a_name_for_two_files_is_asked(self, tmp_path: Path) -> None:
        images(tmp_path, {"a": 4})
        images(tmp_path, {"b": 4}, first=10)
        (tmp_path / "t.csv").write_text(lines("{n}.png,{label}", numbers=range(4)))
        with pytest.raises(
            UserError, match=r"'0.png' may be a/0.png or b/0.png; give paths in the table, or the folder"
        ):
            read_labelled(tmp_path / "t.csv")
        assert read_labelled(tmp_path / "t.csv", images=tmp_path / "b").images.counts() == {"cat": 2, "dog": 2}

    def test_a_missing_file_is_not_taken_from_the_folder_of_another_class(self, tmp_path: Path) -> None:
        images(tmp_path, {"cat": 4, "dog": 3})
        body = [f"{label}/{n}.png,{label}" for label in ("cat", "dog") for n in range(4)]
        (tmp_path / "t.csv").write_text("\n".join(["path,label", *body]))
        result = read_labelled(tmp_path / "t.csv")
        assert result.images.counts() == {"cat": 4, "dog": 3}
        assert [problem.message for problem in result.problems] == ["no such file; left out"]

    def test_folders_and_table_that_contradict_each_other_are_asked(self, tmp_path: Path) -> None:
        images(tmp_path, {"part1": 4})
        images(tmp_path, {"part2": 4}, first=10)
        body = [f"part{p}/{n}.png,{['cat', 'dog'][n % 2]}" for p in (1, 2) for n in range(4)]
        (tmp_path / "labels.csv").write_text("\n".join(["path,label", *body]))
        with pytest.raises(UserError, match=r"its folders and its table labels.csv give the images different labels"):
            read_labelled(tmp_path)
        assert read_labelled(tmp_path / "labels.csv").images.counts() == HALF
        assert read_labelled(tmp_path, split="none").images.classes == ("part1", "part2")

    def test_folders_and_table_that_say_the_same_are_read_by_folder(self, tmp_path: Path) -> None:
        images(tmp_path, TWO)
        body = [f"{label}/{n}.png,{index}" for index, label in enumerate(TWO) for n in range(4)]
        (tmp_path / "labels.csv").write_text("\n".join(["path,label", *body]))
        result = read_labelled(tmp_path)
        assert result.images.counts() == HALF
        assert [p.message for p in result.problems if p.leading] == [
            "labels are taken from its folders, not from its table labels.csv"
        ]

    def test_several_sets_of_shards_are_asked(self, tmp_path: Path) -> None:
        shard(tmp_path / "plain" / "train.parquet", rows("cat", "dog"))
        shard(tmp_path / "cropped" / "train.parquet", rows("cat", "dog"))
        with pytest.raises(UserError, match=r"several sets of tables .*; give the folder of one, as in .*cropped"):
            read_labelled(tmp_path)

    def test_many_missing_files_are_one_problem_with_examples(self, tmp_path: Path) -> None:
        images(tmp_path, {"img": 8})
        (tmp_path / "t.csv").write_text(lines("img/{n}.png,{label}", numbers=range(14)))
        problems = read_labelled(tmp_path / "t.csv").problems
        assert len(problems) == 1
        assert problems[0].message.startswith("6 images left out: no such file (such as ")
        assert problems[0].message.count(".png") == 3


class TestSplitOption:
    def folder(self, root: Path) -> Path:
        return images(root / "set", {f"{s}/{c}": 3 for s in ("train", "val", "test") for c in ("cat", "dog")})

    def test_takes_one_alone_by_either_name(self, tmp_path: Path) -> None:
        root = self.folder(tmp_path)
        for name in ("val", "validation", "VAL"):
            result = read_labelled(root, split=name)
            assert len(result.images) == 6
            assert all("/val/" in item.name for item in result.images.items)
            assert f"only its split '{name}' is read (6 images), 12 others are not" in [
                p.message for p in result.problems
            ]

    def test_an_unknown_one_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="has no labelled split 'tset'; did you mean 'test'"):
            read_labelled(self.folder(tmp_path), split="tset")

    def test_none_takes_them_for_classes(self, tmp_path: Path) -> None:
        task = Task(self.folder(tmp_path), split="none")
        assert task.data.classes == ("test", "train", "val")
        assert any("have names of splits" in problem.message for problem in task.problems if problem.leading)

    def test_none_answers_for_other_roles_where_they_are_asked_too(self, tmp_path: Path) -> None:
        """And leaves alone those whose splits are splits."""
        named = {"train": 3, "test": 3, "boat": 3}
        target = images(tmp_path / "photos", named)
        drawings, last = images(tmp_path / "drawings", named, 40), images(tmp_path / "last", named, 80)
        other = self.folder(tmp_path / "other")
        with pytest.raises(UserError, match=r"drawings/: its folders .* may be splits or classes"):
            Task(source_domain=[drawings], unlabelled=target)
        task = Task(target, [drawings, other], test=last, split="none")
        assert task.data.classes == ("boat", "test", "train")
        assert task.data.joinable == ("drawings",)
        assert task.test is not None and task.test.open().counts() == named
        assert task.data.source_domains["set"].classes == ("cat", "dog")

    def test_what_else_is_wrong_with_other_roles_none_does_not_answer(self, tmp_path: Path) -> None:
        """Read again with its splits for classes, a domain of which a class cannot be read was one of splits."""
        target, other = images(tmp_path / "photos", {"train": 3, "boat": 3}), self.folder(tmp_path / "other")
        for path in other.rglob("cat/*"):
            path.write_bytes(b"version https://git-lfs.github.com/spec/v1")
        with pytest.raises(UserError, match="cat"):
            Task(target, [other], split="none")

    def test_a_source_domain_is_read_whole_and_unlabelled_images_are_too(self, tmp_path: Path) -> None:
        root = self.folder(tmp_path)
        assert len(read_labelled(root, role="source_domain").images) == 18
        assert len(read_unlabelled(root).images) == 18

    def test_a_class_that_only_the_test_has_is_an_error(self, tmp_path: Path) -> None:
        root = images(tmp_path / "set", {"train/cat": 3, "train/dog": 3, "test/cat": 3, "test/dogs": 3})
        with pytest.raises(UserError, match="test class 'dogs' is not a class of the target; did you mean 'dog'"):
            Task(root)
        report = check(root)
        assert not report.ok
        assert "class 'dogs' is only in a split that is not learned from" in report.problems[0].message


def test_images_in_an_archive_travel_without_its_content(tmp_path: Path) -> None:
    images_there = read_labelled(zipped("zip")(tmp_path / "set")).images
    there = pickle.loads(pickle.dumps(images_there))
    assert len(pickle.dumps(images_there)) < 20_000
    assert [item.open().tobytes() for item in there.items] == [item.open().tobytes() for item in images_there.items]
    assert Task(tmp_path / "photos.zip").name == "photos"


def test_narrow_images_and_a_few_grey_ones_are_named_by_check(tmp_path: Path) -> None:
    images(tmp_path, {"cat": 6, "dog": 6})
    picture(50, size=(2, 300)).save(tmp_path / "cat" / "strip.png")
    picture(51, mode="L").save(tmp_path / "dog" / "grey.png")
    messages = [problem.message for problem in check(tmp_path).problems]
    assert any("1 image is more than 16 times as long as wide (" in message for message in messages)
    assert any("13 images are in colour and 1 greyscale (" in message for message in messages)


def test_a_class_of_unreadable_images_is_an_error_that_says_what_to_install(tmp_path: Path) -> None:
    images(tmp_path, TWO)
    (tmp_path / "bird").mkdir()
    for n in range(3):
        (tmp_path / "bird" / f"IMG_{n}.dng").write_bytes(b"II*\x00" + bytes(range(60)))
    with pytest.raises(UserError, match="class 'bird' would vanish: none of its 3 images can be read"):
        read_labelled(tmp_path)
    first = check(tmp_path).problems[0]
    assert first.severity is Severity.ERROR
    assert "class 'bird' would vanish" in first.message


def test_a_folder_of_no_images_beside_classes_is_named(tmp_path: Path) -> None:
    images(tmp_path, TWO)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("words")
    messages = [problem.message for problem in read_labelled(tmp_path).problems]
    assert "folder 'notes' holds no images (.txt); it is not taken for a class" in messages


NAMES = st.sampled_from(
    [
        "cat",
        "dog",
        "train",
        "test",
        "val",
        "Training",
        "set",
        "2024-01",
        "lost+found",
        ".hidden",
        "img",
        "a b",
        "é",
        "test1",
    ]
)
FILES = st.sampled_from(
    [
        "0.png",
        "1.png",
        "2.jpg",
        "cat.0.png",
        "x.heic",
        "notes.txt",
        "Thumbs.db",
        "bare",
        "._0.png",
        "labels.csv",
        "t.jsonl",
        "coco.json",
        "t.xml",
        "more.zip",
        ".0.png.icloud",
        "0_mask.png",
    ]
)
TREES = st.recursive(
    st.dictionaries(FILES, st.integers(0, 7), max_size=4),
    lambda inner: st.dictionaries(NAMES, inner, max_size=4) | st.dictionaries(FILES, st.integers(0, 7), max_size=3),
    max_leaves=12,
)
SOME = st.dictionaries(FILES, st.integers(0, 7), min_size=1, max_size=3)
CLASSES = st.fixed_dictionaries({"cat": SOME, "dog": SOME}, optional={"img": SOME, "0.png": st.integers(0, 3)})
# Trees that are one of the known layouts, with something that does not fit in.
SPLIT_TREES = st.fixed_dictionaries(
    {"train": CLASSES},
    optional={"test": CLASSES | SOME, "val": CLASSES | SOME, "a b": SOME, "0.png": st.integers(0, 3)},
)
CONTENT = [encoded(picture(n)) for n in range(4)] + [b"", b"path,label\n0.png,cat\n1.png,dog\nimg/0.png,cat\n"]
CONTENT += [b'{"0.png": "cat", "1.png": "dog"}', b'[{"path": "0.png", "label": "cat"}]']


def grow(root: Path, tree: dict) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for name, below in tree.items():
        if isinstance(below, dict):
            grow(root / name, below)
        else:
            (root / name).write_bytes(CONTENT[below])


@settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
@given(TREES | SPLIT_TREES | CLASSES)
def test_any_tree_gives_a_users_error_or_accounts_for_every_image_file(tree: dict) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "set"
        grow(root, tree)
        files = [path for path in root.rglob("*") if path.is_file() and is_image(str(path))]
        for read in (read_labelled, check):
            try:
                result = read(root)
                held = [result]
                if read is read_labelled and result.has_test:
                    held.append(read_labelled(root, role="test"))
            except UserError as error:
                assert "\n" not in str(error)
                continue
            if read is check:
                continue
            used = {Path(item.name).resolve() for part in held for item in part.images.items}
            left = [path for path in files if path.resolve() not in used]
            # Each of the two says what it leaves out; what both leave out is said by both.
            problems = {(problem.where, problem.message): problem for part in held for problem in part.problems}
            assert len(left) <= said(list(problems.values())), (left, problems)


COUNTED = re.compile(r"\b(\d+) (?:other )?(?:images?|files?|rows?|others)\b|\b(an?) (?:image|archive)\b")


def said(problems: list) -> int:
    """How many files the problems speak of as left out: each is about one file, or counts them first."""
    total = 0
    for problem in problems:
        if problem.message.startswith("it is in splits"):
            continue  # counts what is used
        number = COUNTED.search(problem.message)
        of_one = not problem.where.endswith("/")
        total += int(number[1] or 1) if number else of_one
    return total
