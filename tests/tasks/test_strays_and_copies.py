"""Loose images beside folders of classes, and copies of the data inside the data."""

from __future__ import annotations

from pathlib import Path

import pytest

from raytl.core.errors import UserError
from raytl.tasks import read_labelled
from tests.tasks.pictures import make_folder, picture


def make(root: Path, per_folder: dict[str, int], loose: int = 0, beside: str = "") -> Path:
    """Folders of so many images, and loose images in one of them."""
    make_folder(root, per_folder)
    for number in range(loose):
        picture(900 + number).save(root / beside / f"loose{number}.png")
    return root


def splits(train: int, test: int) -> dict[str, int]:
    return {f"{split}/{name}": n for split, n in (("train", train), ("test", test)) for name in ("cat", "dog")}


class TestLooseImages:
    @pytest.mark.parametrize(("beside", "loose"), [("train", 1), ("test", 1), ("train", 14), ("test", 6)])
    def test_in_a_split_that_has_the_classes_of_another(self, beside: str, loose: int, tmp_path: Path) -> None:
        read = read_labelled(make(tmp_path, splits(7, 3), loose, beside))
        assert read.images.counts() == {"cat": 7, "dog": 7}
        assert len(read_labelled(tmp_path, role="test").images) == 6
        assert any(f"{beside} has {loose} image" in problem.message for problem in read.problems)

    def test_in_a_folder_around_the_classes_of_a_split(self, tmp_path: Path) -> None:
        folders = {name.replace("test/", "test/test/"): count for name, count in splits(7, 3).items()}
        assert read_labelled(make(tmp_path, folders, 1, "test")).has_test
        assert len(read_labelled(tmp_path, role="test").images) == 6

    @pytest.mark.parametrize(("each", "loose"), [(7, 1), (15, 3), (15, 5)])
    @pytest.mark.parametrize("around", ["photos", "my/photos"])
    def test_further_down(self, each: int, loose: int, around: str, tmp_path: Path) -> None:
        folders = {f"{around}/{name}": each for name in ("cat", "dog")}
        read = read_labelled(make(tmp_path, folders, loose, around.split("/")[0]))
        assert read.images.counts() == {"cat": each, "dog": each}
        assert any(f"{loose} image" in problem.message for problem in read.problems)

    def test_beside_a_rare_class(self, tmp_path: Path) -> None:
        folders = {"photos/cat": 9, "photos/dog": 9, "photos/lynx": 1}
        assert read_labelled(make(tmp_path, folders, 2, "photos")).images.counts() == {"cat": 9, "dog": 9, "lynx": 1}

    def test_in_one_of_the_domains(self, tmp_path: Path) -> None:
        folders = {f"{domain}/{name}": 5 for domain in ("amazon", "dslr") for name in ("cat", "dog")}
        with pytest.raises(UserError, match="have the same folders inside"):
            read_labelled(make(tmp_path, folders, 1, "amazon"))

    def test_in_a_class_with_splits_inside(self, tmp_path: Path) -> None:
        folders = {f"{name}/{split}": n for split, n in (("train", 5), ("test", 2)) for name in ("cat", "dog")}
        read = read_labelled(make(tmp_path, folders, 1, "cat"))
        assert read.images.counts() == {"cat": 5, "dog": 5} and read.has_test


class TestWhatAreNoStrays:
    def test_images_of_a_class_that_has_folders_too(self, tmp_path: Path) -> None:
        folders = {"cat": 30, "cat/young": 5, "cat/old": 5}
        assert read_labelled(make(tmp_path, folders)).images.counts() == {"cat": 40}

    def test_nor_beside_other_classes(self, tmp_path: Path) -> None:
        folders = {"cat": 30, "cat/young": 5, "cat/old": 5, "dog": 30}
        assert read_labelled(make(tmp_path, folders)).images.counts() == {"cat": 40, "dog": 30}

    def test_a_split_without_labels_that_has_folders_of_its_own(self, tmp_path: Path) -> None:
        folders = {"train/cat": 5, "train/dog": 5, "test": 9, "test/first": 2, "test/second": 2}
        read = read_labelled(make(tmp_path, folders))
        assert not read.has_test and any("test has 13 images without labels" in p.message for p in read.problems)

    def test_a_table_beside_the_images_of_each_split_is_asked_about(self, tmp_path: Path) -> None:
        folders = {f"{split}{more}": 8 for split in ("train", "test") for more in ("", "/raw", "/thumbs")}
        make(tmp_path, folders)
        for split in ("train", "test"):
            rows = [f"{n}.png,{['cat', 'dog'][n % 2]}" for n in range(8)]
            (tmp_path / split / "labels.csv").write_text("\n".join(["path,label", *rows]))
        with pytest.raises(
            UserError, match=r"its table labels\.csv \('cat', 'dog'\) are of different images and classes"
        ):
            read_labelled(tmp_path)

    def test_more_loose_images_than_lie_in_folders(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no labels"):
            read_labelled(make(tmp_path, {**splits(4, 4), "train": 9, "test": 9}))


DATA = {"cat": 4, "dog": 4, "fox": 4}


class TestCopies:
    @pytest.mark.parametrize("name", ["copy of data", "data (copy)", "backup", "cat/backup", "old/2024"])
    @pytest.mark.parametrize("of", [("cat", "dog", "fox"), ("cat", "dog"), ("cat", "dog", "wolf")])
    def test_inside_the_data_are_asked_about(self, name: str, of: tuple[str, ...], tmp_path: Path) -> None:
        make(tmp_path, {**DATA, **{f"{name}/{each}": 4 for each in of}})
        with pytest.raises(UserError, match="holds folders named like those beside it") as caught:
            read_labelled(tmp_path)
        assert f"its folder '{name}' holds" in str(caught.value) and "--split none" in str(caught.value)
        assert sum(read_labelled(tmp_path, split="none").images.counts().values()) == 12 + 4 * len(of)

    def test_with_loose_images_in_them(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="its folder 'backup' holds"):
            read_labelled(make(tmp_path, {**DATA, **{f"backup/{name}": 4 for name in DATA}}, 1, "backup"))

    def test_of_the_name_of_the_data(self, tmp_path: Path) -> None:
        root = make(tmp_path / "pets", {**DATA, **{f"pets/{name}": 4 for name in DATA}})
        with pytest.raises(UserError, match="its folder 'pets' holds folders named like those beside it"):
            read_labelled(root)

    def test_in_a_split(self, tmp_path: Path) -> None:
        folders = splits(7, 3) | {f"train/backup/{name}": 7 for name in ("cat", "dog")}
        with pytest.raises(UserError, match=r"/train/: its folder 'backup' holds .* does; move it away$"):
            read_labelled(make(tmp_path, folders))

    @pytest.mark.parametrize("folders", [("animals/cat", "animals/dog", "birds"), ("cat/old", "cat/dog", "dog", "fox")])
    def test_folders_of_other_names_are_parts(self, folders: tuple[str, ...], tmp_path: Path) -> None:
        counts = read_labelled(make(tmp_path, dict.fromkeys(folders, 4))).images.counts()
        assert set(counts) == {name.split("/")[0] for name in folders}
