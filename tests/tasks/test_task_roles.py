from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raytl.core.errors import UserError
from raytl.tasks import Images, LabelledImages, Setting, Severity, Task
from raytl.tasks.items import PixelsItem
from raytl.tasks.task import together
from tests.tasks.pictures import encoded, make_folder, picture


def labelled(name: str, per_class: dict[str, int], first: int = 0, mode: str = "L") -> LabelledImages:
    """Labelled images in memory, all different."""
    labels = np.repeat(np.arange(len(per_class)), list(per_class.values()))
    items = [PixelsItem(f"{name} {n}", np.asarray(picture(first + n, mode=mode))) for n in range(len(labels))]
    return LabelledImages(name, items, None, tuple(per_class), labels)


def digests(images: Images | None) -> set[str]:
    return set() if images is None else {item.digest for item in images.items}


def tones(name: str, sides: list[int], darkest: int = 0) -> LabelledImages:
    """Images of one grey each, so many pixels wide."""
    greys = enumerate(sides, darkest)
    items = [PixelsItem(f"{name} {grey}", np.full((8, side), grey, dtype=np.uint8)) for grey, side in greys]
    return LabelledImages(name, items, None, ("a", "b"), np.arange(len(items)) % 2)


class TestSettings:
    def test_target_alone_is_inductive_with_as_much_held_out_as_asked(self, tmp_path: Path) -> None:
        task = Task(make_folder(tmp_path / "flowers", {"rose": 20, "lily": 10, "poppy": 5}), holdout=0.2)
        assert task.data.setting is Setting.INDUCTIVE
        assert task.data.classes == ("lily", "poppy", "rose")
        assert (task.name, task.data.name, task.data.channels) == ("flowers", "flowers", 3)
        assert task.data.target is not None
        assert task.data.target.counts() == {"lily": 8, "poppy": 4, "rose": 16}
        assert task.test is not None
        assert task.test.open().counts() == {"lily": 2, "poppy": 1, "rose": 4}

    def test_three_classes_of_eight_images_are_enough(self, tmp_path: Path) -> None:
        task = Task(make_folder(tmp_path, {"a": 8, "b": 8, "c": 8}), holdout=0.2)
        assert len(task.data.target or ()) == 18
        assert len(task.test or ()) == 6
        assert [problem.severity for problem in task.problems] == [Severity.INFO]

    def test_source_domain_and_unlabelled_images_are_unsupervised_adaptation(self) -> None:
        task = Task(source_domain=labelled("drawings", {"a": 5, "b": 5}), unlabelled=labelled("photos", {"x": 9}, 50))
        assert task.data.setting is Setting.UNSUPERVISED
        assert task.data.classes == ("a", "b")
        assert task.data.joinable == ("drawings",)
        assert type(task.data.unlabelled) is Images  # labels that came along are gone
        assert task.test is None
        assert task.name == "photos"

    def test_all_three_roles_from_paths(self, tmp_path: Path) -> None:
        target = make_folder(tmp_path / "t", {"a": 4, "b": 4})
        source = make_folder(tmp_path / "s", {"a": 4, "b": 4}, first=20)
        pool = make_folder(tmp_path / "u", {".": 7}, first=40)
        task = Task(str(target), [source], pool, make_folder(tmp_path / "test", {"b": 3, "a": 2}, first=60))
        assert task.data.setting is Setting.SEMI_SUPERVISED
        assert len(task.data.target or ()) == 8
        assert task.test is not None
        assert task.test.open().counts() == {"a": 2, "b": 3}

    @pytest.mark.parametrize("odd", range(4))
    def test_one_coloured_role_makes_the_task_coloured(self, odd: int) -> None:
        modes = ["RGB" if role == odd else "L" for role in range(4)]
        target, source, test = (labelled(f"r{i}", {"a": 4, "b": 4}, i * 20, modes[i]) for i in range(3))
        pool = labelled("pool", {"x": 4}, 80, modes[3])
        assert Task(target, source, pool, test).data.channels == 3
        assert Task(target).data.channels == (3 if odd == 0 else 1)

    def test_nine_in_ten_images_are_no_larger_than_the_task_says(self) -> None:
        target = tones("target", [24] * 19 + [400])
        assert Task(target).data.image_side == 24
        assert Task(target, tones("other", [40] * 10)).data.image_side == 40
        assert Task(target, tones("other", [40] * 10)).data.target_side == 24

    @pytest.mark.parametrize(("sides", "expected"), [([24] * 9, 24), ([30] * 9, 24), ([31] * 9, None), ([12], None)])
    def test_pieces_are_of_the_usual_size_where_those_without_labels_have_it(
        self, sides: list[int], expected: int | None
    ) -> None:
        target = tones("target", [24] * 11 + [400] * 9)
        assert Task(target).data.piece_side == 24
        assert Task(target, unlabelled=tones("more", sides, 100)).data.piece_side == expected
        assert Task(None, target, unlabelled=tones("more", sides, 100)).data.piece_side is None

    def test_travels_to_other_processes(self, tmp_path: Path) -> None:
        data = Task(make_folder(tmp_path, {"a": 4, "b": 4})).data
        assert pickle.loads(pickle.dumps(data)).fingerprint == data.fingerprint


