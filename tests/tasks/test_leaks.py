"""The same picture, or the same group, in two roles."""

from __future__ import annotations

import io
import time
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from raytl.core.errors import UserError
from raytl.tasks import Images, LabelledImages, Task
from raytl.tasks.demo import DIGITS, _cropped, _draw, _usable_fonts
from raytl.tasks.items import PixelsItem
from raytl.tasks.leaks import compare
from raytl.tasks.parts import Part, labelled_part, unlabelled_part
from tests.tasks.pictures import encoded, make_folder, picture


@cache
def pixels(number: int) -> np.ndarray:
    return np.asarray(picture(number))


def of(name: str, numbers: list[int], labels: str | None = None) -> LabelledImages:
    """The pictures of these numbers; labelled by their parity, or by the letters in ``labels``."""
    found = labels or "".join("ab"[number % 2] for number in numbers)
    classes = tuple(sorted(set(found)))
    items = [PixelsItem(f"{name}/{n}", pixels(n)) for n in numbers]
    return LabelledImages(name, items, None, classes, np.array([classes.index(label) for label in found]))


def digests(images: Images | None) -> set[str]:
    return set() if images is None else {item.digest for item in images.items}


def said(task: Task, word: str) -> list[str]:
    return [str(problem) for problem in task.problems if word in str(problem)]


def pictures(*groups: list[Image.Image]) -> list[np.ndarray]:
    """The numbers that :func:`compare` gives the images of each group."""
    parts: list[Part[Images]] = [
        unlabelled_part(Images(str(k), [PixelsItem(str(n), np.asarray(image)) for n, image in enumerate(group)]))
        for k, group in enumerate(groups)
    ]
    compare(parts)
    return [part.pictures for part in parts]


class TestWithinTheTarget:
    def test_a_picture_saved_anew_in_another_class_is_named(self) -> None:
        """The bytes differ, so it is no exact copy."""
        images = of("photos", list(range(12)))
        again = Image.fromarray(pixels(2)).resize((60, 45))
        items = [*images.items, PixelsItem("photos/again", np.asarray(again))]
        both = LabelledImages("photos", items, None, images.classes, np.append(images.labels, 1))
        assert said(Task(both), "another class") == [
            "photos: 2 images are like one of another class (photos/2 and photos/again): one of the two labels is "
            "wrong, or it shows both; raytl check --json lists them"
        ]
        assert said(Task(images), "another class") == []


class TestBetweenTargetAndOthers:
    def test_a_source_domain_of_the_very_target_images_is_not_used(self) -> None:
        target = of("photos", list(range(12)))
        task = Task(target, {"mirror": of("mirror", list(range(12)), "abba" * 3), "other": of("other", [50, 51, 52])})
        assert list(task.data.source_domains) == ["other"]
        assert said(task, "mirror") == [
            "mirror: 12 images are also in the target photos (mirror/0, mirror/1, mirror/2, …); the source domain is "
            "not used; 6 of them under another label, a sign of wrong labels"
        ]

    def test_target_images_leave_the_source_domain_and_the_rest_is_used(self) -> None:
        task = Task(of("t", list(range(8))), {"s": of("s", [6, 7, *range(20, 30)])})
        assert len(task.data.source_domains["s"]) == 10
        assert len(task.data.target or ()) == 8
        assert said(task, "left out") == [
            "s: 2 images are also in the target t (s/6, s/7); left out of the source domain"
        ]

    def test_a_class_that_goes_with_them_is_named(self) -> None:
        domain = of("s", [0, 2, 20, 21, 22, 23], "xxabab")
        task = Task(of("t", list(range(8))), {"s": domain})
        assert task.data.source_domains["s"].classes == ("a", "b")
        assert task.data.joinable == ("s",)
        assert said(task, "also in")[0].endswith("left out of the source domain, and with them the class 'x'")

    def test_other_words_for_the_same_image_are_no_contradiction(self) -> None:
        task = Task(of("t", list(range(8))), {"s": of("s", [0, 1, 20, 21, 22], "xyxyy")})
        assert "another label" not in said(task, "also in")[0]

    def test_labelled_images_leave_the_unlabelled_ones(self) -> None:
        task = Task(of("t", list(range(8))), unlabelled=of("pool", list(range(30))))
        assert len(task.data.unlabelled or ()) == 22
        task = Task(None, {"s": of("s", [0, 1, 2, 3])}, of("pool", list(range(30))))
        assert len(task.data.unlabelled or ()) == 26
        assert said(task, "left out") == [
            "pool: 4 images are also in the source domain s (pool/0, pool/1, pool/2, …); "
            "left out of the unlabelled images"
        ]

    def test_unlabelled_images_that_are_all_labelled_are_done_without_where_they_can_be(self) -> None:
        images = of("t", list(range(8)))
        task = Task(images, unlabelled=of("pool", list(range(8))))
        assert task.data.unlabelled is None
        assert said(task, "no unlabelled images are left to use")
        with pytest.raises(
            UserError, match="pool: every image is also in another role, such as the source domain s; give"
        ):
            Task(None, {"s": images}, of("pool", list(range(8))))

    def test_one_shot_transfer_from_the_shots_themselves_has_nothing_to_choose_by(self) -> None:
        task = Task(of("shots", [0, 1]), {"s": of("s", [0, 1])})
        assert not task.data.source_domains and not task.data.can_score
        assert said(task, "class 'a' has 1 image, so none can be held out")


