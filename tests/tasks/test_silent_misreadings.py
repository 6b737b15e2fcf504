"""Inputs that would be learned as something else than a person means by them, if nobody said so."""

from __future__ import annotations

import json
import os
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from raytl.core.errors import UserError
from raytl.tasks import Task, check, read_labelled
from raytl.tasks.images import LabelledImages
from raytl.tasks.items import FileItem
from tests.tasks.pictures import encoded, make_folder, picture
from tests.tasks.test_layouts import HALF, TWO, Row, in_folders, lines, rows, table

EIGHT = [("cat", "dog")[n % 2] for n in range(8)]


def parquet(label: object, metadata: dict | None = None) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        root.mkdir()
        pq.write_table(pa.table({"image": rows(*EIGHT)["image"], "label": label}), root / "t.parquet")
        return root / "t.parquet"

    return make


def parts(*names: str, labels: tuple[list, ...] = (["cat", "dog"] * 2,) * 3) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        root.mkdir()
        for number, name in enumerate(names):
            cells = {"image": rows(*"abcd", first=10 * number)["image"], "label": labels[number]}
            pq.write_table(pa.table(cells), root / name)
        return root

    return make


def beside(name: str, content: object) -> Callable[[Path], Path]:
    text = content if isinstance(content, str) else json.dumps(content)
    return table(text, name, give_folder=True)


def json_lines(cell: Callable[[int], object]) -> str:
    return "\n".join(json.dumps({"path": f"img/{n}.png", "label": cell(n)}) for n in range(8))


def members(names: Callable[[str, int], str]) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        with zipfile.ZipFile(root.with_suffix(".zip"), "w") as archive:
            for number, label in enumerate(EIGHT):
                archive.writestr(names(label, number), encoded(picture(number)))
        return root.with_suffix(".zip")

    return make


def with_a_circle(root: Path) -> Path:
    make_folder(root, TWO)
    (root / "self").symlink_to("self")
    (root / "cat" / "again").symlink_to(root)
    return root


