"""``--group-by``: what images belong together, said by the user, by a column or by what paths say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raytl.core.errors import UserError
from raytl.tasks import LabelledImages, Task, make_task
from raytl.tasks.checks import look
from raytl.tasks.problems import Severity


def write(root: Path, names: Sequence[str]) -> Path:
    rng = np.random.default_rng(list(root.name.encode()))
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(root / name)
    return root


def crossed(origins: Sequence[str], *, classes: Sequence[str] = ("yes", "no"), images: int = 3) -> list[str]:
    """``yes/anna_0.png`` …, of each origin so many images in each class."""
    return [f"{label}/{origin}_{n}.png" for label in classes for origin in origins for n in range(images)]


def grouped(images: LabelledImages | None) -> set[frozenset[str]]:
    """The names of the images of each group, from the folder of their class on."""
    assert images is not None
    groups = np.arange(len(images)) if images.groups is None else images.groups
    names = np.array(["/".join(item.name.split("/")[-2:]) for item in images.items])
    return {frozenset(names[groups == group]) for group in np.unique(groups)}


def by_start(names: Sequence[str], *starts: str) -> set[frozenset[str]]:
    return {frozenset(name for name in names if name.split("/")[1].startswith(start)) for start in starts}


class TestWays:
    def test_what_a_pattern_finds_in_the_path(self, tmp_path: Path) -> None:
        names = crossed(["p1-a", "p1-b", "p2-a", "p2-b"])
        task = Task(write(tmp_path / "photos", names), group_by=r"(p\d+)-")
        assert grouped(task.data.target) == by_start(names, "p1", "p2")
        (said,) = [p for p in task.problems if "--group-by" in p.message]
        assert said.severity is Severity.INFO and "2 groups (p1, p2)" in said.message and said.leading
        assert not [p for p in task.problems if "origin" in p.message]

    def test_the_path_begins_in_what_was_given(self, tmp_path: Path) -> None:
        """``patient7`` above the data would make one group of all."""
        names = crossed(["patient1", "patient2"])
        root = write(tmp_path / "patient7" / "photos", names)
        assert grouped(Task(root, group_by=r"patient(\d+)").data.target) == by_start(names, "patient1", "patient2")
        (tmp_path / "t.csv").write_text("\n".join(["path,label", *(f"{n},{n.split('/')[0]}" for n in names)]))
        task = Task(tmp_path / "t.csv", images=root, group_by=r"patient(\d+)")
        assert grouped(task.data.target) == by_start(names, "patient1", "patient2")

    def test_several_brackets_tell_together(self, tmp_path: Path) -> None:
        names = crossed([f"s{s}_{day}_c{c}" for s in (1, 2) for day in ("mo", "tu") for c in (1, 2)])
        task = Task(write(tmp_path / "photos", names), group_by=r"(s\d)_.*_(c\d)")
        expected = {
            frozenset(name for name in names if f"s{s}_" in name and f"_c{c}_" in name) for s in (1, 2) for c in (1, 2)
        }
        assert grouped(task.data.target) == expected

    def test_the_folder_that_each_image_lies_in(self, tmp_path: Path) -> None:
        names = [f"{label}/{who}/{n}.png" for label in ("yes", "no") for who in ("anna", "bo") for n in range(3)]
        pool = write(tmp_path / "new", [f"{who}/{n}.png" for who in ("cy", "di") for n in range(3)])
        task = Task(write(tmp_path / "words", names), unlabelled=pool, split="none", group_by="folder")
        images = task.data.target
        assert images is not None and images.groups is not None
        who = np.array([item.name.split("/")[-2] for item in images.items])
        assert {frozenset(who[images.groups == group]) for group in np.unique(images.groups)} == {
            frozenset({"anna"}),
            frozenset({"bo"}),
        }
        assert [p for p in task.problems if p.where == f"{pool}/" and "2 groups (cy, di)" in p.message]

    @pytest.mark.parametrize("column", ["visit", "Visit (day)"])
    def test_a_column_rather_than_the_usual_one(self, tmp_path: Path, column: str) -> None:
        names = write(tmp_path, crossed(["a", "b"])) and crossed(["a", "b"])
        rows = [f"{name},{name.split('/')[0]},p{number},{name[-5]}" for number, name in enumerate(names)]
        (tmp_path / "t.csv").write_text("\n".join([f"path,label,patient,{column}", *rows]))
        task = Task(tmp_path / "t.csv", group_by=column)
        assert grouped(task.data.target) == {frozenset(n for n in names if n[-5] == day) for day in "012"}
        assert not [p for p in task.problems if "'patient'" in p.message]

    def test_a_column_of_the_table_beside_class_folders(self, tmp_path: Path) -> None:
        names = crossed(["a", "b"])
        write(tmp_path / "photos", names)
        rows = [f"{name},{name[-5]}" for name in names]
        (tmp_path / "photos" / "who.csv").write_text("\n".join(["path,taken_by", *rows]))
        task = Task(tmp_path / "photos", group_by="taken_by")
        assert grouped(task.data.target) == {frozenset(n for n in names if n[-5] == day) for day in "012"}

    def test_a_pattern_rather_than_a_column_of_groups(self, tmp_path: Path) -> None:
        names = crossed(["a", "b"])
        write(tmp_path, names)
        rows = [f"{name},{name.split('/')[0]},{name[-5]}" for name in names]
        (tmp_path / "t.csv").write_text("\n".join(["path,label,group", *rows]))
        assert grouped(Task(tmp_path / "t.csv", group_by=r"([ab])_\d").data.target) == by_start(names, "a", "b")

    def test_none_for_each_image_on_its_own(self, tmp_path: Path) -> None:
        names = crossed(["patient1", "patient2"])
        root = write(tmp_path / "photos", names)
        assert len(grouped(Task(root).data.target)) == 2
        task = Task(root, group_by="none")
        assert task.data.target is not None and task.data.target.groups is None
        assert not [p for p in task.problems if "patient" in p.message]

    def test_copies_stay_together_all_the_same(self, tmp_path: Path) -> None:
        names = crossed(["a", "b", "c"])
        root = write(tmp_path / "photos", names)
        (root / "yes" / "a_0.png").write_bytes((root / "yes" / "b_0.png").read_bytes())
        assert grouped(Task(root, group_by=r"(\w)_").data.target) == {
            frozenset(n for n in names if "c_" in n),
            frozenset(n for n in names if "c_" not in n),
        }


class TestMistakes:
    @pytest.mark.parametrize(
        ("wish", "said"),
        [
            (r"patient(\d+", "not a regular expression"),
            (r"patient(?:\d+)", "round brackets"),
            (r"patient(\d+)", "finds nothing in 12 paths"),
            ("patient", "column of that name"),
            (r"(png)", "all 12 images are one group (png)"),
            (r"^(.+)$", "every image is a group of its own"),
            (r"^(\w+)/", "every class is one group alone (no, yes)"),
            ("folder", "every class is one group alone (no, yes)"),
        ],
    )
    def test_are_one_sentence(self, tmp_path: Path, wish: str, said: str) -> None:
        root = write(tmp_path / "photos", crossed(["anna", "bo"]))
        for action in (lambda: Task(root, group_by=wish), lambda: look(root, group_by=wish)):
            with pytest.raises(UserError) as raised:
                action()
            assert said in str(raised.value) and "--group-by" in str(raised.value)
            assert "\n" not in str(raised.value)

    def test_no_such_column_names_those_there_are(self, tmp_path: Path) -> None:
        names = crossed(["a", "b"])
        write(tmp_path, names)
        rows = [f"{name},{name.split('/')[0]},{name[-5]}" for name in names]
        (tmp_path / "t.csv").write_text("\n".join(["path,label,visit", *rows]))
        with pytest.raises(UserError, match=r"no column 'vist' among .*did you mean 'visit'"):
            Task(tmp_path / "t.csv", group_by="vist")

    def test_a_pattern_for_images_without_paths(self, tmp_path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = crossed(["a", "b"])
        write(tmp_path, names)
        table = {"image": [(tmp_path / n).read_bytes() for n in names], "label": [n.split("/")[0] for n in names]}
        pq.write_table(pa.table(table), tmp_path / "t.parquet")
        with pytest.raises(UserError, match="no paths; name a column"):
            Task(tmp_path / "t.parquet", group_by=r"(\w)_")

    def test_some_without_a_group_are_alone_and_warned_of(self, tmp_path: Path) -> None:
        names = [*crossed(["anna", "bo"]), "yes/77.png", "no/78.png"]
        task = Task(write(tmp_path / "photos", names), group_by=r"/([a-z]+)_")
        assert grouped(task.data.target) == by_start(names, "anna", "bo", "77", "78")
        (said,) = [p for p in task.problems if "--group-by" in p.message]
        assert said.severity is Severity.WARNING and "2 images, of which it says nothing, are alone" in said.message

    def test_a_pattern_that_finds_the_name_of_a_class_is_warned_of(self, tmp_path: Path) -> None:
        names = crossed(["vkal", "vslt"], classes=("seven", "yes"))
        root = write(tmp_path / "words", names)
        said = [
            p.message for p in Task(root, group_by="v([a-z]+)").problems if "class 'seven' is group en" in p.message
        ]
        assert len(said) == 1 and "begin the pattern with /" in said[0]
        task = Task(root, group_by="/v([a-z]+)")
        assert grouped(task.data.target) == by_start(names, "vkal", "vslt")
        assert not [p for p in task.problems if "begin the pattern" in p.message]

    def test_images_in_memory_have_groups_of_their_own(self, tmp_path: Path) -> None:
        images = Task(write(tmp_path / "photos", crossed(["anna", "bo"]))).data.target
        assert images is not None
        with pytest.raises(UserError, match="in memory"):
            Task(images, group_by="folder")


class TestRoles:
    def test_images_of_the_tests_groups_leave_the_others(self, tmp_path: Path) -> None:
        target = write(tmp_path / "words", crossed(["anna", "bo", "cy"]))
        test = write(tmp_path / "test", crossed(["cy", "di"]))
        pool = write(tmp_path / "new", [f"{who}_{n}.png" for who in ("cy", "ed") for n in range(3)])
        domain = write(tmp_path / "old", crossed(["di", "flo"]))
        task = Task(target, domain, pool, test, group_by=r"([a-z]+)_\d")
        data = task.data
        assert data.target is not None and data.unlabelled is not None
        assert {item.name.split("/")[-1][:2] for item in data.target.items} == {"an", "bo"}
        assert {item.name.split("/")[-1][:2] for item in data.unlabelled.items} == {"ed"}
        assert {item.name.split("/")[-1][:2] for item in data.source_domains["old"].items} == {"fl"}

    def test_other_roles_may_say_nothing_of_it(self, tmp_path: Path) -> None:
        target = write(tmp_path / "words", crossed(["anna", "bo"]))
        test = write(tmp_path / "test", [f"{label}/{n}.png" for label in ("yes", "no") for n in range(4)])
        pool = write(tmp_path / "new", [f"{n}.png" for n in range(5)])
        domain = write(tmp_path / "old", crossed(["di"]))
        task = Task(target, domain, pool, test, group_by=r"([a-z]+)_\d")
        assert task.data.unlabelled is not None and len(task.data.unlabelled) == 5
        assert task.data.source_domains["old"].groups is None
        said = {p.where.rsplit("/", 2)[-2]: p.severity for p in task.problems if "is not heard here" in p.message}
        assert said == {"test": Severity.WARNING, "new": Severity.INFO, "old": Severity.INFO}

    def test_groups_of_the_target_and_of_the_images_without_labels_have_one_number(self, tmp_path: Path) -> None:
        target = write(tmp_path / "words", crossed(["anna", "bo"]))
        pool = write(tmp_path / "new", [f"{who}_{n}.png" for who in ("aa", "anna", "cy") for n in range(3)])
        data = Task(target, unlabelled=pool, group_by=r"([a-z]+)_\d").data
        assert data.target is not None and data.unlabelled is not None
        of_target, of_pool = (
            {Path(item.name).name.split("_")[0]: group for item, group in zip(own.items, own.groups, strict=True)}
            for own in (data.target, data.unlabelled)
        )
        assert set(of_target) == {"anna", "bo"} and set(of_pool) == {"aa", "anna", "cy"}
        assert of_target["anna"] == of_pool["anna"]
        assert len({*of_target.values(), *of_pool.values()}) == 4

    def test_a_column_of_the_targets_table_is_not_missed_in_a_folder_without_any(self, tmp_path: Path) -> None:
        root = write(tmp_path / "words", [f"{n}.png" for n in range(12)])
        rows = "".join(f"{n}.png,{'yes' if n % 2 else 'no'},p{n // 4}\n" for n in range(12))
        (root / "labels.csv").write_text(f"path,label,patient\n{rows}")
        pool = write(tmp_path / "new", [f"{n}.png" for n in range(5)])

        def missed(pool: Path) -> bool:
            task = Task(root / "labels.csv", unlabelled=pool, group_by="patient")
            assert task.data.target is not None and len(np.unique(task.data.target.groups)) == 3
            return any("is not heard here" in problem.message for problem in task.problems)

        assert not missed(pool)
        (pool / "list.csv").write_text("path,age\n0.png,3\n1.png,4\n2.png,5\n")
        assert missed(pool) and missed(pool / "list.csv")

    def test_what_belongs_together_without_target_labels(self, tmp_path: Path) -> None:
        names = crossed(["anna", "bo"])
        pool = write(tmp_path / "new", [f"{n}.png" for n in range(5)])
        task = Task(None, write(tmp_path / "old", names), pool, group_by=r"([a-z]+)_\d")
        assert grouped(task.data.source_domains["old"]) == by_start(names, "anna", "bo")

    def test_check_looks_as_a_search_does(self, tmp_path: Path) -> None:
        root = write(tmp_path / "words", crossed(["anna", "bo"]))
        assert [p for p in look(root).report.problems if "anna" in p.message and p.severity is Severity.WARNING]
        found = look(root, group_by=r"([a-z]+)_\d")
        assert grouped(found.images) == grouped(Task(root, group_by=r"([a-z]+)_\d").data.target)
        assert not [p for p in found.report.problems if p.severity is not Severity.INFO and "anna" in p.message]


def test_a_task_made_again_has_the_groups(tmp_path: Path) -> None:
    names = crossed(["p1-a", "p1-b", "p2-a", "p2-b"])
    task = Task(write(tmp_path / "photos", names), group_by=r"(p\d+)-")
    assert task.given is not None
    assert grouped(make_task(task.given).data.target) == grouped(task.data.target) == by_start(names, "p1", "p2")
