"""What annotation tools and people who publish data leave in a folder: read, asked, or said."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raytl.core.errors import UserError
from raytl.tasks import Severity, Task, check, make_task, read_labelled, read_unlabelled
from tests.tasks.pictures import encoded, make_folder, picture

HALF = {"cat": 4, "dog": 4}
LABELS = ["cat", "dog"] * 4


def flat(root: Path, folder: str = "images") -> Path:
    return make_folder(root, {folder: 8})


def write(root: Path, name: str, content: object) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return root


def csv(header: str, pattern: str) -> str:
    rows = [pattern.format(n=n, label=LABELS[n], half=n // 4, flag=n % 2, other=1 - n % 2) for n in range(8)]
    return "\n".join([header, *rows, ""])


def label_studio(n: int, choices: list[str]) -> dict:
    result = [{"type": "choices", "value": {"choices": choices}}]
    return {
        "data": {"image": f"/data/upload/1/ab12cd3{n}-{n}.png"},
        "annotations": [{"result": result}, {"was_cancelled": True, "result": []}],
    }


def coco(categories: Callable[[int], list[int]]) -> dict:
    return {
        "images": [{"id": 100 + n, "file_name": f"{n}.png"} for n in range(8)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"image_id": 100 + n, "category_id": category, "bbox": [0, 0, 9, 9]}
            for n in range(8)
            for category in categories(n)
        ],
    }


def cvat(tags: Callable[[int], list[str]]) -> str:
    body = "".join(
        f'<image id="{n}" name="{n}.png">' + "".join(f'<tag label="{tag}"/>' for tag in tags(n)) + "</image>"
        for n in range(8)
    )
    return f'<?xml version="1.0"?><annotations><version>1.1</version>{body}</annotations>'


EXPORTS = {
    "label studio, csv": ("p.csv", csv("image,id,choice,annotator", "/data/upload/1/ab12cd3{n}-{n}.png,{n},{label},1")),
    "label studio, json": ("project.json", [label_studio(n, [LABELS[n]]) for n in range(8)]),
    "label studio, short json": (
        "min.json",
        [{"image": f"/data/local-files/?d=images/{n}.png", "id": n, "choice": LABELS[n]} for n in range(8)],
    ),
    "coco": ("annotations/instances_default.json", coco(lambda n: [1 + n % 2])),
    "cvat": ("annotations.xml", cvat(lambda n: [LABELS[n]])),
    "names to labels": ("labels.json", {f"{n}.png": LABELS[n] for n in range(8)}),
    "a list of objects": ("labels.json", [{"file": f"{n}.png", "label": LABELS[n], "of": {"w": 1}} for n in range(8)]),
    "labels to names": ("l.json", {label: [f"{n}.png" for n in range(8) if LABELS[n] == label] for label in HALF}),
    "pairs": ("dataset.json", {"labels": [[f"images/{n}.png", LABELS[n]] for n in range(8)]}),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPORTS)
def test_exports_are_read_beside_their_images_and_said(name: str, tmp_path: Path) -> None:
    file, content = EXPORTS[name]
    root = write(flat(tmp_path), file, content)
    for path in (root, root / file):
        result = read_labelled(path, images=root)
        assert result.images.counts() == HALF
        assert [int(Path(item.name).stem) % 2 for item in result.images.items] == result.images.labels.tolist()
    leading = [problem.message for problem in read_labelled(root).problems if problem.leading]
    assert f"labels are taken from its table {Path(file).name}" in leading


SEVERAL = {
    "coco": ("c.json", coco(lambda n: [1, 2]), "0.png has 'cat' and 'dog', in boxes"),
    "cvat": ("c.xml", cvat(lambda n: ["cat", "dog"]), "0.png has 'cat' and 'dog'"),
    "label studio": ("c.json", [label_studio(n, ["cat", "dog"]) for n in range(8)], "has 'cat' and 'dog'"),
    "label studio, short": (
        "c.json",
        [{"image": f"/data/upload/{n}.png", "choice": {"choices": ["cat", "dog"]}} for n in range(8)],
        "lists in column 'choice'",
    ),
    "rows of boxes": (
        "boxes.csv",
        csv("filename,class", "{n}.png,cat") + csv("", "{n}.png,dog").lstrip(),
        "'cat' and 'dog' in several rows for 0.png, and so for 8 of 8 files",
    ),
    "findings": (
        "t.csv",
        csv("Image Index,Finding Labels,Age", "{n}.png,{label},7") + "0.png,cat|fur,7\n",
        "'cat|fur' in column 'Finding Labels'",
    ),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_several_labels_an_image_are_refused_where_the_folder_is_given(name: str, tmp_path: Path) -> None:
    file, content, sentence = SEVERAL[name]
    root = write(flat(tmp_path), file, content)
    with pytest.raises(UserError, match="an image has several labels") as caught:
        Task(root)
    assert sentence in str(caught.value)
    report = check(root)
    assert report.problems[0].severity is Severity.ERROR
    assert sentence in report.problems[0].message


def sidecars(suffix: str, folder: str = "labels") -> Callable[[Path], None]:
    def make(root: Path) -> None:
        for n in range(8):
            write(root, f"{folder}/{n}{suffix}", "0 0.5 0.5 0.1 0.1\n")

    return make


def named(pattern: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        for n in range(8):
            (root / "images" / f"{n}.png").rename(root / "images" / pattern.format(label=LABELS[n], n=n))

    return make


def beside(name: str, content: object) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        write(root, name, content)

    return make


UNUSABLE = {
    "boxes": (sidecars(".txt"), "it has 8 .txt files named like its images, as for boxes or captions"),
    "objects": (sidecars(".xml", "images"), "it has 8 .xml files named like its images"),
    "names begin": (named("{label}_{n}.png"), "the files' names begin with 'cat', 'dog'"),
    "names end": (named("{n}_{label}.png"), "the files' names end with 'cat', 'dog'"),
    "a spreadsheet": (beside("labels.xlsx", b"PK"), "labels.xlsx may hold them, but spreadsheets are not read"),
    "a list": (beside("list.txt", "images/0.png 0\n"), "if list.txt holds them save it as a CSV file"),
    "two that may be the label": (
        beside("t.csv", csv("path,breed,colour", "images/{n}.png,{label},{half}")),
        "none of its columns 'breed', 'colour' is named 'label'; say which one holds the labels, as in --label breed",
    ),
    "words and flags": (
        beside("t.csv", csv("path,dx,male,female", "images/{n}.png,w{half},{flag},{other}")),
        "none of its columns 'dx', 'male', 'female' is named 'label'",
    ),
    "attributes of 1 and -1": (
        beside("t.csv", csv("path,Smiling,Male", "images/{n}.png,-{flag},-{half}")),
        "none of its columns 'Smiling', 'Male' is named 'label'",
    ),
    "captions": (
        beside("t.csv", csv("path,text", "images/{n}.png,a photo of number {n}")),
        "column 'text' has 8 different values in 8 rows ('a photo of number 0', …), texts rather than labels",
    ),
    "measurements": (beside("t.csv", csv("path,age", "images/{n}.png,{n}.5")), "measurements rather than labels"),
    "not UTF-8": (beside("t.csv", "path,label\nimages/0.png,Käfer\n".encode("latin-1")), "not a CSV file in UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_keeps_a_folder_of_images_from_having_labels_is_said(name: str, tmp_path: Path) -> None:
    make, sentence = UNUSABLE[name]
    make(flat(tmp_path))
    with pytest.raises(UserError) as caught:
        Task(tmp_path)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sentence in check(tmp_path).problems[0].message
    assert len(read_unlabelled(tmp_path).images) == 8


def test_a_table_that_is_not_used_is_said_beside_class_folders(tmp_path: Path) -> None:
    make_folder(tmp_path, {"rgb": 4})
    make_folder(tmp_path, {"infrared": 4}, first=9)
    body = [f"rgb/{n}.png,infrared/{n}.png,{LABELS[n]}" for n in range(4)]
    write(tmp_path, "t.csv", "\n".join(["a,b,label", *body]))
    leading = [problem.message for problem in read_labelled(tmp_path).problems if problem.leading]
    assert (
        "labels are taken from its folders; its table t.csv is not used: its columns 'a', 'b' may each hold the "
        "images; say which, as in --image-column a"
    ) in leading
    result = read_labelled(tmp_path / "t.csv", image_column="b")
    assert result.images.counts() == {"cat": 2, "dog": 2}
    assert all("/infrared/" in item.name for item in result.images.items)


class TestLabelOption:
    TABLE = csv("path,breed,colour", "images/{n}.png,{label},{half}")

    def test_chooses_the_column_of_a_folder_or_table_and_survives_a_resumption(self, tmp_path: Path) -> None:
        write(flat(tmp_path), "t.csv", self.TABLE)
        for path in (tmp_path, tmp_path / "t.csv"):
            task = Task(path, label="breed")
            assert task.data.classes == ("cat", "dog")
            assert task.given is not None
            assert make_task(task.given).data.fingerprint == task.data.fingerprint
        assert read_labelled(tmp_path, label="colour").images.classes == ("0", "1")
        assert check(tmp_path, label="colour").counts == {"0": 4, "1": 4}

    def test_goes_before_class_folders_and_names(self, tmp_path: Path) -> None:
        make_folder(tmp_path, {"cat": 4, "dog": 4})
        body = [f"{label}/{n}.png,{label},{n % 2}" for label in ("cat", "dog") for n in range(4)]
        write(tmp_path, "t.csv", "\n".join(["path,label,side", *body]))
        assert read_labelled(tmp_path, label="side").images.counts() == {"0": 4, "1": 4}

    def test_takes_texts_where_they_are_asked_for(self, tmp_path: Path) -> None:
        write(flat(tmp_path), "t.csv", csv("path,text", "images/{n}.png,a photo of number {n}"))
        assert len(read_labelled(tmp_path, label="text").images.classes) == 8

    def test_a_column_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        write(flat(tmp_path), "t.csv", self.TABLE)
        for path in (tmp_path, tmp_path / "t.csv"):
            with pytest.raises(UserError, match=r"no column 'bread' among 'path', 'breed', 'colour'; did you mean"):
                read_labelled(path, label="bread")
        other = make_folder(tmp_path / "folders", {"cat": 2, "dog": 2})
        with pytest.raises(UserError, match="--label breed: there is no table beside its images"):
            read_labelled(other, label="breed")

    def test_source_domains_may_have_other_columns(self, tmp_path: Path) -> None:
        write(flat(tmp_path / "one"), "t.csv", self.TABLE)
        other = make_folder(tmp_path / "two", {"cat": 4, "dog": 4}, first=20)
        task = Task(tmp_path / "one", [other], label="breed")
        assert task.data.joinable == ("two",)

    def test_a_single_column_of_few_values_is_taken_and_said(self, tmp_path: Path) -> None:
        write(flat(tmp_path), "t.csv", csv("path;Klasse;Nummer", "images/{n}.png;{label};{n}"))
        result = read_labelled(tmp_path / "t.csv")
        assert result.images.counts() == HALF
        assert "labels are taken from column 'Klasse'; --label NAME takes another" in [
            problem.message for problem in result.problems if problem.leading
        ]


def archive_in(root: Path) -> Path:
    make_folder(root / "d", {"cat": 2, "dog": 2})
    shutil.make_archive(str(root / "photos"), "zip", root / "d")
    shutil.rmtree(root / "d")
    return root


NOTHING = {
    "an archive": (archive_in, "it holds an archive: give .*/photos.zip"),
    "another archive": (lambda root: write(root, "x.7z", b"7z"), r"unpack what it holds \(x.7z\)"),
    "arrays": (lambda root: write(root, "x.npz", b"PK"), r"\(.npz\) hold arrays: write each image as PNG"),
    "MNIST": (lambda root: write(root, "t10k-images-idx3-ubyte", b"\0"), "hold arrays"),
    "others": (lambda root: write(root, "a/x.blend", b"B"), r"its files are of other kinds \(.blend\)"),
}  # fmt: skip


@pytest.mark.parametrize("folders", [("",), ("cat/", "dog/")])
@pytest.mark.parametrize(
    ("suffix", "sentence"),
    [
        (".nii.gz", r"\.nii\.gz files hold volumes, which are not read\); write their slices as PNG"),
        (".dcm", r"DICOM images are not read\); convert them to PNG"),
    ],
)
def test_a_folder_of_what_is_not_read_is_told_at_once(
    suffix: str, sentence: str, folders: tuple[str, ...], tmp_path: Path
) -> None:
    for number in range(4):
        write(tmp_path, f"{folders[number % len(folders)]}{number}{suffix}", b"\x1f\x8b")
    with pytest.raises(
        UserError, match=rf"(class 'cat' would vanish: none of its 2|none of the 4) images can.*{sentence}"
    ):
        Task(tmp_path)


@pytest.mark.parametrize("name", NOTHING)
def test_a_folder_without_images_is_told_what_it_holds(name: str, tmp_path: Path) -> None:
    make, sentence = NOTHING[name]
    root = make(tmp_path)
    for read in (read_labelled, read_unlabelled, check):
        with pytest.raises(UserError, match=f"no images found; .*{sentence}"):
            read(root)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("a.xlsx", "spreadsheets are not read; save the sheet as CSV"),
        ("a.rar", ".rar archives are not read; unpack it"),
        ("a.pkl", "arrays are not read"),
        ("a.txt", "text files are not read; write a CSV file with the columns path and label"),
        ("a.json", "not a readable JSON file"),
        ("b.json", "no labels of images in a form that raytl knows"),
        ("a.xml", "no labels of images in a form that raytl knows"),
    ],
)
def test_a_file_of_another_kind_is_one_sentence(name: str, sentence: str, tmp_path: Path) -> None:
    write(tmp_path, name, '{"a": [1]}' if name == "b.json" else "<x/>")
    with pytest.raises(UserError, match=f"{name}: {sentence}"):
        read_labelled(tmp_path / name)


def test_pixels_in_columns_are_one_short_sentence(tmp_path: Path) -> None:
    pq.write_table(pa.table({"label": [0, 1], **{f"pixel{n}": [0, 1] for n in range(64)}}), tmp_path / "t.parquet")
    with pytest.raises(UserError, match="it holds pixels as numbers; write each image to a file") as caught:
        read_labelled(tmp_path / "t.parquet")
    assert len(str(caught.value)) < len(str(tmp_path)) + 150


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("0.mp4", b"\0\0\0\x18ftypmp42", r"its files are no images \(.mp4\)"),
        ("IM0", bytes(128) + b"DICM" + bytes(99), "DICOM images are not read; convert them to PNG"),
        ("0.jpg", b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS, not the image"),
        ("0.jpg", b"<!DOCTYPE html><html>404</html>", "a web page, not an image; download it again"),
        (".0.jpg.icloud", b"bplist00", "it is still in iCloud; download it"),
    ],
)
def test_a_class_without_a_picture_is_an_error_that_says_why(
    file: str, content: bytes, sentence: str, tmp_path: Path
) -> None:
    make_folder(tmp_path, {"cat": 3, "dog": 3})
    write(tmp_path, f"bird/{file}", content)
    with pytest.raises(UserError, match=f"class 'bird' would vanish: .*{sentence}"):
        read_labelled(tmp_path)
    first = check(tmp_path).problems[0]
    assert first.severity is Severity.ERROR
    assert "class 'bird' would vanish" in first.message


def test_archives_and_masks_beside_images_are_said(tmp_path: Path) -> None:
    make_folder(tmp_path, {"cat": 3, "dog": 3})
    write(tmp_path, "bird.zip", b"PK")
    picture(50).save(tmp_path / "cat" / "0_mask.png")
    leading = [problem.message for problem in read_labelled(tmp_path).problems if problem.leading]
    assert leading == [
        "an archive is not read (bird.zip); unpack what belongs to the data",
        "1 image is named like masks of others (first: 0_mask) and learned as images; move them away if they are masks",
    ]


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        ({"setA/cat": 2, "setB/dog": 2}, "the folders inside (cat, dog) are not told apart"),
        ({"100CANON": 2, "101CANON": 2}, "have names of parts of one collection; are they classes?"),
        ({"tomato": 2, "tomatoe": 2, "dog": 2}, "classes 'tomato' and 'tomatoe' differ in one letter"),
        ({"tulip": 2, "tulips": 2, "dog": 2}, "classes 'tulip' and 'tulips' differ in one letter"),
        ({"trash": 2, "cat": 2}, "class 'trash' looks like a missing label"),
    ],
)
def test_folders_that_may_be_no_classes_are_said_first(folders: dict[str, int], said: str, tmp_path: Path) -> None:
    messages = [
        problem.message for problem in read_labelled(make_folder(tmp_path, folders)).problems if problem.leading
    ]
    assert any(said in message for message in messages), messages


@pytest.mark.parametrize(
    "folders",
    [{"cat/cat": 2, "dog/dog": 2}, {"cat/images": 2, "dog/images": 2}, {"lot 1": 2, "lot 2": 2}, {"ok": 2, "nok": 2}],
)
def test_plain_classes_have_nothing_said_of_them(folders: dict[str, int], tmp_path: Path) -> None:
    assert read_labelled(make_folder(tmp_path, folders)).problems == []


@pytest.mark.parametrize(
    ("folders", "sentence"),
    [
        ({f"p{p}/{c}": 1 for p in (1, 2) for c in HALF} | {"p3/cat": 1}, "have the same folders inside"),
        (
            {f"{s}/{t}/{c}": 1 for s in ("a", "b") for t in ("train", "test") for c in HALF},
            "a, b each hold splits",
        ),
    ],
)
def test_patients_and_data_sets_are_not_taken_for_classes(
    folders: dict[str, int], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=sentence):
        read_labelled(make_folder(tmp_path, folders))
    assert len(read_labelled(tmp_path, split="none").images.classes) > 1


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    make_folder(tmp_path, {"cat": 2, "dog": 2})
    os.mkfifo(tmp_path / "cat" / "pipe.jpg")
    assert read_labelled(tmp_path).images.counts() == {"cat": 2, "dog": 2}


def test_satellite_images_of_many_bands_are_described(tmp_path: Path) -> None:
    import struct

    make_folder(tmp_path, {"cat": 2, "dog": 2})
    tags = [(256, 16), (257, 16), (262, 1), (277, 13)]
    head = b"II*\0" + struct.pack("<IH", 8, len(tags) + 1)
    body = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in [*tags[:2], (258, 16), *tags[2:]])
    (tmp_path / "cat" / "s2.tif").write_bytes(head + body + bytes(4 + 16 * 16 * 26))
    problems = read_labelled(tmp_path).problems
    assert [problem.message for problem in problems] == ["a TIFF image of 13 bands of 16 bits; left out"]


def test_whole_numbers_written_with_a_point_are_their_classes(tmp_path: Path) -> None:
    write(flat(tmp_path), "t.csv", csv("path,label", "images/{n}.png,{flag}.0"))
    assert read_labelled(tmp_path / "t.csv").images.classes == ("0", "1")


def test_bytes_in_two_columns_are_asked(tmp_path: Path) -> None:
    data = [encoded(picture(n)) for n in range(4)]
    pq.write_table(pa.table({"left": data, "right": data[::-1], "label": ["a", "b"] * 2}), tmp_path / "t.parquet")
    with pytest.raises(UserError, match="columns 'left', 'right' may each hold the images; say which"):
        read_labelled(tmp_path / "t.parquet")
    first = read_labelled(tmp_path / "t.parquet", image_column="right").images.items[0]
    assert first.open().tobytes() == picture(3).tobytes()


SPLITS = {
    "is_train": ("is_train,{two}", (6, 2), "column 'is_train' is read as splits: 1 is for train, 0 for test"),
    "is_test": ("is_test,{true}", (6, 2), "column 'is_test' is read as splits: 1 is for test, 0 for train"),
    "Is Valid": ("Is Valid,{true}", (8, 0), "column 'Is Valid' is read as splits: 1 is for validation, 0 for train"),
    "another name": ("part of,{word}", (6, 2), "train (6 images) is the target, test (2 images) the test"),
    "more than splits": ("split,{odd}", (5, 2), "1 image outside the splits (first: "),
    "numbers": ("split,{two}", (8, 0), "column 'split' (0, 1) does not name splits, and all of its rows are read"),
    "folds": ("fold,{fold}", (8, 0), "column 'fold' (0, 1) does not name splits"),
}


@pytest.mark.parametrize("name", SPLITS)
def test_columns_that_set_images_apart_are_obeyed_or_said(name: str, tmp_path: Path) -> None:
    column, (learned, tested), sentence = SPLITS[name]
    header, _, cell = column.partition(",")
    flat(tmp_path)
    rows = [f"path,label,{header}"]
    for n in range(8):
        words = {"two": int(n < 6), "true": n >= 6, "word": ["train", "test"][n >= 6], "fold": n % 2}
        odd = "extra" if n == 0 else words["word"]
        rows.append(f"images/{n}.png,{LABELS[n]}," + cell.format(**words, odd=odd))
    write(tmp_path, "t.csv", "\n".join(rows))
    task = Task(tmp_path / "t.csv")
    assert len(task.data.target or ()) == learned
    assert len(task.test or ()) == tested
    leading = [problem.message for problem in task.problems if problem.leading]
    assert any(sentence in message for message in leading), leading


@pytest.mark.parametrize(
    ("pattern", "cells"),
    [("{n:04}.png", "{n}"), ("img_{n}.png", "IMG_{n}"), ("a {n}.png", "images/a%20{n}.png")],
)
def test_names_that_other_programs_changed_are_found_and_said(pattern: str, cells: str, tmp_path: Path) -> None:
    named(pattern)(flat(tmp_path))
    write(tmp_path, "t.csv", csv("file id,label,age", cells + ",{label},{half}"))
    result = read_labelled(tmp_path / "t.csv")
    assert result.images.counts() == HALF
    assert any("8 files are found by looking below" in problem.message for problem in result.problems)


def test_the_first_object_of_a_list_may_lack_its_label(tmp_path: Path) -> None:
    tasks = [{"image": f"{n}.png", "annotator": 1 + n // 6, "choice": LABELS[n]} for n in range(8)]
    del tasks[0]["choice"]
    write(flat(tmp_path), "min.json", tasks)
    read = read_labelled(tmp_path)
    assert read.images.counts() == {"cat": 3, "dog": 4}
    assert any("1 row has no label in column 'choice'" in problem.message for problem in read.problems)


def test_other_json_files_are_not_taken_for_labels(tmp_path: Path) -> None:
    make_folder(tmp_path, {"cat": 3, "dog": 3})
    write(tmp_path, "names.json", {"0": "cat", "1": "dog"})
    write(tmp_path, "config.json", {"rate": "0.1", "steps": [1, 2], "labels": "0.png"})
    write(tmp_path, "log.json", [1, 2, 3])
    result = read_labelled(tmp_path)
    assert result.images.counts() == {"cat": 3, "dog": 3}
    assert result.problems == []


def test_partitions_name_classes_and_nested_cells_are_no_labels(tmp_path: Path) -> None:
    assert read_labelled(make_folder(tmp_path / "a", {"label=cat": 2, "label=dog": 2})).images.classes == ("cat", "dog")
    lines = [json.dumps({"file_name": f"images/{n}.png", "objects": {"bbox": [[0, 0, 1, 1]]}}) for n in range(8)]
    write(flat(tmp_path / "b"), "metadata.jsonl", "\n".join(lines))
    with pytest.raises(UserError, match="none of its columns 'objects' is named 'label'"):
        Task(tmp_path / "b")
    double = make_folder(tmp_path / "c", {"train/train/cat": 2, "train/train/dog": 2, "test/test": 2})
    assert read_labelled(double).images.counts() == {"cat": 2, "dog": 2}
