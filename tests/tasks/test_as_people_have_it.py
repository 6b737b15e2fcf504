"""Folders, tables and archives as people have them, further to the other tables: what is said of each, and first."""

from __future__ import annotations

import io
import json
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from raytl.core.errors import UserError
from raytl.tasks import Task, check, read_labelled
from tests.tasks.pictures import encoded, make_folder, picture
from tests.tasks.test_layouts import HALF, TWO, Row, in_folders, lines, rows, saved_to_disk, table
from tests.tasks.test_silent_misreadings import EIGHT

Make = Callable[[Path], Path]


def classes(*names: str) -> Make:
    return in_folders(dict.fromkeys(names, 4))


def four(*names: str) -> dict[str, int]:
    return dict.fromkeys(sorted(names), 4)


def files(*names: str) -> Make:
    """Every name in both of two class folders, every picture another."""

    def make(root: Path) -> Path:
        for number, name in enumerate(f"{label}/{name}" for label in TWO for name in names):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            picture(number).save(root / name)
        return root

    return make


def of_studies(root: Path) -> Path:
    """Folders of studies in those of classes, and the patient in each file's name."""
    for number in range(8):
        c, k, n = number // 4, number // 2 % 2, number % 2 + 1
        name = f"{('cat', 'dog')[c]}/study_{c}{k}/patient{c}{n}_0.png"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(root / name)
    return root


def also(make: Make, name: str, content: str | bytes = "") -> Make:
    """A further file beside what is made."""

    def both(root: Path) -> Path:
        path = make(root)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return both


def flat(name: str, content: str | bytes = "", folder: str = "images") -> Make:
    """Images in one folder, and a file that may say what they are."""
    return also(in_folders({folder: 8}), name, content)


def beside(text: str | bytes, name: str = "labels.csv") -> Make:
    return flat(name, text, "img")


def competition(root: Path) -> Path:
    """The images of training and test have the same names."""
    make_folder(root, {"train": 8, "test": 4})
    (root / "train.csv").write_text(lines("{n}.png,{label}", "image,label"))
    (root / "test.csv").write_text("image\n" + "".join(f"{n}.png\n" for n in range(4)))
    return root


def decomposed(root: Path) -> Path:
    """Unpacked on a Mac: accents are characters of their own in the names of files, and not in the table."""
    (root / "img").mkdir(parents=True)
    for n in range(8):
        picture(n).save(root / "img" / unicodedata.normalize("NFD", f"é{n}.png"))
    (root / "labels.csv").write_text(lines("img/é{n}.png,{label}"))
    return root


def with_a_lost_link(root: Path) -> Path:
    make_folder(root, TWO)
    (root / "bird").symlink_to("/mnt/gone/bird")
    return root


def tar_of_links(root: Path) -> Path:
    """A class whose members are links to those of another: what tar makes of hard links."""
    path = root.with_suffix(".tar")
    with tarfile.open(path, "w") as archive:
        for number, label in enumerate(EIGHT):
            data = encoded(picture(number))
            info = tarfile.TarInfo(f"{label}/{number}.png")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for number, (kind, target) in enumerate(
            [(tarfile.LNKTYPE, "cat/0.png"), (tarfile.SYMTYPE, "../dog/1.png"), (tarfile.SYMTYPE, "../../gone.png")]
        ):
            info = tarfile.TarInfo(f"bird/{number}.png")
            info.type, info.linkname = kind, target
            archive.addfile(info)
    return path


def zip_of_two_days(root: Path) -> Path:
    path = root.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for number, label in enumerate(EIGHT):
            archive.writestr(f"{label}/{number}.png", encoded(picture(number)))
        archive.writestr(zipfile.ZipInfo("./cat/0.png"), encoded(picture(50)))
    return path


