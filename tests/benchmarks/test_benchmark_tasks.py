"""The tasks that judgement is measured on are what they claim to be."""

from __future__ import annotations

import numpy as np
import pytest
from drawn import display_digits, permuted
from tasks import SPECS, case, dump, handwritten

from raytl.tasks.demo import printed_digits

DRAWN = [name for name, spec in SPECS.items() if "package" not in spec.tags]


@pytest.mark.parametrize("name", DRAWN)
def test_no_image_of_the_truth_is_anywhere_else(name):
    made = case(name, 5)
    truth = {item.digest for item in made.truth.items}
    assert made.target is not None
    assert made.unlabelled is not None
    for part in (made.target, made.unlabelled, *made.source_domains.values()):
        assert len(truth.intersection(item.digest for item in part.items)) <= 0.01 * len(truth)  # scans that look alike


def test_labels_are_drawn_as_many_as_asked_and_differ_by_seed():
    first, again, other = case("digits", 5), case("digits", 5), case("digits", 5, seed=1)
    assert set(first.target.counts().values()) == {5}
    assert first.target.fingerprint == again.target.fingerprint != other.target.fingerprint
    assert case("digits", 0).target is None


def test_is_it_an_eight_is_labelled_at_its_natural_frequency():
    assert case("digits-is-it-8", 5).target.counts() == {"another": 45, "eight": 5}


def test_skewed_parts_are_skewed_alike():
    made = case("digits-skewed", 20)
    for images in (made.target, made.truth):
        counts = np.array(list(images.counts().values()))
        assert 10 < counts.max() / counts.min() < 30


def test_missing_classes_are_missing_among_the_unlabelled_only():
    made = case("digits-missing-classes", 5)
    labels = {item.name: int(label) for item, label in zip(handwritten().items, handwritten().labels, strict=True)}
    assert {labels[item.name] for item in made.unlabelled.items} == {0, 1, 2, 4, 5, 6, 8, 9}
    assert set(made.target.labels) == set(made.truth.labels) == set(range(10))


def test_foreign_images_are_a_third_of_the_unlabelled():
    sizes = [item.open().size for item in case("digits-foreign", 5).unlabelled.items]
    assert np.mean([size == (32, 32) for size in sizes]) == pytest.approx(1 / 3, abs=0.01)


def test_permuted_labels_are_all_wrong():
    assert not np.any(permuted(printed_digits(), "permuted").labels == printed_digits().labels)
    assert len(display_digits().classes) == 10


def test_a_dump_is_class_folders(tmp_path):
    dump(case("digits-related", 1), tmp_path)
    assert len(list(tmp_path.glob("target/*/*.png"))) == 10
    assert {path.name for path in (tmp_path / "truth").iterdir()} == set("0123456789")
    assert len(list(tmp_path.glob("domains/printed-digits/8/*.png"))) == 200
    assert list(tmp_path.glob("unlabelled/*.png"))