class TestHeldOut:
    @settings(max_examples=10)
    @given(st.integers(0, 10**6))
    def test_depends_on_the_seed_alone_and_shares_nothing_with_the_training(self, seed: int) -> None:
        images = labelled("images", {"a": 9, "b": 6})
        once, again = Task(images, seed=seed, holdout=0.2), Task(images, seed=seed, holdout=0.2)
        assert once.test is not None
        assert again.test is not None
        assert once.test.fingerprint == again.test.fingerprint
        assert once.data.fingerprint == again.data.fingerprint
        sealed = digests(once.test.open())
        assert not sealed & digests(once.data.target)
        assert sealed | digests(once.data.target) == digests(images)

    def test_another_seed_holds_out_others(self) -> None:
        images = labelled("images", {"a": 20, "b": 20})
        tasks = [Task(images, seed=s, holdout=0.2) for s in range(4)]
        tests = {task.test.fingerprint for task in tasks if task.test is not None}
        assert len(tests) == 4

    def test_too_few_images_leave_no_test_and_say_so(self) -> None:
        task = Task(labelled("images", {"a": 9, "b": 3}), holdout=0.2)
        assert task.test is None
        assert [str(p) for p in task.problems] == ["images: class 'b' has 3 images, too few to spare any for a test"]

    def test_copies_stay_on_one_side(self, tmp_path: Path) -> None:
        root = make_folder(tmp_path, {"a": 10, "b": 10})
        for number in range(10):  # a JPEG copy of every picture of class a
            (root / "a" / f"copy{number}.jpg").write_bytes(encoded(picture(number), "JPEG", quality=70))
        task = Task(root, holdout=0.2)
        assert task.test is not None
        sides = []
        for images in (task.data.target, task.test.open()):
            assert images is not None
            stems = [Path(item.name).stem.removeprefix("copy") for item in images.items if "/a/" in item.name]
            assert all(stems.count(stem) == 2 for stem in stems)
            sides.append(set(stems))
        assert not sides[0] & sides[1]
        assert any("10 images are copies of another" in problem.message for problem in task.problems)

    def test_groups_of_the_table_stay_on_one_side_and_two_remain_to_validate(self, tmp_path: Path) -> None:
        data = [encoded(picture(n)) for n in range(24)]
        patients = [f"p{n // 3}" for n in range(24)]
        pq.write_table(pa.table({"image": data, "label": ["a", "b"] * 12, "patient": patients}), tmp_path / "t.parquet")
        task = Task(tmp_path / "t.parquet", holdout=0.2)
        assert task.test is not None
        assert task.data.target is not None
        sealed = task.test.open()
        assert sealed.groups is not None
        assert task.data.target.groups is not None
        assert not set(sealed.groups) & set(task.data.target.groups)
        for label in (0, 1):
            assert len(np.unique(task.data.target.groups[task.data.target.labels == label])) >= 2

    def test_two_groups_of_a_class_are_kept_for_validation(self) -> None:
        images = labelled("images", {"a": 6, "b": 6})
        grouped = LabelledImages(
            "images", images.items, np.array([0] * 3 + [1] * 3 + list(range(2, 8))), images.classes, images.labels
        )
        task = Task(grouped, holdout=0.2)
        assert task.test is None
        assert "the 6 images of class 'a' are 2 groups" in task.problems[0].message

    @pytest.mark.parametrize(
        ("counts", "share", "held"),
        [
            ([29, 29, 500], None, None),  # one frequent class does not take from many rare ones
            ([30, 30, 4], None, [6, 6, 1]),  # one rare class does not cost the others the test
            ([30, 30, 3], None, None),
            ([12, 30], None, None),
            ([30, 50], None, [6, 10]),
            ([20, 180], None, None),  # four test images of a rare class of two would tell nothing of either
            ([10, 10], 0.5, [5, 5]),
            ([40, 40], 0.0, None),
        ],
    )
    def test_few_labels_are_not_given_away_unless_asked(
        self, counts: list[int], share: float | None, held: list[int] | None
    ) -> None:
        task = Task(labelled("images", dict(zip("abc", counts, strict=False))), holdout=share)
        assert (None if task.test is None else list(task.test.open().counts().values())) == held
        assert len(task.data.target or ()) == sum(counts) - sum(held or ())

    def test_says_why_nothing_was_held_out_and_how_to_get_a_test(self) -> None:
        images = labelled("images", {"a": 9, "b": 5})
        assert [(p.severity, str(p)) for p in Task(images).problems] == [
            (
                Severity.INFO,
                "images: too few labelled images to give any up for a test (classes have 5 to 9, the median is 5); "
                "cross-validation tells how good the model is. For a test split pass --holdout 0.2 or --test PATH",
            )
        ]
        assert Task(images, holdout=0).problems == []

    def test_many_images_of_few_groups_count_as_few(self) -> None:
        images = labelled("images", {"a": 40, "b": 40})
        task = Task(replace(images, groups=np.arange(80) // 4))
        assert task.test is None
        assert "(each class has 10, copies and groups counted once)" in task.problems[-1].message

    @pytest.mark.parametrize(
        ("roles", "share", "sentence"),
        [
            ({"target": True}, 1.0, "--holdout 1: give the share of the target to test on, such as 0.2"),
            ({"target": True}, -0.1, "--holdout -0.1: give the share"),
            ({"target": True}, float("nan"), "--holdout nan: give the share"),
            ({"target": True, "test": True}, 0.2, "there is a test set already"),
            ({"source_domain": True, "unlabelled": True}, 0.2, "there is no --target"),
        ],
    )
    def test_a_share_that_cannot_be_held_out_is_refused(
        self, roles: dict[str, bool], share: float, sentence: str
    ) -> None:
        given = {role: labelled(role, {"a": 5, "b": 5}, 20 * number) for number, role in enumerate(roles)}
        with pytest.raises(UserError, match=sentence):
            Task(**given, holdout=share)


class TestGivenTest:
    def test_what_it_shares_with_any_role_is_left_out_there(self) -> None:
        test = labelled("test", {"a": 3, "b": 3}, 100)

        def beside(images: LabelledImages) -> LabelledImages:
            items = [*images.items, test.items[0], test.items[5]]
            return LabelledImages(images.name, items, None, ("a", "b"), np.append(images.labels, [0, 1]))

        mixed, other, pool = (beside(labelled(name, {"a": 5, "b": 5}, 20 * n)) for n, name in enumerate("mop"))
        task = Task(mixed, [("other", other)], pool, test)
        for images in (task.data.target, task.data.unlabelled, task.data.source_domains["other"]):
            assert len(images or ()) == 10
            assert not digests(images) & digests(test)
        assert len(task.test or ()) == 6
        assert sum("2 images are also in the test set test" in problem.message for problem in task.problems) == 3

    def test_the_same_images_as_the_target_are_refused(self) -> None:
        images = labelled("images", {"a": 5, "b": 5})
        with pytest.raises(UserError, match="images: every image is also in the test set images"):
            Task(images, test=images)

    def test_an_odd_class_is_named(self) -> None:
        test = labelled("holdout", {"rose": 2, "lilly": 2}, 50)
        with pytest.raises(
            UserError, match=r"holdout: test class 'lilly' is not a class of the target; did you mean 'lily'\?"
        ):
            Task(labelled("photos", {"rose": 4, "lily": 4}), test=test)

    def test_may_lack_a_class_and_is_numbered_like_the_target(self) -> None:
        task = Task(labelled("photos", {"a": 4, "b": 4, "c": 4}), test=labelled("test", {"c": 2, "b": 1}, 50))
        assert task.test is not None
        opened = task.test.open()
        assert opened.classes == ("a", "b", "c")
        assert opened.counts() == {"a": 0, "b": 1, "c": 2}


class TestSourceDomains:
    def test_names_come_from_the_paths_and_are_made_unique(self, tmp_path: Path) -> None:
        paths = [
            make_folder(tmp_path / part / "photos", {"a": 2, "b": 2}, first=i * 10) for i, part in enumerate("xyz")
        ]
        table = tmp_path / "scans.parquet"
        pq.write_table(pa.table({"image": [encoded(picture(90 + n)) for n in range(4)], "label": list("abab")}), table)
        more = make_folder(tmp_path / "w" / "photos", {"a": 2, "b": 2}, first=100)
        task = Task(labelled("target", {"a": 4, "b": 4}, 50), [*paths, str(table), f"{more}/"])
        assert list(task.data.source_domains) == ["photos", "photos-2", "photos-3", "scans", "photos-4"]

    def test_one_several_pairs_or_a_mapping(self, tmp_path: Path) -> None:
        folder = make_folder(tmp_path / "folder", {"a": 2, "b": 2})
        images = labelled("images", {"a": 2, "b": 2}, 20)
        target = labelled("target", {"a": 4, "b": 4}, 50)
        forms = [folder, [folder], [("mine", folder)], ("mine", images), {"one": folder, "two": images}]
        names = [list(Task(target, form).data.source_domains) for form in forms]
        assert names == [["folder"], ["folder"], ["mine"], ["mine"], ["one", "two"]]

    def test_a_folder_named_by_a_dot_gets_its_real_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(make_folder(tmp_path / "flowers", {"a": 4, "b": 4}))
        assert Task(os.curdir).name == "flowers"

    def test_with_other_labels_they_only_pretrain(self) -> None:
        target = labelled("t", {"a": 4, "b": 4})
        domains = {"same": labelled("s", {"b": 2, "a": 2}, 20), "other": labelled("o", {"x": 2, "y": 2}, 30)}
        task = Task(target, domains)
        assert task.data.joinable == ("same",)
        assert task.data.source_domains["other"].classes == ("x", "y")

    def test_several_join_together_under_their_names(self) -> None:
        target = labelled("t", {"a": 4, "b": 4, "c": 4})
        near, far = labelled("s", {"b": 2, "a": 3}, 20), labelled("o", {"c": 2, "a": 1}, 30)
        data = Task(target, {"near": near, "far": replace(far, groups=np.array([7, 7, 7])), "of x": far}).data
        name = together(["near", "far"])
        assert name == together(["far", "near"]) == "far + near"
        assert data.domains_of(name) == ("far", "near") and data.domains_of("near") == ("near",)
        both = data.domain(name)
        assert both.classes == ("a", "b", "c") and both.counts() == {"a": 4, "b": 2, "c": 2}
        assert digests(both) == digests(near) | digests(far)
        assert both.groups is not None and len(np.unique(both.groups)) == 1 + len(near)

    @pytest.mark.parametrize("name", ["near + far", "far + nobody", "far + far", "far + strange", "far", "near+far"])
    def test_no_other_name_is_that_of_several(self, name: str) -> None:
        target = labelled("t", {"a": 4, "b": 4})
        domains = {"near": labelled("s", {"b": 2, "a": 2}, 20), "strange": labelled("o", {"x": 2, "y": 2}, 30)}
        data = Task(target, domains).data
        assert data.domains_of(name) == ()
        with pytest.raises(KeyError):
            data.domain(name)

    def test_a_domain_whose_name_reads_like_several_gets_another_one(self) -> None:
        target, own = labelled("t", {"a": 4, "b": 4}), labelled("o", {"b": 2, "a": 2}, 20)
        domains = {"x": labelled("s", {"b": 2, "a": 2}, 30), "y": labelled("u", {"b": 2, "a": 2}, 40), "x + y": own}
        data = Task(target, domains).data
        assert data.domains_of("x + y") == ("x", "y") and digests(data.domain("x+y")) == digests(own)

    def test_a_class_that_is_nearly_shared_is_pointed_out(self) -> None:
        task = Task(labelled("t", {"rose": 4, "lily": 4}), {"drawn": labelled("s", {"rose": 2, "Lily": 2}, 20)})
        assert [str(p) for p in task.problems if p.where == "drawn"] == [
            "drawn: class 'Lily' is none of the classes to learn; did you mean 'lily'?; the domain can only pretrain"
        ]

    @pytest.mark.parametrize(
        ("foreign", "told"),
        [
            (
                {"owl": 3},
                "class 'owl' is none of the classes to learn; known are cat, dog, fox; the domain can only pretrain",
            ),
            (
                {"owl": 3, "elk": 2},
                "classes 'owl', 'elk' are none of the classes to learn; known are cat, dog, fox; the domain can only",
            ),
        ],
    )
    def test_a_domain_with_a_class_too_many_says_what_would_join_without_it(
        self, foreign: dict[str, int], told: str
    ) -> None:
        domain = labelled("s", {"cat": 4, "fox": 2, **foreign}, 20)
        task = Task(labelled("t", {"cat": 4, "dog": 4, "fox": 4}), {"drawn": domain})
        said = [problem.message for problem in task.problems if problem.where == "drawn"]
        assert len(said) == 1 and said[0].startswith(told) and said[0].endswith("the other 6 could join")

    def test_without_target_labels_the_domains_that_agree_give_the_classes(self) -> None:
        pool = labelled("pool", {"p": 3}, 90)
        ab = {"one": labelled("1", {"a": 2, "b": 2}), "two": labelled("2", {"b": 2, "a": 2}, 10)}
        wide = labelled("3", {"x": 2, "y": 2, "z": 2}, 30)
        assert Task(None, {**ab, "wide": wide}, pool).data.classes == ("a", "b")
        test = labelled("test", {"a": 1, "b": 1}, 50)
        assert Task(None, {"one": ab["one"], "wide": wide}, pool, test).data.classes == ("a", "b")

    def test_where_no_two_domains_agree_their_looks_decide_and_a_word_of_the_user(self) -> None:
        """In any order of the options; the first lines say what was taken for granted."""

        def kind(name: str, common: int, classes: tuple[str, ...], first: int) -> LabelledImages:
            """Pictures that have something in common."""
            base = np.asarray(picture(common)).astype(np.uint16)
            pixels = [(base + np.asarray(picture(first + n))) // 2 for n in range(24)]
            items = [PixelsItem(f"{name} {n}", image.astype(np.uint8)) for n, image in enumerate(pixels)]
            return LabelledImages(name, items, None, classes, np.arange(24) % len(classes))

        near, far = kind("near", 1000, ("a", "b"), 0), kind("far", 2000, ("x", "y", "z"), 30)
        pool = Images("pool", kind("pool", 1000, ("?",), 60).items)
        for domains in ({"near": near, "far": far}, {"far": far, "near": near}):
            task = Task(None, domains, pool)
            assert task.data.classes == ("a", "b")
            assert [str(problem) for problem in task.problems if problem.where == "near"][-1] == (
                "near: its 2 classes will be learned, for 100 % of the unlabelled images look most like its own; far "
                "can only pretrain; to learn another's, name it with --classes-of far"
            )
            other = Task(None, domains, pool, classes_of="far")
            assert other.data.classes == ("x", "y", "z")
            assert "far: its 3 classes will be learned; near can only pretrain" in map(str, other.problems)
        with pytest.raises(UserError, match="--classes-of fat: no such source domain; there are near, far"):
            Task(None, {"near": near, "far": far}, pool, classes_of="fat")
        with pytest.raises(UserError, match="--classes-of: the classes are those of the target's labels"):
            Task(near, {"far": far}, classes_of="far")


class TestRefusals:
    """Each of the user's mistakes gives one sentence: what, where, what to do."""

    @pytest.mark.parametrize(
        ("roles", "sentence"),
        [
            ({}, r"no labelled data; pass --target PATH, or --source-domain"),
            ({"unlabelled": "pool"}, r"no labelled data"),
            ({"source_domain": "two"}, r"no data of the target domain; pass --target"),
            ({"target": "empty"}, r"empty/: no images found"),
            ({"target": "one"}, r"one/: only one class, 'rose'; a classifier needs at least two"),
            ({"target": "two", "source_domain": "one"}, r"one/: only one class"),
            ({"target": "bad"}, r"bad/: none of the 2 images can be read"),
            ({"target": "two", "unlabelled": "empty"}, r"empty/: no images found"),
            ({"target": "two", "test": "pool"}, r"pool/: no labels for --test"),
        ],
    )
    def test_says_what_to_do(self, roles: dict[str, str], sentence: str, tmp_path: Path) -> None:
        make_folder(tmp_path / "pool", {".": 3}, first=80)
        make_folder(tmp_path / "two", {"a": 4, "b": 4})
        make_folder(tmp_path / "one", {"rose": 4})
        make_folder(tmp_path / "bad", {"a": 0, "b": 0})
        for name in "ab":
            (tmp_path / "bad" / name / "x.png").write_bytes(b"")
        (tmp_path / "empty").mkdir()
        with pytest.raises(UserError, match=sentence):
            Task(**{role: tmp_path / name for role, name in roles.items()})

    def test_one_image_per_class_is_enough_with_a_source_domain(self) -> None:
        task = Task(labelled("shots", {"a": 1, "b": 1}), labelled("drawings", {"a": 4, "b": 4}, 20))
        assert len(task.data.target or ()) == 2
        assert task.test is None
        assert [str(problem) for problem in task.problems] == [
            "shots: too few labelled images to give any up for a test (each class has 1). "
            "For a test split pass --test PATH"
        ]

    @pytest.mark.parametrize(
        ("counts", "groups", "has"),
        [
            ({"a": 1, "b": 1}, None, "class 'a' has 1 image, "),
            ({"a": 4, "b": 1}, None, "class 'b' has 1 image, "),
            ({"a": 4, "b": 2}, [0, 1, 2, 3, 4, 4], "class 'b' has 2 images that belong together ("),
            # Each of the two patients has the only image of some class.
            ({"a": 2, "b": 2, "c": 1, "d": 1}, [0, 1, 0, 1, 0, 1], "class 'c' has 1 image, "),
        ],
    )
    def test_where_nothing_can_be_held_out_that_is_said(
        self, counts: dict[str, int], groups: list[int] | None, has: str
    ) -> None:
        target = labelled("shots", counts)
        target = target if groups is None else replace(target, groups=np.array(groups))
        alone, tested = Task(target, holdout=0), Task(target, test=labelled("more", dict.fromkeys(counts, 2), 50))
        assert not alone.data.can_score and not tested.data.can_score
        for task, words in ((alone, "nothing tells how good a model is"), (tested, "only the test tells how good")):
            (said,) = [problem.message for problem in task.problems if "none can be held out" in problem.message]
            assert said.startswith(has) and words in said
            assert ("--test" in said) == (task is alone)
        seen = Task(target, unlabelled=Images("pool", labelled("pool", {"x": 4}, 80).items, None))
        joined = Task(target, labelled("drawings", dict.fromkeys(counts, 4), 20))
        for task in (seen, joined):
            assert task.data.can_score and not any("none can be held out" in p.message for p in task.problems)
        assert not Task(target, labelled("others", {"x": 4, "y": 4}, 20)).data.can_score
        assert not Task(target, labelled("drawings", dict.fromkeys(counts, 1), 20)).data.can_score

    def test_classes_that_no_figure_counts_are_named(self) -> None:
        """A class that is never held out has no part in the figure of a search, which it does not show."""
        one, test = labelled("images", {"a": 9, "b": 9, "c": 1}), labelled("more", {"a": 2, "b": 2, "c": 2}, 50)
        said = "images: class 'c' has 1 image: learned, but how well is not known, and no figure counts it"
        assert said in map(str, Task(one).problems)
        assert said in map(str, Task(one, holdout=0).problems)
        assert not any("no figure" in problem.message for problem in Task(one, test=test).problems)
        together = replace(labelled("images", {"a": 9, "b": 9, "c": 3}), groups=np.minimum(np.arange(21), 18))
        assert any("class 'c' has 3 images that belong together: " in p.message for p in Task(together).problems)
        several = Task(labelled("images", {"a": 9, "b": 9, "c": 1, "d": 1}))
        assert any(p.message.startswith("2 of 4 classes ('c', 'd') have 1 image each") for p in several.problems)

    def test_the_same_image_under_two_labels_is_noted(self) -> None:
        images = labelled("photos", {"a": 4, "b": 4})
        twice = LabelledImages(
            "photos", [*images.items, images.items[0]], None, images.classes, np.append(images.labels, 1)
        )
        assert any("labelled 'a' and 'b'" in problem.message for problem in Task(twice).problems)

    def test_many_contradictions_are_counted(self) -> None:
        images = labelled("photos", {"a": 9, "b": 9})
        items = [*images.items, *images.items[:6]]
        labels = np.append(images.labels, np.ones(6, dtype=np.int64))
        problems = Task(LabelledImages("photos", items, None, images.classes, labels)).problems
        assert "photos: 6 images are there under another label as well; raytl check --json lists them" in map(
            str, problems
        )


class TestPool:
    """What is drawn without looking, as a camera or a download gives it."""

    @staticmethod
    def said(pixels: list[np.ndarray]) -> list[str]:
        pool = Images("pool", [PixelsItem(f"p{number}", image) for number, image in enumerate(pixels)])
        task = Task(target=labelled("labelled", {"a": 8, "b": 8}), unlabelled=pool)
        return [problem.message for problem in task.problems if problem.where == "pool"]

    def test_images_that_show_nothing_and_one_picture_over_and_over_are_said(self) -> None:
        rng = np.random.default_rng(0)
        noise = [rng.integers(0, 256, (16, 16), dtype=np.uint8) for _ in range(40)]
        grey = [np.full((16, 16), level, dtype=np.uint8) for level in range(100, 110)]
        blank, same = self.said([*noise, *grey, *[noise[0]] * 4])
        assert blank.startswith("10 images are of nearly one colour all over (p40, p41, p42, …), and show none of")
        assert same.startswith("5 of 54 images are one and the same picture, as p")
        assert self.said([*noise, grey[0], noise[0]]) == []  # one among many draws nothing