def with_caches(root: Path) -> Path:
    """As ``map`` leaves them beside what ``save_to_disk`` wrote."""
    saved_to_disk(root)
    for split in ("train", "test"):
        name = "data-00000-of-00001.arrow"
        (root / split / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
        (root / split / "cache-0123.arrow").write_bytes((root / split / name).read_bytes())
    return root


def films(kind: str) -> Make:
    def make(root: Path) -> Path:
        for number, label in enumerate(EIGHT):
            (root / label).mkdir(parents=True, exist_ok=True)
            frames = [picture(10 * number + n) for n in range(3)]
            frames[0].save(root / label / f"{number}.{kind}", save_all=True, append_images=frames[1:])
        return root

    return make


def of_two_formats(root: Path) -> Path:
    make_folder(root, {"cat": 4})
    (root / "dog").mkdir()
    for n in range(4):
        picture(50 + n).save(root / "dog" / f"{n}.jpg")
    return root


APART = "and are learned apart"
READ = {
    "a letter of no width": Row(classes("cat", "cat\u200b", "dog"), four("cat", r"cat\u200b", "dog"), 0, [APART]),
    "full width": Row(classes("cat", "ＣＡＴ", "dog"), four("cat", "dog", "ＣＡＴ"), 0, [APART]),
    "a full stop": Row(classes("cat", "cat.", "dog"), four("cat", "cat.", "dog"), 0, [APART]),
    "written together": Row(
        classes("GoldenRetriever", "golden_retriever", "pug"),
        four("GoldenRetriever", "golden_retriever", "pug"),
        0,
        ["differ only in case, spaces, hyphens"],
    ),
    "a short plural": Row(classes("cat", "cats", "dog"), four("cat", "cats", "dog"), 0, ["one and its plural"]),
    "boxes": Row(classes("box", "boxes", "pin"), four("box", "boxes", "pin"), 0, ["one and its plural"]),
    "numbered again": Row(
        classes("1_cat", "2_dog", "3_cat"), four("1_cat", "2_dog", "3_cat"), 0, ["differ only in the number before"]
    ),
    "stars": Row(classes("1_star", "2_star", "3_star"), four("1_star", "2_star", "3_star")),
    "two alphabets": Row(
        classes("cat", "c\u0430t", "dog"), four("cat", "c\u0430t", "dog"), 0, ["has Cyrillic and Latin letters"]
    ),
    "other alphabets": Row(classes("قطة", "כלב", "🐶 dog", "β-cell"), four("قطة", "כלב", "🐶 dog", "β-cell")),
    "a code for missing": Row(
        classes("0", "1", "999"), four("0", "1", "999"), 0, ["are numbers with gaps (0, 1, 999)"]
    ),
    "ages": Row(classes("20", "21", "22"), four("20", "21", "22"), 0, ["are numbers from 20 on (20, 21, 22)"]),
    "what programs write": Row(
        classes("cat", "dog", "runs", "venv"), four("cat", "dog", "runs", "venv"), 0, ["of what is kept beside data"]
    ),
    "what people keep aside": Row(classes("cat", "inbox"), four("cat", "inbox"), 0, ["of what is kept beside data"]),
    "runs of raytl": Row(in_folders({**TWO, "raytl-runs": 2}), HALF),
    "patients in folders": Row(
        in_folders(
            {f"{label}/patient_{n}": 2 for label, numbers in (("ill", (1, 2)), ("well", (3, 4))) for n in numbers}
        ),
        {"ill": 4, "well": 4},
        0,
        ["its names speak of 4 patients (patient_1, patient_2, patient_3, …); images of one stay on one side"],
    ),
    "patients in names": Row(
        files("patient1_0.png", "patient1_1.png", "patient2_0.png", "patient2_1.png"),
        HALF,
        0,
        ["its names speak of 2 patients (patient1, patient2); images of one stay"],
    ),
    "studies of patients in folders": Row(
        in_folders(
            {f"{label}/patient_{p}{n}/study_{k}": 1 for p, label in enumerate(TWO) for n in (1, 2) for k in (1, 2)}
        ),
        HALF,
        0,
        ["its names speak of 4 patients (patient_01, patient_02, patient_11, …); images of one stay"],
    ),
    "patients in names, in folders of studies": Row(
        of_studies,
        HALF,
        0,
        ["its names speak of 4 patients (patient01, patient02, patient11, …); images of one stay"],
    ),
    "one patient a class": Row(
        in_folders({"ill/patient_1": 4, "well/patient_2": 4}),
        {"ill": 4, "well": 4},
        0,
        ["(patient_1, patient_2) are not told apart", "which are not kept together"],
    ),
    "turned and cropped": Row(
        files("7.png", "7_flip.png", "aug_7_1.png", "8.png", "8_crop0.png", "9.png"),
        {"cat": 6, "dog": 6},
        0,
        ["10 images are named like versions or parts of others (7_flip.png, …); those of one picture stay"],
    ),
    "versions of Roboflow": Row(
        files(*(f"IMG_{n}_jpg.rf.{version * 32}.png" for n in range(2) for version in "ab")),
        HALF,
        0,
        ["8 images are named like versions or parts of others"],
    ),
    "tiles": Row(
        files(*(f"slide_{n}_x{x}_y0.png" for n in range(2) for x in range(2))), HALF, 0, ["its names speak of 2 slides"]
    ),
    "frames of named films": Row(
        files(*(f"take{n}_frame_{f}.png" for n in range(2) for f in range(2))),
        HALF,
        0,
        ["8 images are named like versions or parts of others"],
    ),
    "frames of a film": Row(
        files(*(f"frame_{n:04d}.png" for n in range(4))), HALF, 0, ["8 images are named like frames of a film"]
    ),
    "a file of another class": Row(
        also(in_folders(TWO), "cat/dog_12.png", encoded(picture(90))),
        {"cat": 5, "dog": 4},
        0,
        ["1 image is named like another class ('dog_12.png' is in 'cat'); is it 'dog'?"],
    ),
    "files named by their class": Row(
        also(
            also(in_folders({"cat": 1, "dog": 4}), "cat/cat_1.png", encoded(picture(91))),
            "cat/catalogue_7.png",
            encoded(picture(92)),
        ),
        {"cat": 3, "dog": 4},
    ),
    "sizes of fruit": Row(files("apple_1.png", "apple_2.png", "apple_zoom_1.png", "pear_1.png"), HALF),
    "depth beside colour": Row(
        files("1.png", "1_depth.png", "2.png", "2_depth.png"), HALF, 0, ["4 images are named like masks of others"]
    ),
    "a zip file of two days": Row(zip_of_two_days, HALF),
    "names for numbers": Row(
        also(classes("0", "1"), "classes.txt", "cat\ndog\n"),
        four("0", "1"),
        0,
        ["its classes are codes ('0', …), which the model will answer with; if classes.txt says what they are"],
    ),
    "synsets": Row(
        also(classes("n02123045", "n02099601"), "LOC_synset_mapping.txt", "n02123045 tabby"),
        four("n02099601", "n02123045"),
        0,
        ["if LOC_synset_mapping.txt says what they are"],
    ),
    "lists of splits": Row(
        also(also(in_folders(TWO), "train.txt", "cat/0"), "test.txt", "cat/1"),
        HALF,
        0,
        ["test.txt, train.txt may say which images are for training or the test, and are not read"],
    ),
    "lists of splits elsewhere": Row(
        also(in_folders({"images/cat": 4, "images/dog": 4}), "meta/train.json", "{}"),
        HALF,
        0,
        ["train.json may say which images", "the class folders lie in"],
    ),
    "a legend that numbers files too": Row(
        also(beside(lines("img/{n}.png,{is_dog}")), "classes.csv", "id,name\n0,cat\n1,dog\n"),
        four("0", "1"),
        0,
        ["labels are taken from its table labels.csv", "if classes.csv says what they are"],
    ),
    "a copy of the table": Row(
        also(beside(lines("img/{n}.png,{label}")), "labels (1).csv", lines("img/{n}.png,{label}")),
        HALF,
        0,
        ["labels are taken from its table labels.csv"],
    ),
    "the same names in training and test": Row(
        competition, HALF, 0, ["labels are taken from its table train.csv", "is train/0.png", "4 images are not named"]
    ),
    "a second label": Row(
        table(lines("img/{n}.png,{label},fur", "path,label,label2")), HALF, 0, ["and 'label2' is not looked at"]
    ),
    "rows to leave out": Row(
        table(lines("img/{n}.png,{label},{is_cat}", "path,label,exclude")), HALF, 0, ["column 'exclude' is not obeyed"]
    ),
    "an index of pandas": Row(
        table(lines("{n},{n},{label}", "Unnamed: 0,id,label")), HALF, 0, ["'0' in column 'id' is img/0.png"]
    ),
    "patients in a column": Row(
        table(lines("img/{n}.png,{label},p{n}", "path,label,patient") + lines("img/{n}.png,{label},p{n}", "")),
        HALF,
        0,
        ["images of one 'patient' stay on one side of every split"],
    ),
    "lesions in a column": Row(
        table("path,label,LesionID\n" + "".join(f"img/{n}.png,{EIGHT[n]},L{n // 2}\n" for n in range(8))),
        HALF,
        0,
        ["images of one 'LesionID' stay on one side"],
    ),
    "studies before patients in a table": Row(
        table(
            "path,study_id,participant_id,label\n"
            + "".join(f"img/{n}.png,s{n % 4},p{n // 4}{n % 2},{EIGHT[n]}\n" for n in range(8))
        ),
        HALF,
        0,
        ["images of one 'participant_id' stay on one side"],
    ),
    "a number for each image": Row(table(lines("img/{n}.png,{label},{n}", "path,label,item_id")), HALF),
    "accents of a Mac": Row(decomposed, HALF, 0, ["labels are taken from its table labels.csv", "8 files are found"]),
    "labels with accents of two kinds": Row(
        table(
            lines("img/{n}.png,{label}").replace("dog", "café") + f"img/1.png,{unicodedata.normalize('NFD', 'café')}\n"
        ),
        {"café": 4, "cat": 4},
        0,
        ["1 row names a file that another row names"],
    ),
    "labels with letters of no width": Row(
        table(lines("img/{n}.png,{label}\u200b")), HALF, 0, ["8 labels have spaces around"]
    ),
    "caches of map": Row(
        with_caches,
        HALF,
        8,
        ["2 Arrow files are not named in state.json beside them", "train (8 images) is the target"],
    ),
    "films": Row(films("gif"), HALF),
    "documents": Row(films("tiff"), HALF),
}


@pytest.mark.parametrize("name", READ)
def test_what_a_person_means_is_read_or_said_first(name: str, tmp_path: Path) -> None:
    row = READ[name]
    path = row.make(tmp_path / "set")
    result = read_labelled(path)
    assert result.images.counts() == row.counts
    assert result.has_test == bool(row.test)
    leading = [problem.message for problem in result.problems if problem.leading]
    for part in row.says:
        said = leading + [problem.message for problem in result.problems if "another row" in part]
        assert any(part in message for message in said), said
    assert row.says or not leading, leading
    report = check(path)
    assert report.ok, report.problems
    assert all(any(part in problem.message for problem in report.problems) for part in row.says)


NOT_KNOWN = "no labels of images in a form that raytl knows"
REFUSED: dict[str, tuple[Make, str]] = {
    "Datumaro": (flat("annotations/default.json", '{"items": [{"id": "0"}]}'), f"table default.json: {NOT_KNOWN}"),
    "FiftyOne": (flat("labels.json", '{"classes": ["cat"], "labels": {"0": 0}}', "data"), f"labels.json: {NOT_KNOWN}"),
    "VIA": (flat("via.json", '{"0.png123": {"filename": "0.png"}}', "."), f"table via.json: {NOT_KNOWN}"),
    "VOC": (flat("ImageSets/Main/cat_train.txt", "0 1"), "if ImageSets/Main/cat_train.txt holds them save it as a CSV"),
    "MATLAB": (flat("imagelabels.mat", b"MATLAB 5.0", "jpg"), "if imagelabels.mat holds them save it as a CSV file"),
    "a pickle": (flat("labels.pkl", b"\x80\x04."), "if labels.pkl holds them save it as a CSV file"),
    "a packed table": (flat("labels.csv.gz", b"\x1f\x8b"), "if labels.csv.gz holds them save it as a CSV file"),
    "a header and no rows": (beside("path,label\n"), "its table labels.csv: the table has no rows"),
    "a spreadsheet by another name": (beside(b"PK\x03\x04" + bytes(99)), "a spreadsheet or an archive by another name"),
    "a page to sign in": (beside("<!DOCTYPE html><html>"), "labels.csv: a web page, not a table; download it again"),
    "a pointer": (beside("version https://git-lfs.github.com/spec/v1\n"), "a pointer of Git LFS, not the table"),
    "shortcuts": (also(in_folders(TWO), "bird/0.png.lnk", b"L"), "class 'bird' would vanish: its files are no images"),
    "a class in an archive": (also(in_folders(TWO), "bird/bird.zip", b"PK"), "class 'bird' would vanish"),
    "a table of versions": (also(in_folders(TWO), "_delta_log/0000.json", "{}"), "a Delta table, whose files are of"),
    "a download that was not finished": (also(in_folders(TWO), "bird/0.jpg.crdownload", b"x"), "would vanish"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_and_named(name: str, tmp_path: Path) -> None:
    make, sentence = REFUSED[name]
    path = make(tmp_path / "set")
    with pytest.raises(UserError, match=sentence) as caught:
        Task(path)
    assert "\n" not in str(caught.value)
    try:
        told = [str(problem) for problem in check(path).problems]
    except UserError as error:
        told = [str(error)]
    assert any(sentence.split(" save")[0] in problem for problem in told), told


@pytest.mark.parametrize(
    "name",
    ["train-images.idx3-ubyte", "t10k-images-idx3-ubyte.gz", "a.tfrecord-00000-of-00002", "data_batch_1", "d.mdb"],
)
def test_arrays_by_any_name_are_arrays(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(bytes(99))
    with pytest.raises(UserError, match=r"hold arrays: write each image as PNG"):
        check(tmp_path)


def test_tables_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match="a pointer of Git LFS, not the table"):
        check(tmp_path / "a.parquet")
    pq.write_table(pa.table({"image": [[[1, 2], [3, 4]]] * 8, "label": EIGHT}), tmp_path / "b.parquet")
    with pytest.raises(UserError, match=r"column 'image' holds list<.*, and no images; write each image as PNG bytes"):
        check(tmp_path / "b.parquet")
    (tmp_path / "c.sqlite").write_bytes(b"SQLite format 3")
    with pytest.raises(UserError, match="databases are not read"):
        check(tmp_path / "c.sqlite")


def test_a_lost_link_among_folders_of_classes_is_a_class_that_would_vanish(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"class 'bird' would vanish: .*/bird to /mnt/gone/bird is a link to what is"):
        read_labelled(with_a_lost_link(tmp_path / "set"))
    (tmp_path / "set" / "bird").rename(tmp_path / "set" / "notes.txt")  # no class: it is told, and no more
    said = read_labelled(tmp_path / "set").problems
    assert any("1 link leads to what is not there (first: " in problem.message for problem in said)


def test_links_that_lead_nowhere_are_told(tmp_path: Path) -> None:
    make_folder(tmp_path, TWO)
    for name, target in {"a": "/mnt/gone/a.png", "b": "../.git/annex/objects/x/b.png"}.items():
        (tmp_path / "cat" / f"{name}.png").symlink_to(target)
    assert [problem.message for problem in read_labelled(tmp_path).problems] == [
        "a link to what is not there; left out",
        "a link of git-annex to what is not here; left out",
    ]


def test_links_of_a_tar_file_are_followed_within_it(tmp_path: Path) -> None:
    result = read_labelled(tar_of_links(tmp_path / "set"))
    assert result.images.counts() == {"bird": 2, "cat": 4, "dog": 4}
    assert [problem.message for problem in result.problems] == ["the file is empty; left out"]


def test_what_an_archive_holds_twice_is_counted(tmp_path: Path) -> None:
    result = read_labelled(zip_of_two_days(tmp_path / "set"))
    assert [problem.message for problem in result.problems] == [
        "1 image is in the archive again under the same name (first: /cat/0.png); the last is taken"
    ]
    first = next(item for item in result.images.items if item.name.endswith("cat/0.png"))
    assert first.open().tobytes() == picture(50).tobytes()


@pytest.mark.parametrize("kind", ["gif", "tiff", "webp"])
def test_frames_and_pages_that_are_not_taken_are_said_first(kind: str, tmp_path: Path) -> None:
    path = films(kind)(tmp_path / "set")
    said = "8 images have several frames or pages ("
    for problems in (check(path).problems, Task(path, holdout=0).problems):
        assert any(problem.leading and problem.message.startswith(said) for problem in problems)


def test_a_format_that_tells_the_class_is_said(tmp_path: Path) -> None:
    path = of_two_formats(tmp_path / "set")
    said = "all images of class 'cat' are PNG files, and those of 'dog' JPEG"
    for problems in (check(path).problems, Task(path).problems):
        assert any(problem.message.startswith(said) for problem in problems)
    picture(90).save(path / "cat" / "9.jpg")
    assert not any("JPEG; a model" in problem.message for problem in check(path).problems)


def test_images_that_names_put_together_stay_on_one_side(tmp_path: Path) -> None:
    path = files(*(f"patient{p}_{n}.png" for p in range(6) for n in range(6)))(tmp_path / "set")
    task = Task(path, holdout=0.3)
    assert task.test is not None and task.data.target is not None
    patients = [{item.name.split("patient")[1][0] for item in part.items} for part in (task.data.target,)]
    assert len(patients[0]) < 6
    assert len(task.data.target) == 12 * len(patients[0])


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_folder_above_the_data_says_nothing_of_its_images(elsewhere: bool, tmp_path: Path) -> None:
    folder = tmp_path / "study_1" / "data"
    names = [f"{n}{change}.png" for n in range(8) for change in ("", "_flip", "_rot90")]
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        picture(number).save(folder / name)
    place = tmp_path if elsewhere else folder
    rows = "".join(f"{name},{EIGHT[int(name[0])]}\n" for name in names)
    (place / "labels.csv").write_text(f"path,label\n{rows}")
    told = {"images": folder} if elsewhere else {}
    for path in (place / "labels.csv", *([] if elsewhere else [folder])):
        read = read_labelled(path, **told)
        assert read.images.groups is not None and len(set(read.images.groups)) == 8
        assert not any("not kept together" in problem.message for problem in read.problems)


def test_of_one_patient_the_studies_are_told_apart(tmp_path: Path) -> None:
    for number in range(12):
        name = f"patient_1/study_{number // 2}/{number % 2}.png"
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(tmp_path / name)
    rows = "".join(f"patient_1/study_{n // 2}/{n % 2}.png,{EIGHT[n // 2]}\n" for n in range(12))
    (tmp_path / "labels.csv").write_text(f"path,label\n{rows}")
    groups = read_labelled(tmp_path / "labels.csv").images.groups
    assert groups is not None and len(set(groups)) == 6


@pytest.mark.parametrize("encoding", ["utf-8", "cp437"])
def test_names_in_an_archive_of_a_mac_are_utf_8_though_no_flag_says_so(encoding: str, tmp_path: Path) -> None:
    umlaut, path = "ü".encode(encoding), tmp_path / "farm.zip"
    instead = b"~" * len(umlaut)  # a name of ASCII alone is written without the flag
    with zipfile.ZipFile(path, "w") as archive:
        for number, label in enumerate(["K" + instead.decode() + "he", "Schafe"] * 4):
            archive.writestr(f"{label}/{number}.png", encoded(picture(number)))
    path.write_bytes(path.read_bytes().replace(b"K" + instead + b"he/", b"K" + umlaut + b"he/"))
    read = read_labelled(path)
    assert read.images.counts() == {"Kühe": 4, "Schafe": 4}


def test_a_table_of_bytes_has_no_names_to_go_by(tmp_path: Path) -> None:
    pq.write_table(pa.table(rows(*EIGHT)), tmp_path / "patient1_a.parquet")
    assert read_labelled(tmp_path / "patient1_a.parquet").images.groups is None


def test_a_film_whose_second_frame_is_damaged_is_an_image_all_the_same(tmp_path: Path) -> None:
    make_folder(tmp_path, TWO)
    frames = [Image.new("L", (40, 30), n * 60) for n in range(3)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    (tmp_path / "cat" / "film.gif").write_bytes(buffer.getvalue()[:-40])
    assert read_labelled(tmp_path).images.counts() == {"cat": 5, "dog": 4}
