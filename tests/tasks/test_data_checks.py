from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from raytl.core.errors import UserError
from raytl.tasks import Severity, check
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
        "class 'poppy' has 1 image: it is learned, and nothing can be said of how well",
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