class TestTheTest:
    def test_every_label_is_needed_where_there_are_no_target_labels(self) -> None:
        domain, pool = of("s", list(range(8))), of("pool", [50, 51])
        with pytest.raises(UserError, match="s: every image of class 'a' is also in the test set final; give a test"):
            Task(None, {"s": domain}, pool, of("final", [0, 2, 4, 6, 31]))
        task = Task(None, {"s": domain}, pool, of("final", [0, 31]))
        assert len(task.data.source_domains["s"]) == 7

    def test_is_not_used_without_labels_either(self) -> None:
        final = of("final", [30, 31])
        with pytest.raises(UserError, match="also in another role, such as the test set final; give other images"):
            Task(None, {"s": of("s", list(range(8)))}, of("pool", [30, 31]), final)

    def test_wrong_labels_are_counted(self) -> None:
        task = Task(of("t", list(range(12))), test=of("final", [0, 1, 2, 40, 41], "aaabb"))
        assert said(task, "another label") == [
            "t: 3 images are also in the test set final (t/0, t/1, t/2); left out of the training; "
            "1 of them under another label, a sign of wrong labels"
        ]


class TestBetweenSourceDomains:
    def test_images_stay_in_both_whatever_the_order(self) -> None:
        """Which of two labels is wrong is not told by which domain was named first."""
        task = Task(of("t", [0, 1, 2, 3]), {"one": of("one", [10, 11, 12, 13]), "two": of("two", [12, 13, 14, 15])})
        assert [len(domain) for domain in task.data.source_domains.values()] == [4, 4]
        assert said(task, "also in") == [
            "two: 2 images are also in the source domain one (two/12, two/13); kept in both"
        ]

    def test_images_stay_where_other_things_are_to_be_told_apart(self) -> None:
        task = Task(of("t", [0, 1, 2, 3]), {"one": of("one", [10, 11]), "two": of("two", [10, 11], "xy")})
        assert [len(domain) for domain in task.data.source_domains.values()] == [2, 2]
        assert said(task, "with other labels; kept in both")


numbers = st.lists(st.integers(0, 15), max_size=12)


@settings(max_examples=15, deadline=None)
@given(numbers, numbers, numbers, numbers, numbers)
def test_no_image_is_in_two_roles_but_in_two_source_domains(
    target: list[int], one: list[int], two: list[int], pool: list[int], final: list[int]
) -> None:
    """Every role has some pictures of its own, so that none is emptied, and any of 16 that all share."""
    roles = [
        of(str(k), [*range(20 + 8 * k, 28 + 8 * k), *own]) for k, own in enumerate((target, one, two, pool, final))
    ]
    for test, holdout in ((roles[4], None), (None, 0.3)):
        task = Task(roles[0], {"one": roles[1], "two": roles[2]}, roles[3], test, holdout=holdout)
        assert task.test is not None
        found = [digests(task.data.target), digests(task.data.unlabelled), digests(task.test.open())]
        found.append(set().union(*(digests(domain) for domain in task.data.source_domains.values())))
        assert all(not left & right for left, right in combinations(found, 2))
        assert set.union(*found) == set().union(*(digests(role) for role in roles[: 5 if test else 4]))


