from __future__ import annotations

import base64
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from raytl.core.errors import UserError
from raytl.tasks import LabelledImages, ReadResult, read_labelled, read_unlabelled
from tests.tasks.pictures import encoded, make_folder, picture

BYTES = [encoded(picture(n)) for n in range(6)]
LABELS = ["rose", "lily", "rose", "lily", "rose", "lily"]


def as_folder(root: Path) -> Path:
    for number, (data, label) in enumerate(zip(BYTES, LABELS, strict=True)):
        (root / "set" / label).mkdir(parents=True, exist_ok=True)
        (root / "set" / label / f"{number}.png").write_bytes(data)
    return root / "set"


def as_parquet(root: Path) -> Path:
    pq.write_table(pa.table({"image": BYTES, "label": LABELS}), root / "set.parquet")
    return root / "set.parquet"


def as_hugging_face(root: Path) -> Path:
    names = ["lily", "rose"]
    column = pa.array([{"bytes": data, "path": f"{n}.png"} for n, data in enumerate(BYTES)])
    table = pa.table({"img": column, "y": [names.index(label) for label in LABELS]})
    features = {"info": {"features": {"y": {"names": names, "_type": "ClassLabel"}}}}
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}), root / "hf.parquet")
    return root / "hf.parquet"


def as_shards(root: Path) -> Path:
    (root / "shards").mkdir()
    for part in range(2):
        rows = slice(part * 3, part * 3 + 3)
        table = pa.table({"image": BYTES[rows], "label": LABELS[rows]})
        pq.write_table(table, root / "shards" / f"train-{part}.parquet")
    return root / "shards"


def as_csv_of_paths(root: Path) -> Path:
    as_folder(root)
    paths = [f"set/{label}/{number}.png" for number, label in enumerate(LABELS)]
    pd.DataFrame({"file_name": paths, "class": LABELS}).to_csv(root / "set.csv", index=False)
    return root / "set.csv"


def as_csv_of_base64(root: Path) -> Path:
    cells = ["data:image/png;base64," + base64.b64encode(data).decode() for data in BYTES]
    pd.DataFrame({"image": cells, "label": LABELS}).to_csv(root / "inline.csv", index=False, sep=";")
    return root / "inline.csv"


FORMS = [as_folder, as_parquet, as_hugging_face, as_shards, as_csv_of_paths, as_csv_of_base64]


