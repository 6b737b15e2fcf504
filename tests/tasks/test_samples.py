"""Images with a file of each one's label beside them, and folders of tar files of these, as WebDataset writes both."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from raytl.core.errors import UserError
from raytl.tasks import read_labelled
from raytl.tasks.readers import read_unlabelled
from tests.tasks.test_archives_in_place import add, picture

LABELS = ["cat", "dog"] * 5


def shard(path: Path, files: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            add(tar, name, data)
    return path


def samples(numbers: range, kind: str = "cls", *, start: int = 0) -> dict[str, bytes]:
    told = {
        "cls": lambda n: str(n % 2),
        "txt": lambda n: LABELS[n % 2] + "\n",
        "json": lambda n: json.dumps({"width": 8, "label": LABELS[n % 2]}),
    }[kind]
    return {
        name: data
        for n in numbers
        for name, data in ((f"{n - start:06d}.png", picture(n)), (f"{n - start:06d}.{kind}", told(n).encode()))
    }


def folder(root: Path, files: Mapping[str, bytes]) -> Path:
    root.mkdir()
    for name, data in files.items():
        (root / name).write_bytes(data)
    return root


def said(read: object) -> list[str]:
    return [problem.message for problem in read.problems]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("kind", "classes", "where"),
    [
        ("cls", ("0", "1"), "the .cls"),
        ("txt", ("cat", "dog"), "the .txt"),
        ("json", ("cat", "dog"), "'label' in the .json"),
    ],
)
class TestLabelsBesideEachImage:
    def test_in_a_tar_file(self, kind: str, classes: tuple[str, ...], where: str, tmp_path: Path) -> None:
        read = read_labelled(shard(tmp_path / "a.tar", samples(range(10), kind)))
        assert read.images.classes == classes
        assert read.images.labels.tolist() == [0, 1] * 5
        assert said(read) == [f"labels are taken from {where} file beside each image"]

    def test_in_a_folder(self, kind: str, classes: tuple[str, ...], where: str, tmp_path: Path) -> None:
        read = read_labelled(folder(tmp_path / "photos", samples(range(10), kind)))
        assert read.images.classes == classes
        assert read.images.labels.tolist() == [0, 1] * 5
        assert said(read) == [f"labels are taken from {where} file beside each image"]


@pytest.mark.parametrize(
    "texts",
    [
        [f"{n % 2} 0.5 0.5 0.2 0.{n}" for n in range(10)],  # boxes
        ["0 0.5 0.5 0.2 0.1\n1 0.2 0.2 0.1 0.1"] * 10,
        [f"a {word} on a mat in a house" for word in LABELS],
        [f"photograph {n}" for n in range(10)],
        [f"{n}.5" for n in range(10)],
        ["1 0 1"] * 10,
    ],
)
def test_files_of_boxes_and_captions_give_no_labels(texts: list[str], tmp_path: Path) -> None:
    files = {f"{n}.png": picture(n) for n in range(10)} | {f"{n}.txt": text.encode() for n, text in enumerate(texts)}
    with pytest.raises(UserError, match=r"it has 10 \.txt files named like its images, as for boxes or captions"):
        read_labelled(folder(tmp_path / "photos", files))


def test_class_folders_are_believed_before_files_beside_images(tmp_path: Path) -> None:
    files = {f"{n}.png": picture(n) for n in range(10)} | {f"{n}.cls": b"%d" % (n // 5) for n in range(10)}
    root = tmp_path / "photos"
    for number, label in enumerate(LABELS):
        (root / label).mkdir(parents=True, exist_ok=True)
        for ending in ("png", "cls"):
            (root / label / f"{number}.{ending}").write_bytes(files[f"{number}.{ending}"])
    assert read_labelled(root).images.classes == ("cat", "dog")


def test_images_without_such_a_file_are_left_out_and_said(tmp_path: Path) -> None:
    files = samples(range(10))
    del files["000003.cls"]
    files["000004.cls"] = b""
    read = read_labelled(shard(tmp_path / "a.tar", files))
    assert len(read.images) == 8
    assert any("2 images have no label in a file beside them (first: " in text for text in said(read))


def test_a_name_with_dots_is_that_of_its_beginning(tmp_path: Path) -> None:
    files = {name.replace(".png", ".rgb.png"): data for name, data in samples(range(10)).items()}
    assert read_labelled(shard(tmp_path / "a.tar", files)).images.classes == ("0", "1")


class TestShards:
    def test_are_one_task(self, tmp_path: Path) -> None:
        for number in range(3):
            shard(tmp_path / f"data-{number:06d}.tar", samples(range(10 * number, 10 * number + 10)))
        read = read_labelled(tmp_path)
        whole = read_labelled(shard(tmp_path / "elsewhere" / "all.tar", samples(range(30))))
        assert read.images.fingerprint == whole.images.fingerprint
        assert said(read)[0] == "its 3 tar files are read as one"
        assert [item.open().tobytes() for item in pickle.loads(pickle.dumps(read.images.items))] == [
            item.open().tobytes() for item in whole.images.items
        ]

    def test_whose_names_begin_anew_are_not_taken_for_one_another(self, tmp_path: Path) -> None:
        for number in range(2):
            files = samples(range(10 * number, 10 * number + 10), start=10 * number)
            shard(tmp_path / f"{number:05d}.tar", files | {"stats.json": b"{}"})
        read = read_labelled(tmp_path)
        assert len(read.images) == 20
        assert len({item.read() for item in read.images.items}) == 20  # type: ignore[attr-defined]
        assert read.images.labels.tolist() == [0, 1] * 10
        assert read.images.groups is None

    def test_may_be_packed(self, tmp_path: Path, unpacked: Path) -> None:
        for number in range(2):
            path = shard(tmp_path / f"data-{number}.tar.gz", samples(range(10 * number, 10 * number + 10)))
            path.write_bytes(gzip.compress(path.read_bytes()))
        read = read_labelled(tmp_path)
        assert len(read.images) == 20
        assert f"2 of its files are packed, and were unpacked once to {unpacked}, to be read in place there" in said(
            read
        )

    @pytest.mark.parametrize("form", ["{split}-{number:04d}.tar", "{split}/{number:04d}.tar"])
    def test_are_in_the_splits_that_their_names_say(self, form: str, tmp_path: Path) -> None:
        for split, numbers in (("train", (0, 1)), ("val", (2,)), ("test", (3,))):
            for number in numbers:
                name = form.format(split=split, number=number)
                shard(tmp_path / name, samples(range(10 * number, 10 * number + 10)))
        read = read_labelled(tmp_path)
        assert len(read.images) == 30
        assert read.has_test
        assert len(read_labelled(tmp_path, split="test").images) == 10

    def test_with_class_folders_inside_go_together(self, tmp_path: Path) -> None:
        for number in range(2):
            files = {f"{LABELS[n]}/{n}.png": picture(10 * number + n) for n in range(10)}
            shard(tmp_path / f"part{number}.tar", files)
        read = read_labelled(tmp_path)
        assert read.images.classes == ("cat", "dog")
        assert len(read.images) == 20
        assert read.images.groups is None

    def test_that_are_missing_are_said(self, tmp_path: Path) -> None:
        for number in (0, 1, 3):
            shard(tmp_path / f"data-{number:06d}.tar", samples(range(10 * number, 10 * number + 10)))
        told = "of the tar files between data-000000 and data-000003 1 is not there (2)"
        assert told in said(read_labelled(tmp_path))

    def test_without_labels_are_unlabelled_images(self, tmp_path: Path) -> None:
        for number in range(2):
            shard(
                tmp_path / f"data-{number}.tar", {f"{n}.png": picture(n) for n in range(10 * number, 10 * number + 10)}
            )
        assert len(read_unlabelled(tmp_path).images) == 20

    @pytest.mark.parametrize("names", [("n01440764", "n01443537"), ("images", "masks"), ("cats1", "dogs1")])
    def test_are_no_tar_files_of_other_names(self, names: tuple[str, ...], tmp_path: Path) -> None:
        for name in names:
            shard(tmp_path / f"{name}.tar", {f"{n}.png": picture(n) for n in range(10)})
        with pytest.raises(UserError, match="no images found; unpack what it holds"):
            read_labelled(tmp_path)

    def test_one_that_is_replaced_is_looked_through_again(self, tmp_path: Path) -> None:
        for number in range(2):
            shard(tmp_path / f"data-{number}.tar", samples(range(10 * number, 10 * number + 10)))
        item = read_labelled(tmp_path).images.items[-1]
        path = shard(tmp_path / "new", {"pad.txt": bytes(5000)} | samples(range(10, 20)))
        path.replace(tmp_path / "data-1.tar")
        assert io.BytesIO(item.read()).getvalue() == picture(19)  # type: ignore[attr-defined]