class TestGroups:
    def table(self, path: Path, numbers: list[int], patients: list[str]) -> Path:
        columns = {"image": [encoded(picture(n)) for n in numbers], "patient": patients}
        pq.write_table(pa.table(columns | {"label": ["ab"[n % 2] for n in numbers]}), path)
        return path

    def test_patients_of_the_test_leave_all_else(self, tmp_path: Path) -> None:
        target = self.table(tmp_path / "t.parquet", list(range(12)), [f"{n // 2}" for n in range(12)])
        pool = self.table(tmp_path / "pool.parquet", list(range(20, 26)), ["1", "1", "5", "90", "91", "92"])
        domain = self.table(tmp_path / "s.parquet", list(range(30, 38)), ["p0", "p0", *"abcdef"])
        final = self.table(tmp_path / "final.parquet", [50, 51, 52, 53, 54], ["1", "1", "5", "p0", "77"])
        task = Task(target, domain, pool, final)
        assert len(task.data.target or ()) == 8
        assert len(task.data.unlabelled or ()) == 3
        assert len(task.data.source_domains["s"]) == 6
        where = f"the test set {final}"
        assert [message.split(": ", 1)[1] for message in said(task, "group")] == [
            f"4 images are of 2 groups that are also in {where}; left out of the training",
            f"2 images are of 1 group that is also in {where}; left out of the source domain",
            f"3 images are of 2 groups that are also in {where}; left out of the unlabelled images",
        ]

    def test_patients_that_are_held_out_leave_the_unlabelled_images(self, tmp_path: Path) -> None:
        patients = [f"p{n // 2}" for n in range(24)]
        target = self.table(tmp_path / "t.parquet", list(range(24)), patients)
        pool = self.table(tmp_path / "pool.parquet", list(range(30, 54)), patients)
        task = Task(target, unlabelled=pool, holdout=0.25)
        assert task.test is not None
        held = {patients[int(item.name.split()[-1]) - 1] for item in task.test.open().items}
        assert held
        assert task.data.unlabelled is not None
        left = {patients[int(item.name.split()[-1]) - 1] for item in task.data.unlabelled.items}
        assert left == set(patients) - held

    @pytest.mark.parametrize("alone", [False, True])
    def test_patients_of_the_test_leave_unlabelled_folders_too(self, alone: bool, tmp_path: Path) -> None:
        def folders(name: str, patients: range, first: int, *, labelled: bool = True) -> Path:
            for number, patient in enumerate(np.repeat(patients, 2)):
                folder = tmp_path / name / ("ab"[patient % 2] if labelled else "") / f"patient_{patient}"
                folder.mkdir(parents=True, exist_ok=True)
                picture(first + number).save(folder / f"{number}.png")
            return tmp_path / name

        target, final = folders("t", range(4), 0), folders("final", range(70, 74), 20)
        pool = folders("pool", range(71, 72) if alone else range(71, 76), 40, labelled=False)
        other = folders("other", range(80, 81), 60, labelled=False)
        if alone:
            task = Task(target, unlabelled=pool / "patient_71", test=final)
            assert task.data.unlabelled is None
            assert "2 images are of 1 group that is also in the test" in said(task, "no unlabelled images are left")[0]
            assert len(Task(target, unlabelled=other / "patient_80", test=final).data.unlabelled or ()) == 2
            return
        task = Task(target, unlabelled=pool, test=final)
        assert task.data.unlabelled is not None
        assert {item.name.split("/")[-2] for item in task.data.unlabelled.items} == {"patient_74", "patient_75"}

    @pytest.mark.parametrize("few", ["target", "test"])
    def test_patients_of_the_test_leave_the_target_where_there_are_few(self, few: str, tmp_path: Path) -> None:
        """One image or patient of a class: too few to be groups of its own split, and the same patients anyhow."""

        def folders(name: str, patients: list[int], each: int) -> Path:
            for patient in patients:
                for number in range(each):
                    folder = tmp_path / name / "ab"[patient % 2] / f"patient_{patient}"
                    folder.mkdir(parents=True, exist_ok=True)
                    picture(1000 * (name == "final") + 10 * patient + number).save(folder / f"{number}.png")
            return tmp_path / name

        if few == "test":
            task = Task(folders("t", list(range(8)), 2), test=folders("final", [0, 1], 1))
            kept, lost = 12, "4 images"
        else:
            task = Task(folders("t", [0, 1, 3], 6), test=folders("final", [1, 2, 4, 5], 2))
            kept, lost = 12, "6 images"
        assert task.data.target is not None and len(task.data.target) == kept
        assert any(lost in note and "also in the test" in note for note in said(task, "also in the test"))

    def test_classes_that_are_persons_are_nobodys_groups(self, tmp_path: Path) -> None:
        for name, first in (("t", 0), ("final", 50)):
            for person in range(2):
                (tmp_path / name / f"person_{person}").mkdir(parents=True)
                for number in range(4):
                    picture(first + 10 * person + number).save(tmp_path / name / f"person_{person}" / f"{number}.png")
        task = Task(tmp_path / "t", test=tmp_path / "final")
        assert task.data.target is not None and len(task.data.target) == 8

    def test_a_number_is_another_patient_in_a_source_domain(self, tmp_path: Path) -> None:
        target = self.table(tmp_path / "t.parquet", list(range(8)), [f"p{n}" for n in range(8)])
        domain = self.table(tmp_path / "s.parquet", list(range(30, 34)), list("1234"))
        task = Task(target, domain, test=self.table(tmp_path / "final.parquet", [50, 51], ["1", "2"]))
        assert len(task.data.source_domains["s"]) == 4
        assert "2 group numbers are also in the test set" in said(task, "taken for other groups")[0]

    def test_all_of_a_class_in_groups_of_the_test_is_refused(self, tmp_path: Path) -> None:
        target = self.table(tmp_path / "t.parquet", list(range(8)), ["odd" if n % 2 else f"p{n}" for n in range(8)])
        final = self.table(tmp_path / "final.parquet", [50, 51], ["x", "odd"])
        with pytest.raises(
            UserError, match="every image of class 'b' is also in, or of a group that is in, the test set"
        ):
            Task(target, test=final)

    def test_groups_of_the_target_leave_a_source_domain_of_which_half_is_left(self, tmp_path: Path) -> None:
        target = self.table(tmp_path / "t.parquet", list(range(8)), [f"p{n}" for n in range(8)])
        domain = self.table(tmp_path / "s.parquet", list(range(30, 34)), ["p1", "p2", "q", "r"])
        task = Task(target, domain)
        assert len(task.data.source_domains["s"]) == 2 and len(task.data.target or ()) == 8
        where = f"the target {target}"
        told = f"{domain}: 2 images are of 2 groups that are also in {where}; left out of the source domain"
        assert told in said(task, "groups")

    @pytest.mark.parametrize("patients", [["p1", "p2", "p3", "r"], ["q", "p2", "r", "p4"]])
    def test_they_are_said_where_too_little_or_no_image_of_a_class_would_be_left(
        self, patients: list[str], tmp_path: Path
    ) -> None:
        target = self.table(tmp_path / "t.parquet", list(range(8)), [f"p{n}" for n in range(8)])
        task = Task(target, self.table(tmp_path / "s.parquet", list(range(30, 34)), patients))
        assert len(task.data.source_domains["s"]) == 4
        assert "groups are also in the target" in said(task, "validation may flatter")[0]

    def test_group_numbers_in_memory_mean_nothing_elsewhere(self) -> None:
        target, final = of("t", list(range(8))), of("final", [30, 31])
        grouped = LabelledImages("t", target.items, np.arange(8) // 2, target.classes, target.labels)
        task = Task(grouped, test=LabelledImages("final", final.items, np.arange(2), final.classes, final.labels))
        assert len(task.data.target or ()) == 8


class TestWhatCountsAsTheSamePicture:
    def test_another_file_format_is_the_same(self, tmp_path: Path) -> None:
        target = make_folder(tmp_path / "t", {"a": 4, "b": 4})
        for name in "ab":
            (tmp_path / "s" / name).mkdir(parents=True)
            for number in range(5):
                saved = picture(number + 4 * (name == "b") + 100 * (number == 4), size=(40, 30))
                saved.save(tmp_path / "s" / name / f"{number}.bmp")
        task = Task(target, tmp_path / "s")
        assert len(task.data.source_domains["s"]) == 2

    def test_photographs_are_found_recompressed_and_rescaled(self) -> None:
        from sklearn.datasets import load_sample_images

        photographs = []
        for image in map(Image.fromarray, load_sample_images().images):
            width, height = image.width // 3, image.height // 3
            photographs += [
                image.crop((x * width, y * height, (x + 1) * width, (y + 1) * height))
                for x, y in np.ndindex(3, 3)
                if not (image.getpixel((0, 0)) == image.getpixel((5, 5)) or y == 0)  # of which some are sky
            ]
        copies = []
        for number, image in enumerate(photographs):
            small = image.resize((image.width // (1 + number % 2), image.height // (1 + number % 2)))
            copies.append(Image.open(io.BytesIO(encoded(small, "JPEG", quality=60))).convert("RGB"))
        first, second = pictures(photographs, copies)
        assert len(photographs) >= 12
        assert (first == second).mean() >= 0.9
        assert all(a != b for a, b in combinations(first, 2))

    def test_simple_pictures_are_not_taken_for_copies(self) -> None:
        def icon(shape: str, side: int, colour: str) -> Image.Image:
            image = Image.new("RGB", (side, side), "white")
            box = (side // 6, side // 6, side - side // 6, side - side // 6)
            getattr(ImageDraw.Draw(image), shape)(box, fill=colour)
            return image

        red = [icon(shape, 96, "firebrick") for shape in ("ellipse", "rectangle")]
        blue = [icon(shape, 64, "navy") for shape in ("ellipse", "rectangle")]
        assert not np.isin(*pictures(red, blue)).any()

        ramp = np.linspace(0, 1, 48)
        fades = [[Image.fromarray(np.uint8(255 * np.outer(ramp**a, ramp**b))) for b in (1, 1.03)] for a in (1, 1.02)]
        assert not np.isin(*pictures(*fades)).any()

        fonts = _usable_fonts(DIGITS)
        drawn = [[_cropped(_draw(font, digit)).resize((28, 28)) for digit in DIGITS] for font in fonts]
        found = sum(int(np.isin(a, b).sum()) for a, b in combinations(pictures(*drawn), 2))
        assert found <= 1  # of 2,310: the 8 of Computer Modern is one drawing in two of its fonts

    def test_colours_that_differ_tell_pictures_apart_and_grey_ones_are_copies(self) -> None:
        original = picture(3, size=(96, 64))
        other = Image.merge("RGB", [original.convert("L").point(lambda v, k=k: int(v * k)) for k in (1.0, 0.6, 0.3)])
        assert not np.isin(*pictures([original], [other])).any()
        assert np.isin(*pictures([original], [original.convert("L")])).all()


def test_five_roles_of_three_thousand_images_take_seconds() -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (13_000, 8, 8), dtype=np.uint8)
    pixels = [np.asarray(Image.fromarray(c).resize((24, 24), Image.Resampling.BICUBIC)) for c in coarse]
    chosen = [np.arange(k * 2500, k * 2500 + 3000) for k in range(5)]  # each shares 500 with the next
    labels = np.arange(3000) % 10
    roles = [
        labelled_part(
            LabelledImages(str(k), [PixelsItem(str(i), pixels[i]) for i in rows], None, tuple("0123456789"), labels), ""
        )
        for k, rows in enumerate(chosen)
    ]
    started = time.process_time()
    compare(roles)
    assert time.process_time() - started < 10
    for k in range(4):
        assert np.isin(roles[k].pictures, roles[k + 1].pictures).sum() == 500
