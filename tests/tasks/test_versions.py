"""Images named as versions of one picture stay together, unless the name is one that any photograph may have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raytl.tasks import Task
from raytl.tasks.checks import check
from raytl.tasks.problems import Severity
from raytl.tasks.splits import plan_folds


def write(root: Path, pictures: Mapping[str, int], *, alike: bool, named: str = "{name}_jpg.rf.{code}.png") -> Path:
    """So many images of each picture, by ``CLASS/NAME``. alike: whether they look like one picture."""
    rng = np.random.default_rng(0)
    for picture, count in pictures.items():
        folder, name = (root / picture).parent, Path(picture).name
        folder.mkdir(parents=True, exist_ok=True)
        own = rng.integers(0, 255, (8, 8, 3))
        for number in range(count):
            shown = own if alike else rng.integers(0, 255, (8, 8, 3))
            noisy = np.clip(np.kron(shown, np.ones((4, 4, 1))) + rng.normal(0, 25, (32, 32, 3)), 0, 255)
            turned = np.roll(noisy, 2 * number % 6, axis=1).astype(np.uint8)
            Image.fromarray(turned).save(folder / named.format(name=name, code=f"a{number:031x}", number=number))
    return root


def groups_in(task: Task) -> int:
    """How many groups the labelled images of a task are of."""
    target = task.data.target
    assert target is not None
    return len(target) if target.groups is None else len(np.unique(target.groups))


def warned(task: Task) -> list[str]:
    return [p.message for p in task.problems if "each counts as its own" in p.message]


def of_splits(pictures: Mapping[str, int]) -> dict[str, int]:
    """The pictures in the folders that Roboflow exports; those of validation and test are of a third of the images."""
    shares = {"train": 1, "valid": 3, "test": 3}
    return {
        f"{split}/{picture}": count // share for split, share in shares.items() for picture, count in pictures.items()
    }


@pytest.mark.parametrize("name", ["image", "IMG", "WhatsApp-Image"])
def test_photographs_that_are_all_called_alike_are_each_their_own(tmp_path: Path, name: str) -> None:
    task = Task(write(tmp_path / "phones", of_splits({f"ok/{name}": 24, f"bad/{name}": 24}), alike=False))
    target = task.data.target
    assert target is not None
    assert len(target) == groups_in(task) == 64
    assert plan_folds(target.labels, target.groups) == (5, 2)
    (said,) = [p for p in task.problems if "each counts as its own" in p.message]
    assert said.severity is Severity.WARNING
    assert f"64 images are named like versions of one picture ('{name}')" in said.message
    assert "--group-by" in said.message
    assert not any("stay on one side" in p.message for p in task.problems)
    assert said.message in {p.message for p in check(tmp_path / "phones").problems}


def test_a_class_with_one_such_name_is_validated_however_few_images_it_has(tmp_path: Path) -> None:
    task = Task(
        write(
            tmp_path / "few", {"train/ok/image": 6, "train/bad/image": 6, "test/ok/a": 2, "test/bad/b": 2}, alike=False
        )
    )
    assert groups_in(task) == 12
    assert len(warned(task)) == 1


def test_versions_of_other_pictures_stay_together_beside_it(tmp_path: Path) -> None:
    pictures = {"ok/image": 12, **{f"bad/IMG_{n}": 3 for n in range(4)}}
    task = Task(write(tmp_path / "mixed", pictures, alike=False))
    assert groups_in(task) == 12 + 4
    assert any(
        "12 images are named like versions" in p.message and "stay on one side" in p.message for p in task.problems
    )
    assert "12 images are named like versions of one picture ('image')" in warned(task)[0]


def test_a_name_among_others_is_told_by_its_looks(tmp_path: Path) -> None:
    others = {f"{label}/IMG_{n}": 2 for label in ("ok", "bad") for n in range(10)}
    task = Task(write(tmp_path / "unlike", {"ok/image": 20, "bad/image": 4, **others}, alike=False))
    assert groups_in(task) == 24 + 20
    assert "24 images" in warned(task)[0]
    task = Task(write(tmp_path / "alike", {"ok/image": 20, "bad/image": 4, **others}, alike=True))
    assert groups_in(task) == 2 + 20
    assert not warned(task)


@pytest.mark.parametrize(
    ("named", "count"),
    [("{name}_aug{number}.png", 8), ("{name}_jpg.rf.{code}.png", 8), ("{name}_jpg.rf.{code}.png", 30)],
)
@pytest.mark.parametrize("splits", [False, True])
def test_versions_of_numbered_pictures_stay_together_whatever_was_done_to_them(
    tmp_path: Path, named: str, count: int, splits: bool
) -> None:
    pictures = {f"{label}/IMG_{n}": count for label in ("ok", "bad") for n in range(2)}
    task = Task(write(tmp_path / "photos", of_splits(pictures) if splits else pictures, alike=False, named=named))
    assert groups_in(task) == (8 if splits else 4)
    assert not warned(task)


def test_a_few_versions_of_a_picture_with_a_word_for_a_name_stay_together(tmp_path: Path) -> None:
    pictures = {f"{label}/{name}": 3 for label in ("ok", "bad") for name in ("anna", "bo", "carl")}
    task = Task(write(tmp_path / "few", pictures, alike=False))
    assert groups_in(task) == 6
    assert not warned(task)


def test_versions_beside_what_they_were_made_of_stay_together(tmp_path: Path) -> None:
    pictures = {f"{label}/{name}": 12 for label in ("ok", "bad") for name in ("anna", "bo")}
    place = write(tmp_path / "beside", pictures, alike=False, named="{name}_{number}_flip.png")
    write(place, dict.fromkeys(pictures, 1), alike=False, named="{name}.png")
    task = Task(place)
    assert groups_in(task) == 4
    assert not warned(task)


def test_many_versions_of_a_picture_with_a_word_for_a_name_stay_together_where_they_look_it(tmp_path: Path) -> None:
    names = [f"{a}{b}" for a in "abcdefgh" for b in "abcdefgh"]
    task = Task(
        write(
            tmp_path / "some",
            {f"{'ok' if n % 2 else 'bad'}/{name}": 12 for n, name in enumerate(names[:8])},
            alike=True,
        )
    )
    assert groups_in(task) == 8
    task = Task(
        write(
            tmp_path / "many", {f"{'ok' if n % 2 else 'bad'}/{name}": 11 for n, name in enumerate(names)}, alike=True
        ),
        holdout=0,
    )
    assert groups_in(task) == 64
    assert not warned(task)


def test_many_names_that_are_words_are_pictures_own(tmp_path: Path) -> None:
    """Whatever was done to their images; photographs are called alike in a few ways."""
    pictures = {
        f"{label}/{name}": 12 for label in ("ok", "bad") for name in ("anna", "bo", "carl", "dora", "emil", "fay")
    }
    task = Task(write(tmp_path / "words", pictures, alike=False))
    assert groups_in(task) == 12
    assert not warned(task)


def test_who_says_what_belongs_together_is_not_asked(tmp_path: Path) -> None:
    place = write(tmp_path / "said", of_splits({"ok/image": 24, "bad/image": 24}), alike=False)
    task = Task(place, group_by=r"(ok|bad)/image_jpg\.rf\.a0{30}(.)")
    assert not warned(task)