@pytest.mark.parametrize("form", FORMS)
class TestEveryForm:
    """What each way of bringing data must do."""

    def pairs(self, result: ReadResult[LabelledImages]) -> set[tuple[bytes, str]]:
        images = result.images
        labels = [images.classes[label] for label in images.labels]
        return {(np.asarray(item.open()).tobytes(), label) for item, label in zip(images.items, labels, strict=True)}

    def expected(self) -> set[tuple[bytes, str]]:
        return {(np.asarray(picture(n)).tobytes(), label) for n, label in enumerate(LABELS)}

    def test_gives_the_pictures_with_their_labels(self, form, tmp_path: Path) -> None:
        result = read_labelled(form(tmp_path))
        assert result.images.classes == ("lily", "rose")
        assert self.pairs(result) == self.expected()
        assert result.problems == []
        assert result.channels == 3

    def test_reads_the_same_from_a_uri_and_from_another_filesystem(self, form, tmp_path: Path) -> None:
        path = form(tmp_path)
        assert self.pairs(read_labelled(path.as_uri())) == self.expected()
        mounted = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
        assert self.pairs(read_labelled(path.name, filesystem=mounted)) == self.expected()

    def test_the_content_decides_the_digest(self, form, tmp_path: Path) -> None:
        digests = {item.digest for item in read_labelled(form(tmp_path)).images.items}
        reference = tmp_path / "reference"
        reference.mkdir()
        assert digests == {item.digest for item in read_labelled(as_parquet(reference)).images.items}

    def test_items_travel_to_other_processes(self, form, tmp_path: Path) -> None:
        mounted = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
        result = read_labelled(form(tmp_path).name, filesystem=mounted)
        assert self.pairs(pickle.loads(pickle.dumps(result))) == self.expected()

    def test_without_labels_the_same_pictures_come(self, form, tmp_path: Path) -> None:
        images = read_unlabelled(form(tmp_path)).images
        assert not isinstance(images, LabelledImages)
        assert {np.asarray(item.open()).tobytes() for item in images.items} == {pixels for pixels, _ in self.expected()}

    def test_an_empty_one_is_an_error_that_names_it(
        self, form, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(f"{__name__}.BYTES", [])
        monkeypatch.setattr(f"{__name__}.LABELS", [])
        (tmp_path / "set").mkdir()
        path = form(tmp_path)
        for read in (read_labelled, read_unlabelled):
            with pytest.raises(UserError, match=rf"{path.name}/?: no images found"):
                read(path)

    def test_damaged_images_are_named_and_left_out(self, form, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(f"{__name__}.BYTES", [*BYTES[:4], BYTES[4][:90], b"no image"])
        result = read_labelled(form(tmp_path))
        assert len(result.images) == 4
        assert len(result.problems) == 2
        assert all(problem.message.endswith("; left out") for problem in result.problems)
        assert len({problem.where for problem in result.problems}) == 2

    def test_nothing_but_damaged_images_is_an_error(
        self, form, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(f"{__name__}.BYTES", [data[:60] for data in BYTES])
        for read in (read_labelled, read_unlabelled):
            (tmp_path / read.__name__).mkdir()
            with pytest.raises(UserError, match="none of the 6 images can be read"):
                read(form(tmp_path / read.__name__))


class TestFolders:
    def test_nested_files_belong_to_the_top_folder_and_litter_is_skipped(self, tmp_path: Path) -> None:
        make_folder(tmp_path, {"lily": 2, "rose/garden/2024": 2, ".cache": 1, "__MACOSX": 1})
        (tmp_path / "rose" / "Thumbs.db").write_bytes(b"litter")
        (tmp_path / "rose" / "._0.png").write_bytes(b"litter")
        result = read_labelled(tmp_path)
        assert result.images.counts() == {"lily": 2, "rose": 2}
        assert [problem.message for problem in result.problems] == [
            "3 images lie in hidden places or ones that systems leave behind (.cache, __MACOSX, ._0.png); passed over"
        ]

    def test_foreign_files_are_counted_not_named_one_by_one(self, tmp_path: Path) -> None:
        make_folder(tmp_path, {"a": 2, "b": 2})
        for name in ("notes.txt", "more.txt", "labels.json"):
            (tmp_path / "a" / name).write_text("words")
        problems = read_labelled(tmp_path).problems
        assert [problem.message for problem in problems] == ["3 files are not images (.txt (2), .json); left out"]

    def test_an_image_is_known_by_its_bytes_whatever_its_suffix(self, tmp_path: Path) -> None:
        make_folder(tmp_path, {"a": 1, "b": 1})
        (tmp_path / "a" / "6fcd1e").write_bytes(encoded(picture(50), "JPEG"))
        (tmp_path / "b" / "wrong.png").write_bytes(encoded(picture(51), "WEBP"))
        assert read_labelled(tmp_path).images.counts() == {"a": 2, "b": 2}

    def test_images_outside_the_class_folders_and_empty_classes_are_noted(self, tmp_path: Path) -> None:
        make_folder(tmp_path, {"a": 1, "b": 1})
        picture(9).save(tmp_path / "stray.png")
        (tmp_path / "c").mkdir()
        result = read_labelled(tmp_path)
        assert result.images.classes == ("a", "b")
        assert [problem.message for problem in result.problems] == [
            "folder 'c' is empty; left out",
            f"1 image lies outside the class folders (first: {tmp_path}/stray.png); left out",
        ]

    def test_a_class_whose_images_are_all_damaged_is_an_error_and_not_left_out(self, tmp_path: Path) -> None:
        make_folder(tmp_path, {"a": 2, "b": 2, "c": 0})
        (tmp_path / "c" / "0.jpg").write_bytes(b"")
        with pytest.raises(UserError, match=r"class 'c' would vanish: its only image cannot be read; .*0.jpg"):
            read_labelled(tmp_path)

    def test_names_that_are_no_utf8_are_read_and_printable(self, tmp_path: Path) -> None:
        folder = tmp_path / os.fsdecode(b"caf\xe9")
        folder.mkdir()
        (folder / os.fsdecode(b"\xff.png")).write_bytes(encoded(picture(1)))
        make_folder(tmp_path, {"tea": 1})
        images = read_labelled(tmp_path).images
        assert images.classes == ("caf\\xe9", "tea")
        assert images.items[0].name.encode("utf-8").endswith(b"caf\\xe9/\\xff.png")
        assert pickle.loads(pickle.dumps(images.items[0])).open().size == (40, 30)

    def test_composed_and_decomposed_class_names_are_the_same(self, tmp_path: Path) -> None:
        one = read_labelled(make_folder(tmp_path / "one", {"e\u0301te\u0301": 1, "b": 1})).images.classes
        two = read_labelled(make_folder(tmp_path / "two", {"\u00e9t\u00e9": 1, "b": 1})).images.classes
        assert one == two

    def test_links_are_followed_and_a_circle_ends(self, tmp_path: Path) -> None:
        store = make_folder(tmp_path / "store", {"x": 2})
        root = make_folder(tmp_path / "root", {"a": 1})
        (root / "b").symlink_to(store / "x")
        (root / "a" / "back").symlink_to(root)
        (root / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
        result = read_labelled(root)
        assert result.images.counts() == {"a": 1, "b": 2}
        assert [problem.message for problem in result.problems] == ["a link to what is not there; left out"]

    def test_greyscale_needs_every_image_to_be_grey(self, tmp_path: Path) -> None:
        make_folder(tmp_path, {"a": 2, "b": 2}, mode="L")
        assert read_labelled(tmp_path).channels == 1
        make_folder(tmp_path, {"c": 1}, mode="RGB")
        assert read_labelled(tmp_path).channels == 3

    @pytest.mark.parametrize(
        ("folders", "sentence"),
        [
            ({".": 2}, "no labels for --source-domain; put each class into a folder of its own"),
            ({"train": 1, "test": 1}, "its folders are splits, not classes"),
        ],
    )
    def test_a_folder_without_classes_is_told_what_to_do(self, folders, sentence: str, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=sentence):
            read_labelled(make_folder(tmp_path, folders), role="source_domain")


class TestTables:
    def test_groups_are_read_and_a_missing_one_is_its_own(self, tmp_path: Path) -> None:
        groups = ["p1", None, "p2", "p1", None, "p2"]
        pq.write_table(pa.table({"image": BYTES, "label": LABELS, "patient": groups}), tmp_path / "t.parquet")
        found = read_labelled(tmp_path / "t.parquet").images.groups
        assert found is not None
        same = found[:, None] == found
        assert np.argwhere(np.triu(same, 1)).tolist() == [[0, 3], [2, 5]]

    def test_labels_keep_their_zeros_and_words_that_look_missing(self, tmp_path: Path) -> None:
        as_folder(tmp_path)
        rows = [
            f"set/{label}/{n}.png,{name}"
            for n, (label, name) in enumerate(zip(LABELS, ["007", "NA", "7"] * 2, strict=True))
        ]
        (tmp_path / "t.csv").write_text("\ufeffpath,label\n" + "\n".join(rows) + "\n")
        assert read_labelled(tmp_path / "t.csv").images.classes == ("007", "7", "NA")

    @pytest.mark.parametrize(
        "values", [[0, 1, None, 1, 0, 1], pa.array(["0", "1", None, "1", "0", "1"]).dictionary_encode()]
    )
    def test_numbers_and_dictionaries_are_labels_and_a_missing_label_is_left_out(self, values, tmp_path: Path) -> None:
        pq.write_table(pa.table({"bytes": BYTES, "category": values}), tmp_path / "t.parquet")
        result = read_labelled(tmp_path / "t.parquet")
        assert result.images.counts() == {"0": 2, "1": 3}
        assert [problem.message for problem in result.problems] == ["1 row has no label in column 'category'; left out"]

    def test_columns_are_found_by_their_type_where_names_do_not_help(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"flower": LABELS, "pic": BYTES}), tmp_path / "t.parquet")
        assert read_labelled(tmp_path / "t.parquet").images.counts() == {"lily": 3, "rose": 3}
        as_folder(tmp_path)
        paths = [f"set/{label}/{n}.png" for n, label in enumerate(LABELS)]
        pd.DataFrame({"flower": LABELS, "where": paths}).to_csv(tmp_path / "t.csv", index=False)
        assert read_labelled(tmp_path / "t.csv").images.counts() == {"lily": 3, "rose": 3}

    def test_columns_that_cannot_be_told_are_named(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"height": [1.0], "width": [2.0]}), tmp_path / "t.parquet")
        with pytest.raises(UserError, match="no column with images among 'height', 'width'"):
            read_labelled(tmp_path / "t.parquet")

    def test_a_missing_file_is_named_and_the_others_are_read(self, tmp_path: Path) -> None:
        as_folder(tmp_path)
        (tmp_path / "t.tsv").write_text("path\tlabel\nset/rose/0.png\trose\nset/gone.png\tlily\nset/lily/1.png\tlily\n")
        result = read_labelled(tmp_path / "t.tsv")
        assert len(result.images) == 2
        assert [str(problem) for problem in result.problems] == [f"{tmp_path}/set/gone.png: no such file; left out"]

    def test_paths_may_be_absolute_or_uris(self, tmp_path: Path) -> None:
        root = as_folder(tmp_path)
        (tmp_path / "far").mkdir()
        rows = [f"{root}/rose/0.png,rose", f"{(root / 'lily' / '1.png').as_uri()},lily"]
        (tmp_path / "far" / "t.csv").write_text("path,label\n" + "\n".join(rows))
        assert len(read_labelled(tmp_path / "far" / "t.csv").images) == 2

    @pytest.mark.parametrize(
        ("name", "content", "sentence"),
        [
            ("t.parquet", b"PAR1 not really", "not a readable Parquet file"),
            ("t.csv", b"path,label\n\xff\xfe\x00,a", "not a CSV file in UTF-8"),
            ("t.csv", b"", "not a readable CSV file"),
            ("t.jpg", encoded(picture(0)), "it is one image; give the folder"),
            ("t.dcm", bytes(128) + b"DICM", "DICOM images are not read; convert them to PNG"),
            ("t.nii.gz", b"\x1f\x8b", ".nii.gz files hold volumes, which are not read; write their slices as PNG"),
            ("t.PSD", b"8BPS", ".psd images are not read; convert them to PNG or JPEG"),
            ("t.icloud", b"", "it is still in iCloud; download it"),
            ("t.docx", b"PK", "neither a folder nor a Parquet or CSV file"),
        ],
    )
    def test_files_of_the_wrong_kind_are_told(self, name: str, content: bytes, sentence: str, tmp_path: Path) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: {sentence}"):
            read_labelled(tmp_path / name)


@pytest.mark.parametrize("path", ["nowhere/at/all", "file:///nowhere/at/all", "nosuchscheme://bucket/photos"])
def test_a_path_that_is_not_there_is_told(path: str) -> None:
    with pytest.raises(UserError, match=path):
        read_labelled(path)
