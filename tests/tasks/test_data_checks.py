from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from raytl.core.errors import UserError
from raytl.tasks import Severity, Task, check
from tests.tasks.pictures import encoded, make_folder, picture


def messages(root: Path, severity: Severity) -> list[str]:
    return [problem.message for problem in check(root).problems if problem.severity is severity]


def test_good_data_has_nothing_to_say(tmp_path: Path) -> None:
    report = check(make_folder(tmp_path / "flowers", {"rose": 6, "lily": 5}))
    assert report.ok
    assert report.problems == []
    assert report.counts == {"lily": 5, "rose": 6}
    assert report.modes == {"RGB": 11}
    assert report.width is not None
    assert (report.width.least, report.width.median, report.width.most) == (40, 40, 40)


@pytest.mark.parametrize("copies", ["the same file", "saved anew", "one patient"])
def test_a_class_whose_images_belong_together_is_named_where_that_leaves_none_to_hold_out(
    copies: str, tmp_path: Path
) -> None:
    root = make_folder(tmp_path / "pets", {"cat": 4, "dog": 4})
    for number in range(4):
        if copies != "one patient":
            size = (40, 30) if copies == "the same file" else (40 + 4 * number, 30 + 3 * number)
            picture(99, size=size).save(root / "cat" / f"{number}.png")
    if copies == "one patient":
        rows = [f"{label}/{n}.png,{label},{'a' if label == 'cat' else n}" for label in ("cat", "dog") for n in range(4)]
        (root / "pets.csv").write_text("\n".join(["path,label,patient", *rows, ""]))
        root /= "pets.csv"
    said = "class 'cat' has 4 images that belong together (duplicates or one group)"
    assert any(problem.message.startswith(f"{said}, so none can be held out") for problem in Task(root).problems)
    assert check(root).ok
    assert [message for message in messages(root, Severity.WARNING) if message.startswith(said)] == [
        f"{said}; with fewer than 2 of two classes none can be held out, and only --test tells how good a model is"
    ]
    if copies != "one patient":
        make_folder(root, {"bird": 4}, first=50)
        assert Task(root).data.classes == ("bird", "cat", "dog")
        assert check(root).ok


def test_everything_wrong_is_found_and_the_report_is_json(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "flowers", {"lily": 40, "poppy": 1, "rose": 3})
    (root / "lily" / "cut.jpg").write_bytes(encoded(picture(70), "JPEG")[:200])
    (root / "lily" / "notes.txt").write_text("words")
    picture(0).save(root / "lily" / "again.png")
    picture(1).save(root / "rose" / "contradiction.png")
    picture(2, size=(200, 150)).save(root / "lily" / "larger.png")
    (root / "weed").mkdir()
    (root / "weed" / "0.png").write_bytes(b"")

    report = check(root)
    values = json.loads(json.dumps(report.to_json()))
    assert values["ok"] is False
    assert values["counts"] == {"lily": 42, "poppy": 1, "rose": 4}
    assert [Path(problem["where"]).name for problem in values["corrupt"]] == ["cut.jpg", "0.png"]
    assert {frozenset(Path(name).name for name in group) for group in values["exact_duplicates"]} == {
        frozenset({"0.png", "again.png"}),
        frozenset({"1.png", "contradiction.png"}),
    }
    assert [sorted(Path(name).name for name in group) for group in values["near_duplicates"]] == [
        ["2.png", "larger.png"]
    ]
    assert [[Path(name).parent.name for name in pair] for pair in values["label_conflicts"]] == [["lily", "rose"]]
    assert values["width"] == {"least": 40, "median": 40, "most": 200}

    severities = [problem.severity for problem in report.problems]
    assert severities == sorted(severities, key=list(Severity).index)
    text = " | ".join(problem.message for problem in report.problems)
    assert text.index("is damaged") < text.index("under another label")  # of which there may be hundreds
    for part in (
        "class 'poppy' has 1 image; learned, but nothing can be said of how well",
        "class 'weed' would vanish: its only image cannot be read",
        "class 'lily' has 42 images, 'poppy' 1",
        "under another label",
        "1 file is not an image (.txt)",
    ):
        assert part in text


