"""Labels out of the files' names."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raytl.core.errors import UserError
from raytl.tasks import Task, check
from raytl.tasks.readers.file_names import Spoken, crossed, read_by, spoken
from tests.tasks.pictures import make_folder, picture

WORDS = st.from_regex(r"[a-z]{2,6}(_[a-z]{2,5})?", fullmatch=True)


def heap(root: Path, names: list[str], first: int = 0) -> Path:
    """Images of these names, all different."""
    for number, name in enumerate(names, first):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(root / name)
    return root


def numbered(pattern: str, labels: tuple[str, ...] = ("cat", "dog"), count: int = 3) -> list[str]:
    return [pattern.format(label=label, n=n + 10 * k) for k, label in enumerate(labels) for n in range(count)]


@given(
    st.sets(WORDS, min_size=2, max_size=5),
    st.sampled_from(["{}_{:03}.jpg", "{}.{}.png", "{} ({}).jpeg", "{}-{}_b.png"]),
)
def test_whatever_the_classes_are_called_they_are_found_before_the_number(words: set[str], pattern: str) -> None:
    images = [pattern.format(word, number) for word in words for number in range(3)]
    found = spoken([f"/photos/{name}" for name in images])
    assert found is not None and found.words == sorted(words)
    assert Counter(found.label(name) for name in images) == dict.fromkeys(words, 3)


@pytest.mark.parametrize(
    ("pattern", "labels", "option"),
    [
        ("{label}_{n:03}.png", ("cat", "dog"), "filename"),
        ("{label}.{n}.png", ("cat", "dog"), "filename"),
        ("{n}_{label}.png", ("cat", "dog"), "filename"),
        ("{label} {n}.png", ("american bulldog", "shiba inu"), "filename"),
        ("{label}_00{n}_crop1.png", ("cat", "dog"), "filename"),
        ("{label}_{n}.png", ("type2_sugar", "type2_salt"), "filename"),
        ("{label}_{n}.png", ("c1s", "c2s"), "filename"),
        ("IMG{n}-{label}-x.png", ("a1", "b1"), r"filename:-(\w+)-"),
        ("{label}/pic{n}.png", ("cat", "dog"), None),
    ],
)
def test_labels_are_those_that_the_names_say(
    pattern: str, labels: tuple[str, ...], option: str | None, tmp_path: Path
) -> None:
    task = Task(heap(tmp_path / "photos", numbered(pattern, labels, 4)), label=option)
    assert task.data.target is not None and task.data.target.counts() == dict.fromkeys(labels, 4)


def drums() -> list[str]:
    """Three sounds of three recordings, not each of each, under one number more each."""
    pairs = [("clap", "hall"), ("clap", "tape2"), ("kick", "hall"), ("kick", "tape2"), ("tom", "hall"), ("tom", "desk")]
    return [f"{sound}_{place}_{n:02}.png" for sound, place in pairs for n in range(3)]


SOUND, PLACE = r"([^\W_]+)_[^\W_]+_\d+", r"[^\W_]+_([^\W_]+)_\d+"


def test_parts_of_names_that_come_again_with_each_other_are_offered_each(tmp_path: Path) -> None:
    """As one label they were 'clap_hall', 'clap_tape', and nothing said that sounds are learned six times over."""
    root = heap(tmp_path / "drums", drums())
    (said,) = [problem.message for problem in check(root).problems if "no labels" in problem.message]
    assert f"--label 'filename:{SOUND}' takes 'clap', 'kick', 'tom'" in said
    assert f"--label 'filename:{PLACE}' takes 'desk', 'hall', 'tape2'" in said
    together = check(root, label="filename")
    assert any("which may not be meant" in p.message and SOUND in p.message for p in together.problems)
    apart = Task(root, label=f"filename:{SOUND}", group_by=PLACE, holdout=0)
    assert apart.data.target is not None and apart.data.target.counts() == dict.fromkeys(("clap", "kick", "tom"), 6)
    assert apart.data.target.groups is not None and set(apart.data.target.groups) == {0, 1, 2}
    assert not any("may not be meant" in problem.message for problem in apart.problems)


@pytest.mark.parametrize("made", ["_{}-{} {}", "{}.{}'{}", "{}_{}_{}", "x_{2}_{0}_{1}"])
def test_what_is_offered_finds_its_part_in_every_name(made: str) -> None:
    names = [made.format(*PurePosixPath(name).stem.split("_")) + ".png" for name in drums()]
    for part, place in zip(crossed(names), (0, 1), strict=True):
        found = Spoken("", re.compile(part.pattern.pattern), [])
        assert [found.label(name) for name in names] == [name.split("_")[place] for name in drums()]
        assert "'" not in part.pattern.pattern


@pytest.mark.parametrize(
    "names",
    [
        numbered("{label}_{n}.png", ("american bulldog", "english setter", "shiba inu", "english cocker")),
        [f"{name}_{n}_{how}.png" for name in ("cat", "dog") for n in range(3) for how in ("crop", "flip")],
        [f"{n * 2654435761 % 2**32:08x}_{n * 40503 % 2**16:04x}.png" for n in range(40)],
        numbered("{label}_x_{n}.png"),
        [],
    ],
    ids=["names of two words", "versions after the number", "hashes", "one part", "none"],
)
def test_what_is_one_name_is_not_taken_apart(names: list[str]) -> None:
    assert crossed(names) == []


def test_in_splits_and_in_an_archive(tmp_path: Path) -> None:
    names = [f"{split}/{name}" for split in ("train", "test") for name in numbered("{label}.{n}.png")]
    root = heap(tmp_path / "pets", names)
    packed = shutil.make_archive(str(tmp_path / "pets"), "zip", root)
    for place in (root, Path(packed)):
        task = Task(place, label="filename")
        assert (len(task.data.target or ()), len(task.test or ())) == (6, 6)
        assert any(
            "labels are taken from the files' names, which begin with 'cat', 'dog'" in p.message for p in task.problems
        )


def test_a_name_that_says_nothing_is_counted_and_left_out(tmp_path: Path) -> None:
    root = heap(tmp_path / "photos", [*numbered("{label}_{n}.png"), "cover.png"])
    task = Task(root, label="filename", holdout=0)
    assert len(task.data.target or ()) == 6
    (said,) = [problem.message for problem in task.problems if "left out" in problem.message]
    assert said.startswith("1 image has a name without a label (first: ") and said.endswith("cover.png); left out")


def test_class_folders_of_another_role_are_taken_as_they_are(tmp_path: Path) -> None:
    target = heap(tmp_path / "photos", numbered("{label}_{n}.png"))
    domain = make_folder(tmp_path / "drawings", {"cat": 1, "dog": 1}, first=60)
    named = ["cat/Cat_1.png", "cat/Cat_2.png", "dog/Dog_1.png", "dog/Dog_2.png"]
    for name in named:  # of which the names alone would make other classes
        picture(80 + named.index(name)).save(domain / name)
    test = heap(
        tmp_path / "test", [f"{c}/{n}_{k}.png" for c in ("cat", "dog") for n in ("IMG", "DSC") for k in (1, 2)], 90
    )
    task = Task(target, domain, test=test, label="filename")
    assert task.data.joinable == ("drawings",)
    assert task.data.source_domains["drawings"].counts() == {"cat": 3, "dog": 3}


def test_folders_that_may_be_anything_are_asked_about_and_can_be_passed_over(tmp_path: Path) -> None:
    places = [f"{year}/{month}/" for year in (2023, 2024) for month in ("jan", "feb")]
    root = heap(tmp_path / "photos", [place + name for place in places for name in ("cat_1.png", "dog_2.png")])
    with pytest.raises(UserError, match="pass --split none"):
        Task(root, label="filename")
    target = Task(root, label="filename", split="none", holdout=0).data.target
    assert target is not None and set(target.classes) == {"cat", "dog"}


def test_a_table_keeps_its_column_of_that_name(tmp_path: Path) -> None:
    heap(tmp_path / "photos", [f"{number}.png" for number in range(6)])
    rows = [f"photos/{number}.png,{'cat' if number < 3 else 'dog'}" for number in range(6)]
    (tmp_path / "table.csv").write_text("\n".join(["path,filename", *rows, ""]))
    target = Task(tmp_path / "table.csv", label="filename", holdout=0).data.target
    assert target is not None and target.counts() == {"cat": 3, "dog": 3}


@pytest.mark.parametrize(
    ("names", "option", "sentence"),
    [
        (numbered("{n}.png"), "filename", "the names of its images do not say several labels"),
        (numbered("n0{n}_1.png"), "filename", r"takes the part in brackets, as 'filename:\(\.\+\)_\\d\+' does"),
        (numbered("{label}_{n}.png"), "filename:(", "is not a regular expression"),
        (numbered("{label}_{n}.png"), "filename:cat", "put the part that is the label in brackets"),
        (numbered("{label}_{n}.png"), "filename:(bird)", "do not say several labels"),
        (numbered("{label}_{n}.png"), "filename:(cat)", "only one class, 'cat'"),
        (numbered("{label}_{n}.png"), None, "if these are the labels pass --label filename"),
        (numbered("{label}_{n}.png"), "breed", "there is no table beside its images|the files' names begin with"),
    ],
)
def test_what_cannot_be_read_so_is_one_sentence(
    names: list[str], option: str | None, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=sentence):
        Task(heap(tmp_path / "photos", names), label=option)


def test_a_pattern_may_find_nothing_in_some_names() -> None:
    found = read_by(r"filename:^([a-z]+)_", ["cat_1.png", "dog_2.png", "7.png"])
    assert found is not None and [found.label(name) for name in ("cat_1.png", "7.png")] == ["cat", None]
