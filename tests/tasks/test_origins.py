"""Images of one voice, camera or site in all classes: names tell them, and they stay together where new ones come."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raytl.evaluation import metrics
from raytl.evaluation.intervals import Interval
from raytl.evaluation.probes import fit_logistic
from raytl.judging.estimates import corrected_estimate
from raytl.tasks import Task
from raytl.tasks.checks import check, look
from raytl.tasks.images import Images, LabelledImages
from raytl.tasks.items import FileItem
from raytl.tasks.origins import find_origins, kept_apart, of_one_origin
from raytl.tasks.problems import Severity
from raytl.tasks.splits import folds, plan_folds


def labelled(names: Sequence[str], root: str = "data") -> LabelledImages:
    """Images by ``CLASS/…/NAME``, of which nothing but the names is looked at."""
    classes = tuple(sorted({name.split("/")[0] for name in names}))
    labels = np.array([classes.index(name.split("/")[0]) for name in names], dtype=np.int64)
    items = [FileItem(f"{root}/{name}", name) for name in names]
    return LabelledImages(f"{root}/", items, None, classes, labels)


def unlabelled(names: Sequence[str], root: str = "new") -> Images:
    return Images(f"{root}/", [FileItem(f"{root}/{name}", name) for name in names])


def crossed(origins: Sequence[str], *, classes: Sequence[str] = ("yes", "no"), images: int = 4) -> list[str]:
    """``yes/anna_17.png`` …, of each origin so many images in each class."""
    number = iter(range(10_000))
    return [f"{label}/{origin}_{next(number)}.png" for label in classes for origin in origins for _ in range(images)]


class TestNames:
    @pytest.mark.parametrize(
        "origins", [("anna", "bo"), ("site-1", "site-2", "site-3"), ("p01", "p02"), ("d 4.x", "e")]
    )
    def test_tell_what_goes_through_the_classes(self, origins: tuple[str, ...]) -> None:
        names = crossed(origins)
        found = find_origins(labelled(names))
        assert found is not None
        groups = {name.split("/")[1].rsplit("_", 1)[0]: [] for name in names}
        for name, group in zip(names, found.groups, strict=True):
            groups[name.split("/")[1].rsplit("_", 1)[0]].append(group)
        assert len({tuple(sorted(set(numbers))) for numbers in groups.values()}) == len(found.names) <= len(origins)

    def test_of_folders_within_those_of_the_classes(self) -> None:
        names = [f"{label}/{site}/{n}.png" for label in ("cat", "dog") for site in ("east", "west") for n in range(4)]
        found = find_origins(labelled(names), [unlabelled([f"north/{n}.png" for n in range(6)])])
        assert found is not None
        assert found.names == ("east", "west")
        assert found.others == [0]

    def test_in_another_order_tell_the_same(self) -> None:
        names = [*crossed(["anna", "bo", "cy"]), "yes/77.png"]
        order = np.random.default_rng(0).permutation(len(names))
        one, other = find_origins(labelled(names)), find_origins(labelled([names[index] for index in order]))
        assert one is not None
        assert other is not None
        assert one.names == other.names == ("anna", "bo", "cy")
        together = one.groups[:, None] == one.groups[None, :]
        assert (together[np.ix_(order, order)] == (other.groups[:, None] == other.groups[None, :])).all()

    @pytest.mark.parametrize(
        "names",
        [
            [f"{label}/{label}_{n}.png" for label in ("cat", "dog") for n in range(9)],  # of the class
            [f"{label}s/{label}_{n}.png" for label in ("cat", "dog") for n in range(9)],
            [f"cat/{n}_{n}.png" for n in range(9)] + [f"dog/{n}_{n}.png" for n in range(9)],  # numbers alone
            [f"{label}/2024_{n}.png" for label in ("cat", "dog") for n in range(9)],
            [f"{label}/{hash(n):x}-4e1b-{n:08x}.png" for label in ("cat", "dog") for n in range(1000, 1009)],
            crossed(["anna"]),  # one alone
            crossed(["img", "photo"]),  # what every image may be called
            crossed(["train", "valid"]),
            [
                f"{label}/bolt{m}{label}_{n}.png" for label in ("ok", "bad") for m in range(4) for n in range(4)
            ],  # things
            [
                f"{label}/{word}_{n}.png"
                for label in ("a", "b")
                for n, word in enumerate(["pear", "fig", "plum", "nut"])
            ],
        ],
    )
    def test_that_tell_nothing(self, names: list[str]) -> None:
        assert find_origins(labelled(names)) is None

    def test_the_class_before_the_origin_is_passed_over(self) -> None:
        found = find_origins(labelled([f"{n.split('/')[0]}/{n.replace('/', '_')}" for n in crossed(["anna", "bo"])]))
        assert found is not None
        assert found.names == ("anna", "bo")

    def test_of_several_parts_are_read_so_that_others_are_new(self) -> None:
        names = crossed([f"{site}_cam{n}" for site in ("east", "west") for n in (1, 2)])
        wide = find_origins(labelled(names))
        assert wide is not None
        assert wide.names == ("east", "west")
        narrow = find_origins(
            labelled(names), [unlabelled([f"{s}_cam3_{n}.png" for s in ("east", "west") for n in "123"])]
        )
        assert narrow is not None
        assert narrow.names == ("east_cam1", "east_cam2", "west_cam1", "west_cam2")

    @pytest.mark.parametrize(
        ("names", "others"),
        [
            (crossed(["cy", "di"]), True),
            (crossed(["anna", "bo"]), False),
            (crossed(["anna", "cy", "di"]), False),  # a third of them is known
            ([f"{n}.png" for n in range(9)], False),
            ([f"unlabelled_{n}.png" for n in range(9)], False),
            ([f"{word}_1.png" for word in ["pear", "fig", "plum", "nut"]], False),  # each image's own name
            ([f"{label}_{n}.png" for label in ("yes", "no") for n in range(9)], False),  # the classes
            ([f"{label}_{who}_{n}.png" for label in ("yes", "no") for who in ("anna", "bo") for n in "123"], False),
        ],
    )
    def test_of_other_images_tell_whether_new_origins_come(self, names: list[str], others: bool) -> None:
        found = find_origins(labelled(crossed(["anna", "bo"])), [unlabelled([n.split("/")[-1] for n in names])])
        assert found is not None
        assert bool(found.others) is others


class TestOneOrigin:
    @pytest.mark.parametrize(
        ("names", "others", "said"),
        [
            (crossed(["anna"]), ["bo_1.png", "bo_2.png", "cy_1.png", "cy_2.png"], "one origin (anna)"),
            (
                crossed(["east_cam1"]),
                [f"east_cam{c}_{n}.png" for c in (2, 3) for n in range(4)],
                "one origin (east_cam1)",
            ),
            (
                [f"{label}/east/{n}.png" for label in ("a", "b") for n in range(4)],
                ["west/1.png", "west/2.png", "north/1.png", "north/2.png"],
                "(east)",
            ),
            (
                [*crossed(["anna"], images=6), "yes/77.png"],
                ["bo_1.png", "bo_2.png", "cy_1.png", "cy_2.png"],
                "one origin (anna)",
            ),
            (crossed(["anna"]), ["anna_91.png", "anna_92.png"], None),
            (crossed(["anna"]), ["anna_91.png", "bo_1.png"], None),  # of both
            (crossed(["anna"]), ["91.png", "92.png"], None),  # which say nothing
            (crossed(["anna"]), ["unlabelled_91.png", "unlabelled_92.png"], None),
            (crossed(["anna"]), [f"{name}_1.png" for name in ("pear", "fig", "plum", "nut")], None),  # one's own names
            (crossed(["img"]), ["bo_1.png", "bo_2.png"], None),
            (crossed(["labelled"]), ["bo_1.png", "bo_2.png"], None),
            (
                [f"{label}/{label}_{n}.png" for label in ("cat", "dog") for n in range(9)],
                ["bo_1.png", "bo_2.png"],
                None,
            ),
            (crossed(["anna", "bo"]), ["cy_1.png", "cy_2.png"], None),  # of which the folds tell
            (crossed(["voice1"]), [f"voice{n}_{i}.png" for n in (2, 3, 4) for i in range(4)], "one origin (voice1)"),
            (crossed(["flower"]), [f"flowers_{n}.png" for n in range(9)], None),  # one name, as of a collection
            (crossed(["scan"]), [f"scan{m}_{n}.png" for m in (2, 3) for n in range(9)], None),
            (
                crossed(["Screenshot 2024-01-01 at 10.00."]),
                [f"Bildschirmfoto 2024-05-0{day} at 10.00.{n}.png" for day in (1, 2) for n in range(9)],
                None,
            ),
            (
                [f"{label}/images/{n:03d}.png" for label in ("cat", "dog") for n in range(9)],
                [f"{folder}/{n:03d}.png" for folder in ("raw", "more") for n in range(9)],
                None,
            ),
            (crossed(["trip"]), [f"{word}_{n}.png" for word in ("yes", "NO") for n in range(9)], None),  # the classes
            (crossed(["trip"]), [f"{word}/{n}.png" for word in ("yes", "no") for n in range(9)], None),
            (crossed(["anna"]), [f"{label}_anna_{n}.png" for label in ("yes", "no") for n in range(9)], None),
            (
                crossed(["anna"]),
                [f"{label}_{who}_{n}.png" for label in ("yes", "no") for who in ("bo", "cy") for n in range(9)],
                "one origin (anna)",
            ),
        ],
    )
    def test_is_said_where_other_images_are_of_others(
        self, names: list[str], others: list[str], said: str | None
    ) -> None:
        found = of_one_origin(labelled(names), {"without labels": unlabelled(others)})
        assert (said is None) == (found is None)
        if found is not None and said is not None:
            assert said in found.message and "those without labels from others" in found.message
            assert "--group-by none" in found.message
            assert found.severity is Severity.WARNING


class TestKeptApart:
    def test_a_copy_across_two_origins_does_not_make_them_one(self) -> None:
        images = labelled(crossed(["anna", "bo"]))
        found = find_origins(images)
        assert found is not None
        alike = np.arange(len(images))
        alike[4] = 0  # anna's first, in bo
        groups = kept_apart(found, images.labels, None, alike)
        assert groups is not None
        assert len(np.unique(groups)) == 2

    def test_a_copy_across_some_of_many_joins_them(self) -> None:
        images = labelled(crossed(["anna", "bo", "cy", "di"]))
        found = find_origins(images)
        assert found is not None
        alike = np.arange(len(images))
        alike[4] = 0
        groups = kept_apart(found, images.labels, None, alike)
        assert groups is not None
        assert len(np.unique(groups)) == 3

    def test_not_where_most_classes_are_of_one_origin(self) -> None:
        names = (
            crossed(["anna", "bo"], classes=["yes"])
            + crossed(["anna"], classes=["no"])
            + crossed(["bo"], classes=["go"])
        )
        images = labelled(names)
        found = find_origins(images)
        assert found is not None
        assert kept_apart(found, images.labels, None, None) is None


def write(root: Path, names: Sequence[str]) -> Path:
    rng = np.random.default_rng(list(root.name.encode()))
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(root / name)
    return root


class TestTask:
    def test_keeps_origins_together_where_those_without_labels_are_of_others(self, tmp_path: Path) -> None:
        target = write(tmp_path / "words", crossed(["anna", "bo"]))
        pool = write(tmp_path / "new", [f"cy_{n}.png" for n in range(3)] + [f"di_{n}.png" for n in range(3)])
        task = Task(target, unlabelled=pool)
        images = task.data.target
        assert images is not None
        assert images.groups is not None
        for item, group in zip(images.items, images.groups, strict=True):
            same = [other.name for other, its in zip(images.items, images.groups, strict=True) if its == group]
            assert all(("anna" in name) == ("anna" in item.name) for name in same)
        assert len(np.unique(images.groups)) == 2
        (said,) = [p for p in task.problems if "origins (anna, bo)" in p.message]
        assert said.severity is Severity.INFO

    def test_or_those_of_the_test(self, tmp_path: Path) -> None:
        target, test = (
            write(tmp_path / "words", crossed(["anna", "bo"])),
            write(tmp_path / "test", crossed(["cy", "di"])),
        )
        task = Task(target, test=test)
        assert task.data.target is not None
        assert task.data.target.groups is not None
        assert len(np.unique(task.data.target.groups)) == 2

    def test_warns_where_nothing_tells_of_others(self, tmp_path: Path) -> None:
        target = write(tmp_path / "words", crossed(["anna", "bo"]))
        task = Task(target)
        assert task.data.target is not None
        assert task.data.target.groups is None
        (said,) = [p for p in task.problems if "(anna, bo)" in p.message]
        assert said.severity is Severity.WARNING
        assert said.message in {p.message for p in check(target).problems}

    def test_warns_of_a_target_of_one_origin(self, tmp_path: Path) -> None:
        target = write(tmp_path / "words", crossed(["anna"]))
        pool = write(tmp_path / "new", [f"{who}_{n}.png" for who in ("cy", "di") for n in range(3)])
        test = write(tmp_path / "test", crossed(["ed", "flo"]))
        for others, who in [({"unlabelled": pool}, "(cy, di)"), ({"test": test}, "(ed, flo)")]:
            (said,) = [p for p in Task(target, **others).problems if "one origin (anna)" in p.message]
            assert said.severity is Severity.WARNING and who in said.message
        assert not [p for p in Task(target, unlabelled=pool, group_by="none").problems if "origin" in p.message]

    @pytest.mark.parametrize(
        ("learned", "severity", "words"),
        [
            (["anna"], Severity.WARNING, "one origin (anna)"),
            (["anna", "bo"], Severity.INFO, "2 origins (anna, bo) and those of the test from others"),
        ],
    )
    def test_check_asks_the_test_split_as_a_search_does(
        self, tmp_path: Path, learned: list[str], severity: Severity, words: str
    ) -> None:
        write(tmp_path / "words" / "train", crossed(learned))
        write(tmp_path / "words" / "test", crossed(["cy", "di"]))
        found, task = look(tmp_path / "words"), Task(tmp_path / "words")
        (said,) = [p for p in found.report.problems if words in p.message]
        assert said.severity is severity and said.message in {p.message for p in task.problems}
        assert found.images is not None and task.data.target is not None
        groups = [np.arange(len(x)) if x.groups is None else x.groups for x in (found.images, task.data.target)]
        assert [len(np.unique(each)) for each in groups] == [len(np.unique(groups[1]))] * 2

    def test_things_in_several_classes_are_one_in_all_of_them(self, tmp_path: Path) -> None:
        """A bolt before and after it broke: to learn one and be asked the other is no test of new bolts."""
        task = Task(write(tmp_path / "bolts", crossed([f"bolt{n}" for n in range(4)])))
        images = task.data.target
        assert images is not None
        assert images.groups is not None
        assert len(np.unique(images.groups)) == 4
        (said,) = [p for p in task.problems if "bolt" in p.message]
        assert said.severity is Severity.INFO

    @pytest.mark.parametrize(
        ("names", "apart"),
        [
            (["di_1.png", "di_2.png", "ed_1.png", "ed_2.png"], True),
            ([f"{n}.png" for n in range(4)], True),  # another domain, of which nothing says that it has the same
            ([f"anna_{n}.png" for n in range(90, 94)], False),
        ],
    )
    def test_of_a_source_domain_where_it_is_learned_from_alone(
        self, tmp_path: Path, names: list[str], apart: bool
    ) -> None:
        domain, pool = write(tmp_path / "old", crossed(["anna", "bo", "cy"])), write(tmp_path / "new", names)
        task = Task(None, domain, pool)
        images = task.data.source_domains["old"]
        groups = np.arange(len(images)) if images.groups is None else images.groups
        assert len(np.unique(groups)) == (3 if apart else len(images))
        said = [p for p in task.problems if "origins (anna, bo, cy)" in p.message]
        assert [p.severity for p in said] == ([Severity.INFO] if apart else [])
        target = write(tmp_path / "mine", [f"{label}/{n}.png" for label in ("yes", "no") for n in range(4)])
        assert Task(target, domain, pool).data.source_domains["old"].groups is None
        assert Task(None, domain, pool, group_by="none").data.source_domains["old"].groups is None

    def test_groups_that_are_given_are_the_groups(self, tmp_path: Path) -> None:
        names = crossed(["anna", "bo"])
        write(tmp_path / "words", names)
        rows = [f"words/{name},{name.split('/')[0]},{n % 4}" for n, name in enumerate(names)]
        (tmp_path / "t.csv").write_text("\n".join(["path,label,group", *rows]))
        pool = write(tmp_path / "new", [f"cy_{n}.png" for n in range(3)] + [f"di_{n}.png" for n in range(3)])
        task = Task(tmp_path / "t.csv", unlabelled=pool)
        assert task.data.target is not None
        assert task.data.target.groups is not None
        assert len(np.unique(task.data.target.groups)) == 4
        assert not [p for p in task.problems if "anna" in p.message]


CAMERAS = ("ash", "bay", "cove", "dell")


def lit(root: Path, cameras: Sequence[str], seed: int, *, labels: Sequence[str] = ("bad", "ok")) -> Path:
    """Every camera took the images of each class at another time of the day, and nothing else tells the classes."""
    rng = np.random.default_rng(seed)
    for camera in cameras:
        for label, light in zip(labels, rng.uniform(40, 215, len(labels)), strict=True):
            (root / label).mkdir(parents=True, exist_ok=True)
            for number in range(12):
                pixels = light + rng.normal(0, 4, (16, 16))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / label / f"{camera}_{number}.png")
    return root


def believed(images: LabelledImages, seed: int = 0) -> tuple[Interval, np.ndarray]:
    """(the accuracy that is stated of a classifier by brightness, which images were validated)."""
    light = np.array([np.asarray(item.open()).mean() for item in images.items])
    light = np.exp(-np.square((light[:, None] - np.arange(0, 256, 8)) / 8))
    said = np.full((len(images), 2), np.nan)
    for training, held in folds(images.labels, images.groups, *plan_folds(images.labels, images.groups), seed):
        groups = None if images.groups is None else images.groups[training]
        probe = fit_logistic(light[training], images.labels[training], 2, groups=groups)
        said[held] = probe.probabilities(light[held])
        if images.groups is not None:
            assert not set(images.groups[training]) & set(images.groups[held])
    rows = np.isfinite(said).all(axis=1)
    groups = None if images.groups is None else images.groups[rows]
    return corrected_estimate(metrics.get("accuracy"), [said[rows]], images.labels[rows], groups), rows


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("cameras", [CAMERAS[:2], CAMERAS])
def test_what_is_stated_holds_what_is_right_on_new_origins(tmp_path: Path, cameras: Sequence[str], seed: int) -> None:
    """Half of the answers are: which of two lights is the good ones' differs from camera to camera."""
    target = lit(tmp_path / "parts", cameras, seed)
    pool = write(tmp_path / "line", [f"{camera}_{n}.png" for camera in ("elm", "fen") for n in range(4)])
    kept = Task(target, unlabelled=pool).data.target
    assert kept is not None
    stated, validated = believed(kept)
    assert validated.all()
    assert stated.low <= 0.5 <= stated.high
    mixed = Task(target).data.target
    assert mixed is not None
    assert believed(mixed)[0].low > 0.5