def test_the_table_shows_classes_and_problems(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "[flowers]", {"lily": 3, "rose": 6})
    console = Console(width=160, record=True, file=(tmp_path / "out").open("w"))
    console.print(check(root).table())
    text = console.export_text()
    assert "[flowers]/" in text.replace("\n", "")
    assert "class 'lily' has 3 images, too few to spare any for a test" in text
    assert "40 to 40, median 40" in text


@pytest.mark.parametrize(
    ("classes", "severity", "message"),
    [
        ({"a": 5}, Severity.ERROR, "only one class, 'a'; a classifier needs at least two"),
        ({"a": 5, "b": 2}, Severity.WARNING, "class 'b' has 2 images, too few to spare any for a test"),
        ({"a": 4, "b": 40}, Severity.WARNING, "class 'b' has 40 images, 'a' 4; accuracy will hide the small class"),
    ],
)
def test_classes_are_judged(classes: dict[str, int], severity: Severity, message: str, tmp_path: Path) -> None:
    assert messages(make_folder(tmp_path, classes), severity) == [message]


def said(root: Path) -> str:
    return " | ".join(problem.message.replace(f"{root}/", "") for problem in check(root).problems)


def test_many_classes_of_one_fault_are_one_line_with_examples(tmp_path: Path) -> None:
    few = check(make_folder(tmp_path / "few", {f"kind {n:02}": 2 for n in range(40)})).problems
    assert [problem.message for problem in few] == [
        "40 of 40 classes have 2 or 3 images ('kind 00', 'kind 01', 'kind 02', …), too few to spare any for a test"
    ]
    one = check(make_folder(tmp_path / "one", {f"kind {n:02}": 1 for n in range(40)})).problems
    assert [problem.severity for problem in one] == [Severity.WARNING]
    assert one[0].message.startswith("40 of 40 classes have 1 image ('kind 00', ")


def test_vanished_classes_are_first_and_counted(tmp_path: Path) -> None:
    root = make_folder(tmp_path, {"cat": 3, "dog": 3, **{f"gone {n}": 1 for n in range(6)}})
    for n in range(6):
        (root / f"gone {n}" / "0.png").write_bytes(b"")
    problems = check(root).problems
    assert ["would vanish" in problem.message for problem in problems[:5]] == [True] * 4 + [False]
    assert problems[3].message == "3 more classes would vanish (gone 3, gone 4, gone 5)"


def test_many_images_under_two_labels_are_one_line(tmp_path: Path) -> None:
    root = make_folder(tmp_path, {"cat": 6, "dog": 6})
    for n in range(5):
        picture(n).save(root / "dog" / f"again{n}.png")
    messages = [problem.message for problem in check(root).problems]
    assert len(messages) == 1
    assert messages[0].startswith("5 images are there again under another label (")
    assert messages[0].count("again") == 1 + 3
    assert len(check(root).label_conflicts) == 5
    assert check(root).lookalike_conflicts == []  # those are listed already


def test_a_copy_without_a_label_contradicts_nobody(tmp_path: Path) -> None:
    root = make_folder(tmp_path, {"cat": 3, "dog": 3})
    picture(0).save(root / "stray.png")
    report = check(root)
    assert report.exact_duplicates and report.label_conflicts == report.lookalike_conflicts == []


def detailed(number: int, size: int = 64) -> Image.Image:
    """A picture with as much detail as a photograph has."""
    noise = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC)


