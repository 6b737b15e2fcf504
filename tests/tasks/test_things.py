"""Several images of one thing, by names and looks, stay together; kinds that are numbered do not."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from raytl.tasks import Task
from raytl.tasks.checks import check
from raytl.tasks.problems import Severity


def write(root: Path, things: dict[str, list[str]], *, alike: bool, images: int = 3, sep: str = "_") -> Path:
    """``root/CLASS/THING_1.png`` …; alike: whether images of a thing share its colours."""
    rng = np.random.default_rng(0)
    for label, names in things.items():
        (root / label).mkdir(parents=True)
        for thing in names:
            own = rng.integers(0, 255, (8, 8, 3))
            for number in range(1, images + 1):
                shown = own if alike else rng.integers(0, 255, (8, 8, 3))
                noisy = np.clip(np.kron(shown, np.ones((4, 4, 1))) + rng.normal(0, 25, (32, 32, 3)), 0, 255)
                turned = np.roll(noisy, 2 * number, axis=1).astype(np.uint8)
                Image.fromarray(turned).save(root / label / f"{thing}{sep}{number}.png")
    return root


WORDS = {"ok": ["bolt", "nut", "gear", "pin"], "defect": ["washer", "screw", "spring", "ring"]}
NUMBERED = {"ok": [f"part{n}" for n in range(4)], "defect": [f"part{n}" for n in range(4, 8)]}


@pytest.mark.parametrize("sep", ["_", "-", " ", "."])
def test_images_of_a_thing_that_look_it_stay_together(tmp_path: Path, sep: str) -> None:
    task = Task(write(tmp_path / "parts", WORDS, alike=True, sep=sep))
    assert task.data.target is not None
    assert task.data.target.groups is not None
    assert len(np.unique(task.data.target.groups)) == 8
    (said,) = [p for p in task.problems if "one thing" in p.message]
    assert said.severity is Severity.INFO
    assert "24 images" in said.message
    assert "look it" in said.message
    assert said.message in {p.message for p in check(tmp_path / "parts").problems}


def test_numbers_of_things_are_believed_where_looks_say_nothing(tmp_path: Path) -> None:
    task = Task(write(tmp_path / "parts", NUMBERED, alike=False))
    assert task.data.target is not None
    assert task.data.target.groups is not None
    assert len(np.unique(task.data.target.groups)) == 8


def test_words_alone_are_warned_of(tmp_path: Path) -> None:
    task = Task(write(tmp_path / "flowers", WORDS, alike=False))
    assert task.data.target is not None
    assert task.data.target.groups is None
    (said,) = [p for p in task.problems if "one thing" in p.message]
    assert said.severity is Severity.WARNING
    assert "--group-by" in said.message


@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize(
    ("things", "images"),
    [
        ({"cat": ["cat"], "dog": ["dog"]}, 6),  # numbers within the class
        ({"cat": ["IMG", "DSC"], "dog": ["IMG", "DSC"]}, 20),  # of cameras, one of which takes brighter pictures
        ({"cat": ["2024"], "dog": ["img12"]}, 6),  # all of one: told apart from nothing
        ({"flower": ["rose", "tulip"], "animal": ["cat", "dog"]}, 6),  # kinds
        ({"bad": ["scratch", "dent", "stain"], "good": ["good"]}, 20),
    ],
)
def test_numbered_images_of_kinds_are_no_things(
    tmp_path: Path, things: dict[str, list[str]], images: int, alike: bool
) -> None:
    task = Task(write(tmp_path / "kinds", things, alike=alike, images=images))
    assert task.data.target is not None
    assert task.data.target.groups is None
    assert not [p for p in task.problems if "one thing" in p.message]


def in_heap(root: Path) -> Path:
    """The same images in one folder, with a table of their labels."""
    rows = [f"all/{path.name},{path.parent.name}" for path in sorted(root.rglob("*.png"))]
    (root / "all").mkdir()
    for path in sorted(root.rglob("*.png")):
        path.rename(root / "all" / path.name)
    (root / "labels.csv").write_text("\n".join(["path,label", *rows]))
    return root / "labels.csv"


@pytest.mark.parametrize("heap", [False, True])
@pytest.mark.parametrize(("things", "alike"), [(WORDS, True), (NUMBERED, True), (NUMBERED, False)])
def test_a_thing_in_two_classes_is_one_and_said(
    tmp_path: Path, things: dict[str, list[str]], alike: bool, heap: bool
) -> None:
    root = write(tmp_path / "parts", things, alike=alike)
    moved = things["ok"][1]
    (root / "ok" / f"{moved}_3.png").rename(root / "defect" / f"{moved}_3.png")
    place = in_heap(root) if heap else root
    target = Task(place).data.target
    assert target is not None
    assert target.groups is not None
    names = [Path(item.name).stem for item in target.items]
    own = {int(group) for name, group in zip(names, target.groups, strict=True) if name.startswith(f"{moved}_")}
    seen = heap or alike  # names alone are believed in one folder, as two may each number their own
    assert len(own) == (1 if seen else 2)
    assert len(np.unique(target.groups)) == (8 if seen else 9)
    told = (
        f"1 thing has images of several classes ({moved}_3.png is 'defect', {moved}_1.png is 'ok'): "
        "correct the labels, unless it is of both"
    )
    for problems in (Task(place).problems, check(place).problems):
        assert [p.message for p in problems if "several classes" in p.message] == [told] * seen


def test_classes_that_number_their_own_have_things_of_their_own(tmp_path: Path) -> None:
    things = {"ok": [f"part{n}" for n in range(8)], "defect": [f"part{n}" for n in range(7, 15)]}
    task = Task(write(tmp_path / "parts", things, alike=True))
    assert task.data.target is not None
    assert task.data.target.groups is not None
    assert len(np.unique(task.data.target.groups)) == 16
    assert not [p for p in task.problems if "several classes" in p.message]


def test_a_class_of_one_thing_is_validated_all_the_same(tmp_path: Path) -> None:
    task = Task(write(tmp_path / "parts", {"ok": ["bolt", "nut", "gear", "pin"], "defect": ["washer"]}, alike=True))
    target = task.data.target
    assert target is not None
    assert target.groups is not None
    washers = target.labels == target.classes.index("defect")
    assert len(np.unique(target.groups[washers])) == 3
    assert len(np.unique(target.groups[~washers])) == 4


def test_groups_that_are_given_are_the_groups(tmp_path: Path) -> None:
    root = write(tmp_path / "parts", WORDS, alike=True)
    rows = [f"{path},{path.parent.name},{n % 6}" for n, path in enumerate(sorted(root.rglob("*.png")))]
    (tmp_path / "t.csv").write_text("\n".join(["path,label,group", *rows]))
    target = Task(tmp_path / "t.csv").data.target
    assert target is not None
    assert target.groups is not None
    assert len(np.unique(target.groups)) == 6


def test_the_first_of_copies_has_no_number(tmp_path: Path) -> None:
    root = write(tmp_path / "parts", WORDS, alike=True, sep=" (")
    for path in sorted(root.rglob("*.png")):
        thing, _, number = path.stem.rpartition(" (")
        path.rename(path.with_name(f"{thing}.png" if number == "1" else f"{thing} ({number}).png"))
    target = Task(root).data.target
    assert target is not None
    assert target.groups is not None
    assert len(np.unique(target.groups)) == 8


def test_a_version_of_a_picture_takes_nothing_from_the_things(tmp_path: Path) -> None:
    root = write(tmp_path / "parts", NUMBERED, alike=True)
    Image.open(root / "ok" / "part1_1.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(
        root / "ok" / "part1_1_flip.png"
    )
    target = Task(root).data.target
    assert target is not None
    assert target.groups is not None
    assert len(np.unique(target.groups)) == 8


def test_a_warning_that_nothing_is_kept_together_is_taken_back_where_it_is(tmp_path: Path) -> None:
    things = {"ok": ["patient1"], "bad": [f"patient{n}" for n in range(2, 9)]}
    task = Task(write(tmp_path / "patients", things, alike=True))
    assert [p for p in task.problems if "one thing" in p.message]
    assert not [p for p in task.problems if "not kept together" in p.message]
    assert not [p for p in check(tmp_path / "patients").problems if "not kept together" in p.message]


def test_rows_of_shards_are_no_things(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (96, 8, 8, 3), dtype=np.uint8)
    rows = []
    for n, image in enumerate(pixels):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        rows.append({"image": {"bytes": buffer.getvalue(), "path": None}, "label": f"class {n % 4}"})
    for shard in range(4):
        table = pa.Table.from_pylist(rows[24 * shard : 24 * (shard + 1)])
        pq.write_table(table, tmp_path / f"train-0000{shard}-of-00004.parquet")
    task = Task(tmp_path)
    assert task.data.target is not None
    assert task.data.target.groups is None


def test_a_given_test_of_the_same_things_is_warned_of(tmp_path: Path) -> None:
    root = write(tmp_path / "parts", NUMBERED, alike=True, images=4)
    for path in sorted(root.rglob("*_4.png")):
        (tmp_path / "held" / path.parent.name).mkdir(parents=True, exist_ok=True)
        path.rename(tmp_path / "held" / path.parent.name / path.name)
    task = Task(root, test=tmp_path / "held")
    (said,) = [p for p in task.problems if "does not tell of new things" in p.message]
    assert said.severity is Severity.WARNING
    assert "8 images are" in said.message
    others = write(tmp_path / "others", {"ok": ["part20", "part21"], "defect": ["part22", "part23"]}, alike=True)
    assert not [p for p in Task(root, test=others).problems if "new things" in p.message]