def without_a_name(root: Path) -> Path:
    """Files that are none: whoever reads a pipe waits for ever, and a device never ends."""
    make_folder(root, TWO)
    os.mkfifo(root / "cat" / "pipe.png")
    (root / "dog" / "zero.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as made:
        here = Path.cwd()
        os.chdir(root / "dog")  # names of sockets are short
        try:
            made.bind("s.png")
        finally:
            os.chdir(here)
    return root


def deep(top: int) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        for number, label in enumerate(EIGHT):
            (root / label).mkdir(parents=True, exist_ok=True)
            pixels = np.asarray(picture(number, mode="L"), dtype=np.float64) / 255 * top
            Image.fromarray(pixels.astype(np.uint16)).save(root / label / f"{number}.png")
        return root

    return make


def stages(root: Path) -> Path:
    body = [f"img/{n}.png,{EIGHT[n]},{'TRAIN' if n % 3 else 'INFER'}" for n in range(8)]
    return table("\n".join(["path,label,stage", *body]))(root)


READ = {
    "classes and splits in one name": Row(
        in_folders({"train_cat": 4, "train_dog": 4, "test_cat": 2, "test_dog": 2}),
        HALF,
        4,
        ["named by class and split; the classes are cat, dog", "train_cat/train_dog (8 images) is the target"],
    ),
    "splits behind the classes": Row(
        in_folders({"cat-train": 4, "dog-train": 4, "cat-val": 2, "dog-val": 2, "cat-test": 2, "dog-test": 2}),
        {"cat": 6, "dog": 6},
        4,
        ["the classes are cat, dog", "cat-test/dog-test (4 images) the test"],
    ),
    "train and validation in one": Row(
        in_folders({f"{s}/{c}": 4 for s in ("trainval", "test") for c in TWO}), HALF, 8, ["trainval (8 images) is the"]
    ),
    "a station and a tube": Row(in_folders({"train station": 4, "test tube": 4}), {"test tube": 4, "train station": 4}),
    "months of a year": Row(
        in_folders({"January 2024": 4, "February 2024": 4}),
        {"February 2024": 4, "January 2024": 4},
        0,
        ["have names of dates"],
    ),
    "days": Row(in_folders({"Monday": 4, "tue": 4}), {"Monday": 4, "tue": 4}, 0, ["have names of dates"]),
    "days of a year": Row(
        in_folders({"03.01.2024": 4, "07.02.2024": 4}), {"03.01.2024": 4, "07.02.2024": 4}, 0, ["have names of dates"]
    ),
    "dates and words": Row(
        in_folders({"march of ants": 4, "sunday roast": 4}), {"march of ants": 4, "sunday roast": 4}
    ),
    "patients": Row(
        in_folders({"patient_001": 4, "patient_002": 4}),
        {"patient_001": 4, "patient_002": 4},
        0,
        ["have names of parts of one collection"],
    ),
    "what was put aside": Row(
        in_folders({**TWO, "_old": 4}), {"_old": 4, **HALF}, 0, ["class '_old' is named like what was put aside"]
    ),
    "one number twice": Row(
        in_folders({"1": 4, "01": 4, "2": 4}), {"01": 4, "1": 4, "2": 4}, 0, ["'01' and '1' are the same number"]
    ),
    "amounts": Row(
        table(lines("img/{n}.png,{is_cat}.5")), {"0.5": 4, "1.5": 4}, 0, ["classes are amounts ('0.5', '1.5')"]
    ),
    "whole numbers in two ways": Row(table(lines("img/{n}.png,{is_cat}") + "img/0.png,1.0\n"), {"0": 4, "1": 4}),
    "a circle of links": Row(with_a_circle, HALF),
    "pipes and devices": Row(without_a_name, HALF),
    "a zip file that points out of itself": Row(members(lambda label, n: f"../../{label}/{n}.png"), HALF),
    "a zip file of Windows": Row(
        members(lambda label, n: f"photos\\{label}\\{n}.png"), HALF, 0, ["the class folders lie in"]
    ),
    "UTF-16 without a mark": Row(lambda root: _wide(table(lines("img/{n}.png,{label}"))(root)), HALF),
    "a row for each annotator": Row(
        table(lines("img/{n}.png,{label}") * 2), HALF, 0, ["1 line repeats its header; passed over"]
    ),
    "blank rows": Row(table(lines("img/{n}.png,{label}") + ",\n,\n\n"), HALF),
    "the only other column": Row(
        table(lines("img/{n}.png,{is_cat}", "path,is_cat")),
        {"0": 4, "1": 4},
        0,
        ["'is_cat', the only one beside 'path'"],
    ),
    "numbers of files beside flags": Row(
        table(lines("{n},{is_cat},{is_dog}", "id,cat,dog")),
        HALF,
        0,
        ["read as 2 classes", "'0' in column 'id' is img/0"],
    ),
    "a column that speaks of training": Row(
        stages,
        HALF,
        0,
        ["column 'stage' (INFER, TRAIN) does not name splits, and all of its rows are read"],
    ),
    "joined by a slash": Row(
        table(lines("img/{n}.png,{label}") + "img/0.png,cat/fur\nimg/1.png,cat/fur\n"),
        {"cat": 3, "dog": 3, "cat/fur": 2},
        0,
        ["'cat/fur' in column 'label' is learned as one class; if it is several labels, give one"],
    ),
    "objects as labels": Row(
        table(json_lines(lambda n: {"id": n % 2, "name": EIGHT[n]}), "t.jsonl"),
        HALF,
        0,
        ["taken from 'name' of the obj"],
    ),
    "labels of two types": Row(
        table(json_lines(lambda n: EIGHT[n] if n < 6 else 7), "t.jsonl"), {"7": 2, "cat": 3, "dog": 3}
    ),
    "a list in JSON lines": Row(
        table(json.dumps([{"path": f"img/{n}.png", "label": EIGHT[n]} for n in range(8)]), "t.jsonl"), HALF
    ),
    "JSON lines by another name": Row(table(json_lines(lambda n: EIGHT[n]) + "\n\n", "t.json"), HALF),
    "JSON lines by another name, of two types": Row(
        table(json_lines(lambda n: EIGHT[n] if n < 6 else 7), "t.json"), {"7": 2, "cat": 3, "dog": 3}
    ),
    "JSON lines by another name, beside the images": Row(
        beside("t.json", json_lines(lambda n: EIGHT[n])), HALF, 0, ["taken from its table t.json"]
    ),
    "a manifest": Row(
        table("\n".join(json.dumps({"source-ref": f"img/{n}.png", "label": EIGHT[n]}) for n in range(8)), "t.manifest"),
        HALF,
    ),
    "names to lists": Row(
        beside("l.json", {f"img/{n}.png": [EIGHT[n]] for n in range(8)}), HALF, 0, ["taken from its table l.json"]
    ),
    "names to objects": Row(
        beside("l.json", {f"{n}.png": {"label": EIGHT[n]} for n in range(8)}), HALF, 0, ["taken from its table l.json"]
    ),
    "columns": Row(
        beside("l.json", {"path": [f"img/{n}.png" for n in range(8)], "label": EIGHT}), HALF, 0, ["its table l.json"]
    ),
    "labels as bytes": Row(parquet([name.encode() for name in EIGHT]), HALF),
    "a part that is not there": Row(
        parts("train-00000-of-00003.parquet", "train-00002-of-00003.parquet"),
        HALF,
        0,
        ["of the 3 parts of train 1 is not there (1)"],
    ),
    "parts that name classes in two ways": Row(
        parts("a.parquet", "b.parquet", labels=(["cat", "dog"] * 2, ["0", "1"] * 2)),
        {"0": 2, "1": 2, "cat": 2, "dog": 2},
        0,
        ["name classes in two ways, 'cat' in a.parquet and '0' in b.parquet; they are learned apart"],
    ),
    "twelve bits of sixteen": Row(deep(4095), HALF, 0, []),
}


def _wide(path: Path) -> Path:
    path.write_bytes(path.read_text().encode("utf-16-le"))
    return path


@pytest.mark.parametrize("name", READ)
def test_what_a_person_means_is_read_or_said_first(name: str, tmp_path: Path) -> None:
    row = READ[name]
    path = row.make(tmp_path / "set")
    result = read_labelled(path)
    assert result.images.counts() == row.counts
    assert result.has_test == bool(row.test)
    leading = [problem.message for problem in result.problems if problem.leading]
    for part in row.says:
        assert any(part in message for message in leading), leading
    assert row.says or not leading, leading
    report = check(path)
    assert report.ok, report.problems
    assert all(any(part in problem.message for problem in report.problems) for part in row.says)


REFUSED = [
    (
        in_folders({".cat": 4, ".dog": 4}),
        r"8 images lie in hidden places .* \(.cat, .dog\): rename what holds the data",
    ),
    (table(lines("img/{n}.png,{label};fur")), r"line 2 has more cells|several labels"),
    (table(lines('img/{n}.png,"{label};fur"')), r"several labels \('cat;fur' in column 'label'\)"),
    (table(lines('img/{n}.png,"{label}')), r"the label of row 1 spans lines \('cat\\nimg/1.png,dog', …\); close its"),
    (table(lines("img/{n}.png,{label}") + "img/0.png," + "x" * 300), "the label of row 9 has 300 characters"),
    (parquet(pa.array([[name, "fur"] for name in EIGHT], pa.large_list(pa.string()))), "several labels"),
    (parquet(pa.array([[name, "fur"] for name in EIGHT], pa.list_(pa.string(), 2))), "several labels"),
    (table(json_lines(lambda n: {"a": n % 2, "b": n}), "t.jsonl"), "holds objects of 'a', 'b', and which of these is"),
    (beside("l.json", {f"img/{n}.png": ["cat", "fur"] for n in range(8)}), "img/0.png has 'cat' and 'fur'"),
    (table(json_lines(lambda n: EIGHT[n]) + "\n7", "t.json"), r"not a readable JSON file \(Extra data: line 2"),
]


@pytest.mark.parametrize(("make", "sentence"), REFUSED)
def test_what_cannot_be_told_is_refused_in_one_sentence(make, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        Task(make(tmp_path / "set"))
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_counted(tmp_path: Path) -> None:
    messages = [problem.message for problem in read_labelled(without_a_name(tmp_path / "set")).problems]
    assert len(messages) == 1
    assert messages[0].startswith("3 things are no file: a pipe, socket, device or circle of links (first: ")


def test_names_with_control_characters_are_shown_in_one_line(tmp_path: Path) -> None:
    make_folder(tmp_path, TWO)
    (tmp_path / "bi\nrd\x1b[31m").mkdir()
    picture(77).save(tmp_path / "bi\nrd\x1b[31m" / "new\nline.png")
    read = read_labelled(tmp_path).images
    assert read.classes == (r"bi\nrd\x1b[31m", "cat", "dog")
    assert all(item.name.isprintable() for item in read.items)


def test_a_locked_archive_and_one_that_unpacks_to_a_hundred_times_its_size(tmp_path: Path) -> None:
    path = members(lambda label, n: f"{label}/{n}.png")(tmp_path / "a")
    data = bytearray(path.read_bytes())
    start = data.index(b"PK\x01\x02")
    data[start + 8] |= 1  # as in an archive with a password
    (tmp_path / "locked.zip").write_bytes(data)
    with pytest.raises(UserError, match=r"cannot be read .it is locked with a password.; unpack it"):
        check(tmp_path / "locked.zip")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cat/bomb.png", bytes(1 << 25))
    bad = check(path).corrupt
    assert len(bad) == 1
    assert "unpacks to" in bad[0].message


def test_a_file_of_many_gigabytes_is_not_read(tmp_path: Path) -> None:
    make_folder(tmp_path, TWO)
    with (tmp_path / "cat" / "film.png").open("wb") as file:
        file.write(encoded(picture(1)))
        file.truncate(1 << 40)  # takes no room
    problems = read_labelled(tmp_path).problems
    assert [problem.message for problem in problems] == [
        "the file has 1024.0 GiB, and no more than 1 are read; left out"
    ]
    with pytest.raises(UserError, match=r"film.png: the file has 1024.0 GiB"):
        FileItem("film.png", str(tmp_path / "cat" / "film.png")).open()


class TestWhatTellsClassesApartWithoutShowing:
    def test_twelve_bits_of_sixteen_are_said_first_by_check_and_search(self, tmp_path: Path) -> None:
        path = deep(4095)(tmp_path / "set")
        said = "8 images are of 16 bits and nearly black"
        for problems in (check(path).problems, Task(path).problems):
            assert any(problem.leading and problem.message.startswith(said) for problem in problems)
        assert not any("16 bits" in problem.message for problem in check(deep(65535)(tmp_path / "full")).problems)

    def test_sizes(self, tmp_path: Path) -> None:
        for number, (label, size) in enumerate({"cat": (40, 30), "dog": (64, 64)}.items()):
            (tmp_path / label).mkdir()
            for n in range(4):
                picture(10 * number + n, size=size).save(tmp_path / label / f"{n}.png")
        for problems in (check(tmp_path).problems, Task(tmp_path).problems):
            messages = [problem.message for problem in problems]
            assert any("class 'cat' have 40 x 30 pixels, and those of 'dog' 64 x 64" in told for told in messages)
        picture(99, size=(64, 64)).save(tmp_path / "cat" / "5.png")
        assert not any("pixels, and those" in problem.message for problem in check(tmp_path).problems)

    def test_tiny_images(self, tmp_path: Path) -> None:
        make_folder(tmp_path, TWO)
        Image.new("RGB", (1, 1)).save(tmp_path / "cat" / "dot.png")
        messages = [problem.message for problem in check(tmp_path).problems]
        assert any("1 image is less than 8 pixels wide or high (" in message for message in messages)


class TestRoles:
    def test_a_source_domain_of_other_names_is_said(self, tmp_path: Path) -> None:
        target = make_folder(tmp_path / "target", TWO)
        for number, (names, sentence) in enumerate(
            {("Cat", "Dog"): "is 'Cat' the same as 'cat'?", ("oak", "elm"): "the domain can only pretrain"}.items()
        ):
            domain = make_folder(tmp_path / f"d{number}", dict.fromkeys(names, 4), first=50 * (number + 1))
            said = [problem.message for problem in Task(target, domain).problems if problem.leading]
            assert any(message.startswith("none of its classes (") and sentence in message for message in said), said

    def test_the_column_of_a_table_is_not_asked_of_a_folder_for_the_test(self, tmp_path: Path) -> None:
        path = table(lines("img/{n}.png,{label},x{n}", "path,what,of"))(tmp_path / "set")
        test = make_folder(tmp_path / "test", {"cat": 2, "dog": 2}, first=70)
        task = Task(path, test=test, label="what")
        assert task.test is not None
        assert len(task.test) == 4
        with pytest.raises(UserError, match="--label what: there is no table beside its images"):
            Task(test, label="what")

    @pytest.mark.parametrize("path", ["", " ", "nosuch://x/y", "hf://datasets/x/y"])
    def test_places_that_are_none(self, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        with pytest.raises(UserError, match=r"no such file|cannot be") as caught:
            Task(path)
        assert "\n" not in str(caught.value)


class TestControlCharactersInTables:
    """What a terminal would obey is seen, and is one name wherever it stands."""

    RED = "\x1b[31m"
    SHOWN = r"\x1b[31m"

    def a_table(self, root: Path, header: str = "path,label", more: str = "") -> Path:
        return table(lines(f"img/{{n}}.png,{{label}}{self.RED}{more}", header))(root)

    def test_labels_are_those_of_folders_of_the_same_names(self, tmp_path: Path) -> None:
        a_folder = make_folder(tmp_path / "set", {f"cat{self.RED}": 4, f"dog{self.RED}": 4}, first=20)
        read = read_labelled(self.a_table(tmp_path / "tables"))
        assert read.images.classes == (f"cat{self.SHOWN}", f"dog{self.SHOWN}")
        task = Task(self.a_table(tmp_path / "again"), {"folder": a_folder})
        assert task.data.source_domains["folder"].classes == task.data.classes == read.images.classes

    def test_and_of_images_in_memory(self, tmp_path: Path) -> None:
        read = read_labelled(self.a_table(tmp_path / "tables")).images
        names = (f"cat{self.RED}", f"dog{self.RED}")
        made = LabelledImages("made", read.items, None, names, read.labels)
        assert made.classes == read.classes == (f"cat{self.SHOWN}", f"dog{self.SHOWN}")
        assert made.with_classes(names[::-1]).classes == read.classes[::-1]

    def test_columns(self, tmp_path: Path) -> None:
        path = self.a_table(tmp_path / "set", f"path,kind{self.RED}")
        assert f"column 'kind{self.SHOWN}'" in str(read_labelled(path).problems[0])
        for wish in (f"kind{self.RED}", f"kind{self.SHOWN}"):  # as it is, and as it was shown
            assert len(read_labelled(path, label=wish).images.classes) == 2
        with pytest.raises(UserError, match="no column 'none'") as caught:
            read_labelled(path, label="none")
        assert str(caught.value).isprintable()

    def test_columns_of_zeros_and_ones(self, tmp_path: Path) -> None:
        path = table(lines("img/{n}.png,{is_cat},{is_dog}", f"path,cat{self.RED},dog"))(tmp_path / "set")
        assert read_labelled(path).images.classes == (f"cat{self.SHOWN}", "dog")

    def test_names_of_classes_that_a_hub_wrote(self, tmp_path: Path) -> None:
        features = {f"kind{self.RED}": {"names": [f"cat{self.RED}", "dog"], "_type": "ClassLabel"}}
        metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
        cells = {"image": rows(*EIGHT)["image"], f"kind{self.RED}": [0, 1] * 4}
        pq.write_table(pa.table(cells).replace_schema_metadata(metadata), tmp_path / "t.parquet")
        assert read_labelled(tmp_path / "t.parquet").images.classes == (f"cat{self.SHOWN}", "dog")

    def test_what_an_annotation_tool_wrote(self, tmp_path: Path) -> None:
        tasks = [
            {
                "data": {"image": f"img/{n}.png"},
                "annotations": [
                    {"result": [{"value": {"choices": [f"{name}{self.RED}"]}}]}
                    for name in ("fish", ["cat", "dog"][n % 2])
                ],
            }
            for n in range(8)
        ]
        read = read_labelled(table(json.dumps(tasks), "t.json")(tmp_path / "set"))
        assert read.images.classes == (f"cat{self.SHOWN}", f"dog{self.SHOWN}")
        assert any(f"'fish{self.SHOWN}'" in problem.message.replace("\\\\", "\\") for problem in read.problems)
        assert all(str(problem).isprintable() for problem in read.problems)

    def test_a_label_that_spans_lines_is_still_refused(self, tmp_path: Path) -> None:
        path = table(lines('img/{n}.png,"{label}\n{n}"'))(tmp_path / "set")
        with pytest.raises(UserError, match="the label of row 1 spans lines"):
            read_labelled(path)
