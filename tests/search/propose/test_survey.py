"""What the data tell before anything is trained: whose labels are of use, and how frequent the classes are."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import CLASSES, MODEL, shapes, workspace

from raytl.core.errors import UserError
from raytl.search.jobs import Survey
from raytl.search.propose.survey import survey
from raytl.tasks import Images, LabelledImages, TrainingData
from raytl.tasks.items import PixelsItem


def domain(name: str, seed: int, per_class: int = 16, **light: float) -> LabelledImages:
    return shapes(per_class, seed, name=name, **light)


def permuted(images: LabelledImages) -> LabelledImages:
    """The same images under labels that mean nothing: those of each class are dealt out to all classes in turn."""
    return replace(images, labels=(images.labels + np.arange(len(images))) % len(CLASSES))


def swapped(images: LabelledImages) -> LabelledImages:
    """Every label stands for another class: worse than chance."""
    return replace(images, labels=(images.labels + 1) % len(CLASSES))


def noise(name: str, seed: int, per_class: int = 16) -> LabelledImages:
    """Random pixels under random labels: no features carry anything over."""
    rng = np.random.default_rng(seed)
    items = [PixelsItem(f"{name} {i}", rng.integers(0, 256, (16, 16), dtype=np.uint8)) for i in range(3 * per_class)]
    return LabelledImages(name, items, None, CLASSES, np.repeat(np.arange(3), per_class))


def told(
    folder: Path,
    *domains: LabelledImages,
    target: LabelledImages | None = None,
    unlabelled: Images | None = None,
    models: tuple[str, ...] = (MODEL,),
) -> Survey:
    named = {images.name: images for images in domains}
    held = TrainingData("shapes", CLASSES, target, unlabelled, named, channels=1)
    return survey(workspace(folder, held), models)


TARGET = shapes(8, 1, name="target")


def grained(images: LabelledImages, grain: float) -> LabelledImages:
    """The same as a poorer camera would have them."""
    rng = np.random.default_rng(0)
    pixels = [np.asarray(item.open()) for item in images.items]
    pixels = [(one + rng.normal(0, grain, one.shape)).clip(0, 255).astype(np.uint8) for one in pixels]
    return replace(images, items=[PixelsItem(f"{images.name} {n}", one) for n, one in enumerate(pixels)])


@pytest.mark.parametrize(("grain", "apart"), [(0.0, False), (40.0, True)])
def test_images_of_another_kind_than_the_labelled_ones_are_told(tmp_path: Path, grain: float, apart: bool) -> None:
    pool = grained(shapes(30, 2, name="unlabelled"), grain).without_labels()
    found = told(tmp_path, target=shapes(20, 1, name="target"), unlabelled=pool)
    assert found.apart == apart == any("of another kind" in note for note in found.notes) and not found.unclear
    assert not told(tmp_path, target=shapes(20, 1, name="target")).apart
    assert not told(tmp_path, target=shapes(4, 1, name="target"), unlabelled=pool).apart  # too few to say


def of_patients(images: LabelledImages, patients: int, seed: int) -> LabelledImages:
    """The same, dealt out to patients, each of whom has a pattern of his own behind them."""
    rng = np.random.default_rng(seed)
    patterns = rng.normal(0, 40, (patients, 16, 16))
    groups = np.arange(len(images)) % patients
    pixels = [np.asarray(item.open()) for item in images.items]
    pixels = [(one + patterns[own]).clip(0, 255).astype(np.uint8) for one, own in zip(pixels, groups, strict=True)]
    items = [PixelsItem(f"{images.name} {n}", one) for n, one in enumerate(pixels)]
    return replace(images, items=items, groups=groups)


def test_other_patients_are_not_of_another_kind(tmp_path: Path) -> None:
    target = of_patients(shapes(20, 1, name="target"), 5, 0)
    others = of_patients(shapes(30, 2, name="unlabelled"), 7, 1).without_labels()
    others = replace(others, groups=100 + np.asarray(others.groups))
    assert told(tmp_path / "a", target=replace(target, groups=None), unlabelled=replace(others, groups=None)).apart
    assert not told(tmp_path / "b", target=target, unlabelled=others).apart
    assert not told(tmp_path / "c", target=target, unlabelled=replace(others, groups=None)).apart


@pytest.mark.parametrize(("patients", "unclear"), [(4, "4 groups cannot tell"), (15, "")])
def test_few_groups_cannot_tell(tmp_path: Path, patients: int, unclear: str) -> None:
    """The one held out is as unlike the others as images of another kind are, which may well be of one."""
    target = of_patients(shapes(20, 1, name="target"), patients, 0)
    others = of_patients(shapes(30, 2, name="unlabelled"), 15, 1).without_labels()
    others = replace(others, groups=100 + np.asarray(others.groups))
    for number, pool in enumerate((others, replace(others, groups=None))):
        found = told(tmp_path / str(number), target=target, unlabelled=pool)
        assert found.unclear == unclear and not found.apart
        assert [note for note in found.notes if "another kind" in note] == [
            f"whether the images without labels are of another kind than the labelled ones, {why}"
            for why in [unclear]
            if why
        ]


@pytest.mark.parametrize("grain", [20.0, 40.0])
def test_nor_are_images_of_a_poorer_camera_taken_for_the_same_kind_by_few_groups(tmp_path: Path, grain: float) -> None:
    target = of_patients(shapes(20, 1, name="target"), 4, 0)
    found = told(tmp_path, target=target, unlabelled=grained(shapes(30, 2, name="unlabelled"), grain).without_labels())
    assert found.apart or found.unclear == "4 groups cannot tell"


@pytest.mark.parametrize(("grain", "apart"), [(0.0, False), (40.0, True)])
def test_one_label_a_class_tells_it_as_well(tmp_path: Path, grain: float, apart: bool) -> None:
    """No image was held out to be named: an only one is what its label says."""
    pool = grained(shapes(30, 2, name="unlabelled"), grain).without_labels()
    many = shapes(8, 1, name="target")
    names = tuple(f"{n:02}" for n in range(len(many)))
    target = replace(many, classes=names, labels=np.arange(len(many)))
    held = TrainingData("shapes", names, target, pool, {}, channels=1)
    assert survey(workspace(tmp_path, held), (MODEL,)).apart == apart


class TestDomains:
    def test_of_wrong_labels_are_set_aside_where_the_targets_labels_tell(self, tmp_path: Path) -> None:
        for wrong in (permuted(domain("wrong", 6)), swapped(domain("wrong", 6))):
            found = told(tmp_path, domain("good", 3), wrong, target=TARGET)
            assert found.domains == ("good",)
            assert set(found.set_aside) == {"wrong"}
            assert "no better than chance against good and the target's labels" in found.set_aside["wrong"]
            assert found.agreed == ("good",)
            assert any("source domain wrong set aside" in note for note in found.notes)

    def test_and_where_only_other_domains_tell(self, tmp_path: Path) -> None:
        unlabelled = shapes(8, 2, name="unlabelled").without_labels()
        found = told(
            tmp_path, domain("good", 3), domain("fine", 5), permuted(domain("wrong", 4)), unlabelled=unlabelled
        )
        assert set(found.set_aside) == {"wrong"} and set(found.domains) == {"good", "fine"}
        assert found.agreed == found.domains

    @pytest.mark.parametrize("per_class", [5, 20])
    def test_two_that_made_the_same_mistake_are_not_borne_out_by_each_other(
        self, tmp_path: Path, per_class: int
    ) -> None:
        alike = [swapped(domain(name, seed)) for name, seed in (("one", 4), ("other", 5))]
        found = told(tmp_path, domain("good", 3), *alike, target=shapes(per_class, 1, name="target"))
        assert found.agreed == ("good",)

    def test_one_against_one_proves_nothing(self, tmp_path: Path) -> None:
        """Without target labels either of two may be the wrong one."""
        unlabelled = shapes(8, 2, name="unlabelled").without_labels()
        found = told(tmp_path, domain("good", 3), permuted(domain("wrong", 4)), unlabelled=unlabelled)
        assert found.set_aside == {} and set(found.domains) == {"good", "wrong"}
        assert found.agreed == ()

    def test_who_contradict_each_other_are_named_where_nothing_tells_who_is_right(self, tmp_path: Path) -> None:
        near, wrong = domain("near", 1), permuted(domain("wrong", 2))
        without = told(tmp_path / "a", near, wrong)
        assert any("none of the source domains near, wrong confirms" in note for note in without.notes)
        assert sorted(without.unconfirmed) == ["near", "wrong"]
        agreeing = told(tmp_path / "b", domain("good", 3), domain("fine", 5))
        assert not any("confirms" in note for note in agreeing.notes) and agreeing.unconfirmed == ()

    def test_nobody_is_set_aside_where_features_carry_nothing_over(self, tmp_path: Path) -> None:
        for seed in range(3):
            domains = [noise(name, 10 * seed + i) for i, name in enumerate("abc")]
            found = told(tmp_path, *domains, target=noise("target", 10 * seed + 9, 8))
            assert found.set_aside == {} and set(found.domains) == {"a", "b", "c"}

    def test_that_look_most_like_the_target_come_first(self, tmp_path: Path) -> None:
        """Inverted in light, shapes have the same edges and other pixels; of another size of set nothing follows."""
        near, far = domain("z-near", 3), swapped_partly(domain("a-far", 5))
        found = told(tmp_path, far, near, target=TARGET)
        assert found.domains[0] == "z-near"

    def test_no_order_of_options_changes_anything(self, tmp_path: Path) -> None:
        domains = [domain("good", 3), domain("fine", 5, light=30.0), permuted(domain("wrong", 4)), domain("dim", 6)]
        unlabelled = shapes(8, 2, name="unlabelled").without_labels()
        found = [
            told(tmp_path, *order, target=TARGET, unlabelled=unlabelled)
            for order in list(itertools.permutations(domains))[::5]
        ]
        assert all(one.domains == found[0].domains for one in found)
        assert all(one.frequencies == found[0].frequencies for one in found)
        assert {tuple(one.set_aside) for one in found} == {("wrong",)}

    def test_with_labels_of_their_own_have_no_say(self, tmp_path: Path) -> None:
        other = shapes(12, 7, name="other", classes=("p", "q"))
        assert told(tmp_path, domain("good", 3), other, target=TARGET).domains == ("good",)

    def test_are_known_in_another_light_once_unlabelled_images_tell_the_targets_moments(self, tmp_path: Path) -> None:
        """All images of the target have a mark that none of the domain has: few labels alone recognise nothing."""
        domains = domain("good", 3), permuted(domain("wrong", 4))
        few, seen = marked(shapes(4, 1, name="target")), marked(shapes(20, 2, name="seen")).without_labels()
        assert told(tmp_path / "unseen", *domains, target=few).set_aside == {}
        assert set(told(tmp_path / "seen", *domains, target=few, unlabelled=seen).set_aside) == {"wrong"}

    @pytest.mark.parametrize(
        "domains",
        [
            (domain("good", 3), domain("fine", 5)),  # which confirm each other
            (swapped(domain("wrong", 4)),),  # of which nothing follows, whatever features say
        ],
    )
    def test_are_not_asked_of_a_network_where_nothing_depends_on_it(
        self, tmp_path: Path, domains: tuple[LabelledImages, ...]
    ) -> None:
        unlabelled = shapes(8, 2, name="unlabelled").without_labels()
        models = (str(tmp_path / "there-is-none.safetensors"),)
        assert told(tmp_path / "a", *domains, unlabelled=unlabelled, models=models).set_aside == {}
        with pytest.raises(UserError):
            told(tmp_path / "b", noise("a", 1), noise("b", 2), unlabelled=unlabelled, models=models)

    def test_that_cannot_be_looked_at_are_left_as_they_are(self, tmp_path: Path) -> None:
        assert told(tmp_path, target=TARGET) == Survey()


class TestDomainsOfOtherClasses:
    """Two domains have the plain shapes, one has the same shapes with a cross over them; the target has all six."""

    SIX = (*CLASSES, *(f"{name} with a cross" for name in CLASSES))

    def crossed(self, images: LabelledImages) -> LabelledImages:
        return replace(marked(images), labels=images.labels + 3, classes=self.SIX)

    def plain(self, images: LabelledImages) -> LabelledImages:
        return replace(images, classes=self.SIX)

    def told(self, folder: Path, crossed: LabelledImages, target: int | None = None) -> Survey:
        domains = self.plain(domain("good", 3)), self.plain(domain("fine", 5)), crossed
        labelled = None
        if target is not None:
            halves = self.plain(shapes(target, 1, name="plain")), self.crossed(shapes(target, 6, name="crossed"))
            items = [replace(item, name=f"{half.name} {item.name}") for half in halves for item in half.items]
            labelled = LabelledImages("target", items, None, self.SIX, np.concatenate([half.labels for half in halves]))
        held = TrainingData("shapes", self.SIX, labelled, None, {one.name: one for one in domains}, channels=1)
        return survey(workspace(folder, held), (MODEL,))

    @pytest.mark.parametrize("target", [1, 2, None])
    def test_are_not_set_aside_for_what_they_cannot_know(self, tmp_path: Path, target: int | None) -> None:
        found = self.told(tmp_path, self.crossed(domain("other", 4)), target)
        assert found.set_aside == {} and set(found.domains) == {"good", "fine", "other"}
        assert not any("confirms" in note for note in found.notes)

    def test_are_set_aside_where_their_own_classes_are_told_wrong(self, tmp_path: Path) -> None:
        found = self.told(tmp_path, self.crossed(permuted(domain("other", 4))), 8)
        assert set(found.set_aside) == {"other"}

    def test_take_their_turn_by_how_many_of_the_classes_they_have(self, tmp_path: Path) -> None:
        """Right about three of six classes is worth less than right about all of them."""
        both = domain("whole", 3), self.crossed(domain("half", 4))
        items = [replace(item, name=f"{half.name} {item.name}") for half in both for item in half.items]
        whole = LabelledImages("whole", items, None, self.SIX, np.concatenate([half.labels for half in both]))
        domains = {"a-part": self.plain(domain("a-part", 5)), "whole": whole}
        held = TrainingData("shapes", self.SIX, None, None, domains, channels=1)
        assert survey(workspace(tmp_path, held), (MODEL,)).domains == ("whole", "a-part")


def marked(images: LabelledImages) -> LabelledImages:
    """The same with a bright cross over every image."""

    def mark(item: PixelsItem) -> PixelsItem:
        pixels = np.array(item.open())
        pixels[7:9], pixels[:, 7:9] = 255, 255
        return PixelsItem(item.name, pixels)

    return replace(images, items=[mark(item) for item in images.items])


def swapped_partly(images: LabelledImages) -> LabelledImages:
    """A third of the labels stand for another class."""
    wrong = np.random.default_rng(0).random(len(images)) < 0.4
    return replace(images, labels=np.where(wrong, (images.labels + 1) % len(CLASSES), images.labels))


def skewed(total: int, shares: tuple[float, ...], seed: int, name: str) -> LabelledImages:
    images = shapes(total, seed, name=name)
    kept = np.concatenate([np.flatnonzero(images.labels == c)[: round(total * s)] for c, s in enumerate(shares)])
    return images.subset(kept)


class TestFrequencies:
    SHARES = (0.8, 0.1, 0.1)

    @pytest.fixture(scope="class")
    def unlabelled(self) -> Images:
        return skewed(150, self.SHARES, 2, "unlabelled").without_labels()

    def test_of_a_skewed_target_are_skewed_though_its_labels_were_drawn_with_an_even_hand(
        self, tmp_path: Path, unlabelled: Images
    ) -> None:
        found = told(tmp_path, target=shapes(20, 1, name="target"), unlabelled=unlabelled)
        assert sum(found.frequencies) == pytest.approx(1.0)
        assert found.frequencies[0] > 0.6
        told_so = re.search(r"'bar' (\d+) % \(90 % interval (\d+) to (\d+)\)", " ".join(found.notes))
        assert told_so is not None
        figure, low, high = map(int, told_so.groups())
        assert low < figure < high and low <= 80 <= high

    def test_are_not_claimed_from_another_domain_alone(self, tmp_path: Path, unlabelled: Images) -> None:
        """Its classes may look different, and no prediction would show it."""
        found = told(tmp_path, domain("good", 3, 40), domain("fine", 5, 40), unlabelled=unlabelled)
        assert found.frequencies == () and not any("frequencies" in note for note in found.notes)

    def test_of_an_even_target_are_even(self, tmp_path: Path) -> None:
        even = skewed(60, (1.0, 1.0, 1.0), 2, "unlabelled").without_labels()
        found = told(tmp_path, domain("good", 3, 40), target=shapes(20, 1, name="target"), unlabelled=even)
        np.testing.assert_allclose(found.frequencies, 1 / 3, atol=0.12)
        assert any("none is known to differ from that of the labels" in note for note in found.notes)

    def test_of_labels_that_cannot_be_told_apart_are_those_of_the_labels(self, tmp_path: Path) -> None:
        """Nothing is to be read from the predictions, so that the shares among the labels stand, a little evened."""
        target = skewed(20, (1.0, 0.3, 0.2), 1, "target")
        blind = replace(noise("target", 0, 10), labels=np.repeat([0, 1, 2], [20, 6, 4]))
        assert len(target) == len(blind)
        found = told(tmp_path, target=blind, unlabelled=noise("unlabelled", 1, 30).without_labels())
        np.testing.assert_allclose(found.frequencies, np.array([21, 7, 5]) / 33)

    def test_nobody_knows_without_unlabelled_images_or_without_labels(self, tmp_path: Path, unlabelled: Images) -> None:
        assert told(tmp_path, domain("good", 3), target=TARGET).frequencies == ()
        other = shapes(12, 7, name="other", classes=("p", "q"))
        assert told(tmp_path, other, unlabelled=unlabelled).frequencies == ()


def test_is_the_same_each_time(tmp_path: Path) -> None:
    unlabelled = shapes(8, 2, name="unlabelled").without_labels()
    one, again = (
        told(tmp_path / name, domain("good", 3), domain("fine", 5), target=TARGET, unlabelled=unlabelled)
        for name in ("one", "again")
    )
    assert one == again