def test_one_picture_in_two_classes_or_in_the_test_is_counted(tmp_path: Path) -> None:
    for n in range(8):
        for label, number in (("cat", n), ("dog", 100 + n)):
            (tmp_path / "a" / label).mkdir(parents=True, exist_ok=True)
            detailed(number).save(tmp_path / "a" / label / f"{n}.png")
    assert said(tmp_path / "a") == ""
    for n in range(4):
        detailed(n, 96).save(tmp_path / "a" / "dog" / f"copy{n}.jpg")
    assert "8 images look like one of another class (cat/0.png and dog/copy0.jpg; cat/1.png and" in said(tmp_path / "a")
    listed = check(tmp_path / "a").to_json()["lookalike_conflicts"]
    assert {tuple(Path(name).name for name in pair) for pair in listed} == {
        (f"{n}.png", f"copy{n}.jpg") for n in range(4)
    }
    for n in range(3):
        for label, number in (("cat", 200 + n), ("dog", 300 + n)):
            for split in ("train", "test"):
                (tmp_path / "b" / split / label).mkdir(parents=True, exist_ok=True)
            detailed(number).save(tmp_path / "b" / "train" / label / f"{n}.png")
            detailed(number + 50).save(tmp_path / "b" / "test" / label / f"{n}.png")
    detailed(200, 96).save(tmp_path / "b" / "test" / "cat" / "leak.png")
    detailed(301).save(tmp_path / "b" / "test" / "dog" / "leak.png")
    assert "2 images of its test are in another split too (test/cat/leak.png, test/dog/leak.png)" in said(
        tmp_path / "b"
    )


def test_classes_that_colour_tells_apart_are_said_by_check_and_search(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "a", {"cat": 5})
    make_folder(root, {"dog": 5}, mode="L", first=20)
    what = "all images of class 'dog' are greyscale, and those of 'cat' in colour"
    assert what in said(root)
    assert any(what in problem.message for problem in Task(root).problems)
    mixed = make_folder(tmp_path / "b", {"cat": 5, "dog": 5})
    make_folder(mixed, {"cat/x": 2, "dog/x": 2}, mode="L", first=40)
    assert "greyscale" not in said(mixed)


def test_roles_that_colour_tells_apart_are_said(tmp_path: Path) -> None:
    target = make_folder(tmp_path / "a", {"cat": 4, "dog": 4})
    grey = make_folder(tmp_path / "b", {"cat": 4, "dog": 4}, mode="L", first=20)
    what = "all images of source domain b are greyscale, and those of the target in colour"
    assert any(what in problem.message for problem in Task(target, [grey]).problems)
    told = [problem.message for problem in Task(None, [target], grey).problems]
    assert any("all images of the unlabelled set are greyscale, and those of source domain a in" in one for one in told)
    assert not any("greyscale" in problem.message for problem in Task(target, [target]).problems)


def test_classes_that_the_test_lacks_are_said(tmp_path: Path) -> None:
    root = make_folder(tmp_path, {"train/cat": 4, "train/dog": 4, "train/bird": 4, "test/cat": 2, "test/dog": 2})
    what = "class 'bird' has no image in the test, which says nothing of them"
    assert what in said(root)
    assert any(what in problem.message for problem in Task(root).problems)


def test_classes_that_are_numbers_are_an_information(tmp_path: Path) -> None:
    report = check(make_folder(tmp_path, {"0": 4, "1": 4, "2": 4}))
    assert [(problem.severity, problem.message) for problem in report.problems] == [
        (
            Severity.INFO,
            "its 3 classes are numbers (0, 1, 2), which the model will answer with; give names where there are any",
        )
    ]


def test_unlabelled_images_are_not_judged_by_class(tmp_path: Path) -> None:
    report = check(make_folder(tmp_path, {".": 3}, mode="L"))
    assert report.ok
    assert report.counts == {}
    assert report.greyscale


def test_nothing_but_damaged_images_is_reported_and_an_empty_folder_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError, match="no images found"):
        check(tmp_path)
    (tmp_path / "a" / "x.png").write_bytes(b"")
    report = check(tmp_path)
    assert not report.ok
    assert report.images == 0
    assert "no image can be read; replace the files" in [problem.message for problem in report.problems]
