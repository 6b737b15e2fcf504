"""Labels that go over to unlabelled neighbours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raytl.adaptation import get
from raytl.adaptation.propagation import pass_on, propagate
from raytl.tasks.task import Role


def moons(count: int, seed: int) -> tuple[torch.Tensor, np.ndarray]:
    """Two half circles about each other, as points of the plane a little way along a curve in more dimensions."""
    rng = np.random.default_rng(seed)
    which = np.arange(count) % 2
    angle = np.pi * rng.random(count)
    x = np.where(which, 1 - np.cos(angle), np.cos(angle)) + 0.05 * rng.normal(size=count)
    y = np.where(which, 0.5 - np.sin(angle), np.sin(angle)) + 0.05 * rng.normal(size=count)
    plane = np.stack([x, y], axis=1)
    centres = np.array([0.5, 0.25]) + rng.normal(size=(60, 2))
    near = np.exp(-12 * ((plane[:, None] - centres[None]) ** 2).sum(axis=2))
    return torch.tensor(near, dtype=torch.float32), which


def test_one_label_a_class_goes_round_the_bend() -> None:
    features, which = moons(600, 0)
    labelled, labels = features[:2], which[:2]
    said, _ = propagate(labelled, labels, features[2:], 2)
    nearest = torch.cdist(features[2:], labelled).argmin(dim=1).numpy()
    assert (labels[nearest] == which[2:]).mean() < 0.85
    assert (said.argmax(axis=1) == which[2:]).mean() > 0.95


def test_of_a_labelled_image_others_speak_and_its_group_does_not() -> None:
    features, which = moons(300, 1)
    labels = which[:40].copy()
    labels[0] = 1 - labels[0]  # a wrong label: what it is said to be does not follow from it
    _, others = propagate(features[:40], labels, features[40:], 2)
    assert others[0].argmax() == which[0] != labels[0]
    groups = np.arange(40) // 2 * 0  # all of one group: nobody is left to speak
    _, alone = propagate(features[:40], labels, features[40:], 2, groups=groups)
    assert np.isnan(alone).all()


def test_where_every_class_weighs_the_same_many_labels_say_no_more() -> None:
    """Of classes that look the same the one with more labels is the likelier one, unless each is to count the same."""
    features = torch.tensor(np.random.default_rng(2).normal(size=(400, 5)), dtype=torch.float32)
    labels = np.array([0] * 10 + [1] * 90)
    shares = [
        propagate(features[:100], labels, features[100:], 2, balanced=each)[0][:, 0].mean() for each in (False, True)
    ]
    assert shares[0] < 0.2 < 0.35 < shares[1] < 0.65


def test_what_no_label_reaches_is_not_known() -> None:
    near, far = torch.eye(4).repeat(4, 1)[:, :2], torch.zeros(16, 2)
    features = torch.cat([torch.cat([near, far], dim=1), torch.cat([far, near], dim=1)])
    features = features + 1e-3 * torch.arange(32)[:, None] / 32
    said, _ = propagate(features[:2], np.array([0, 1]), features[2:], 2)
    assert np.isfinite(said).all(axis=1).any()
    assert np.allclose(said[np.isfinite(said).all(axis=1)].sum(axis=1), 1)


@settings(max_examples=25, deadline=None)
@given(
    labelled=st.integers(1, 12),
    unlabelled=st.integers(1, 30),
    width=st.integers(1, 6),
    classes=st.integers(2, 4),
    seed=st.integers(0, 1000),
    constant=st.booleans(),
)
def test_probabilities_or_nothing(
    labelled: int, unlabelled: int, width: int, classes: int, seed: int, constant: bool
) -> None:
    """However few images, however many classes without a label, features that are all the same included."""
    rng = np.random.default_rng(seed)
    features = np.ones((labelled + unlabelled, width)) if constant else rng.normal(size=(labelled + unlabelled, width))
    labels = rng.integers(0, classes, labelled)
    x = torch.tensor(features, dtype=torch.float32)
    for said in propagate(x[:labelled], labels, x[labelled:], classes, widths=[width]):
        known = np.isfinite(said).all(axis=1)
        assert np.isnan(said[~known]).all()
        assert (said[known] >= 0).all() and np.allclose(said[known].sum(axis=1), 1)


def test_what_is_said_of_neighbours_mends_what_is_said_of_one() -> None:
    """A head that is right of seven in ten, by chance: its word, passed round the bend, is right of nearly all."""
    features, which = moons(600, 5)
    wrong = np.random.default_rng(0).random(600) < 0.3
    said = np.eye(2)[np.where(wrong, 1 - which, which)] * 0.8 + 0.1
    heard, of_others = pass_on(features, said)
    assert (heard.argmax(axis=1) == which).mean() > 0.95
    assert (of_others[wrong].argmax(axis=1) == which[wrong]).mean() > 0.9


def test_without_its_own_word_an_image_is_what_others_say() -> None:
    features, _ = moons(100, 6)
    said = np.tile([1.0, 0.0], (100, 1))
    said[0] = [0.0, 1.0]
    heard, of_others = pass_on(features, said)
    assert heard[0, 1] > 0.05 and of_others[0, 1] == 0


def test_who_has_no_neighbour_is_told_nothing() -> None:
    heard, of_others = pass_on(torch.ones(1, 4), np.array([[0.3, 0.7]]))
    assert np.allclose(heard, [[0.3, 0.7]]) and np.isnan(of_others).all()


def test_is_for_heads_that_are_solved_for_with_unlabelled_images() -> None:
    entry = get("propagation")
    assert entry.needs == {Role.UNLABELLED} and not entry.trains
    loss = entry.loss(entry.config(), 3, 2)
    assert loss.gradient_free and loss.propagates_labels and loss.matches_moments


def test_two_runs_are_the_same() -> None:
    features, which = moons(200, 3)
    first, again = (propagate(features[:20], which[:20], features[20:], 2) for _ in range(2))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("widths", [None, [20, 40]])
def test_features_count_by_what_they_tell_not_by_their_scale(widths: list[int] | None) -> None:
    features, which = moons(200, 4)
    scaled = features * torch.logspace(-3, 3, features.shape[1]) + 5.0
    said, scaled_said = (propagate(x[:20], which[:20], x[20:], 2, widths=widths)[0] for x in (features, scaled))
    assert np.abs(said - scaled_said).max() < 0.05
