"""Heads that unlabelled images teach."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raytl.evaluation.head_probes import solve_parts
from raytl.sources.heads import StagesHead
from raytl.training.taught import (
    BESIDE_A_DOMAIN,
    NEIGHBOURS_SAY,
    Believed,
    are_heard,
    believe,
    believe_a_domain,
    said_by,
    solve_taught,
)

CLASSES, WIDTHS = 3, [8, 8]
HEAD = StagesHead(WIDTHS, CLASSES)


def clusters(count: int, seed: int, spread: float = 0.6) -> tuple[torch.Tensor, np.ndarray]:
    """Classes on three bent strings, seen in two stages, the second one noisier."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    along = rng.random(count)
    centres = np.random.default_rng(9).normal(size=(CLASSES, 8, 2)) * 2
    ends = centres[labels]
    where = ends[:, :, 0] * (1 - along)[:, None] + ends[:, :, 1] * along[:, None]
    first = where + spread * rng.normal(size=(count, 8))
    second = where + 2 * spread * rng.normal(size=(count, 8))
    return torch.tensor(np.concatenate([first, second], axis=1), dtype=torch.float32), labels


def solved(features: torch.Tensor, labels: np.ndarray) -> object:
    weights = np.full(len(labels), 1 / len(labels))
    return solve_parts(features, labels, CLASSES, weights, None, widths=WIDTHS, balanced=False, seed=0)


def taught(labelled: int, seed: int, unlabelled: int = 300) -> tuple[float, float, float]:
    """Accuracy on images that nobody saw: of a head on the labels, of one that was taught; and how sure that one is."""
    features, labels = clusters(2000, seed)
    first = np.concatenate([np.flatnonzero(labels == k)[:labelled] for k in range(CLASSES)])
    rest = np.setdiff1d(np.arange(len(labels)), first)
    seen, unseen = rest[:unlabelled], rest[unlabelled:]
    x, y = features[first], labels[first]
    head = solved(x, y)
    said = said_by(head, HEAD, features[seen])
    believed = believe(
        x, y, features[seen], said, head.out_of_fold, widths=WIDTHS, groups=None, balanced=False, joined=False
    )
    weights, target = np.full(len(y), 1 / len(y)), np.ones(len(y), dtype=bool)
    found = solve_taught(x, y, weights, features[seen], believed, head=HEAD, balanced=False, target=target)
    plain, better = (said_by(each, HEAD, features[unseen]) for each in (head, found))
    right = [(p.argmax(axis=1) == labels[unseen]).mean() for p in (plain, better)]
    return right[0], right[1], float(better.max(axis=1).mean())


def test_few_labels_go_further_with_unlabelled_images() -> None:
    found = np.array([taught(1, seed) for seed in range(5)])
    assert (found[:, 1] - found[:, 0]).mean() > 0.03
    many = np.array([taught(30, seed) for seed in range(3)])
    assert (many[:, 1] - many[:, 0]).mean() > -0.01  # where labels tell, nothing is lost


def test_it_is_about_as_sure_as_it_is_right() -> None:
    found = np.array([taught(6, seed) for seed in range(5)])
    assert abs(found[:, 2] - found[:, 1]).mean() < 0.12


def test_who_is_believed_follows_from_labels_that_were_not_told() -> None:
    features, labels = clusters(400, 0)
    x, y, unlabelled = features[:60], labels[:60], features[60:]
    right, wrong = np.eye(CLASSES)[labels[60:]], np.eye(CLASSES)[(labels[60:] + 1) % CLASSES]
    of_right, of_wrong = np.eye(CLASSES)[y], np.eye(CLASSES)[(y + 1) % CLASSES]
    given = {"widths": WIDTHS, "groups": None, "balanced": False, "joined": False}
    good = believe(x, y, unlabelled, right, of_right, **given)
    bad = believe(x, y, unlabelled, wrong, of_wrong, **given)
    assert (good.labels == labels[60:]).mean() > 0.99
    assert (bad.labels == labels[60:]).mean() > 0.8  # the neighbours'


@pytest.mark.parametrize(("joined", "share"), [(False, NEIGHBOURS_SAY), (True, BESIDE_A_DOMAIN)])
def test_with_one_label_a_class_nothing_tells_and_the_usual_holds(joined: bool, share: float) -> None:
    features, labels = clusters(100, 1)
    first = np.array([np.flatnonzero(labels == k)[0] for k in range(CLASSES)])
    rest = np.setdiff1d(np.arange(100), first)
    said = np.tile([1.0, 0.0, 0.0], (len(rest), 1))
    held = np.full((CLASSES, CLASSES), np.nan)
    believed = believe(
        features[first], labels[first], features[rest], said, held,
        widths=WIDTHS, groups=None, balanced=False, joined=joined,
    )  # fmt: skip
    assert np.isnan(believed.labelled).all()
    assert np.allclose(believed.unlabelled.sum(axis=1), 1)
    assert (believed.unlabelled[:, 0] >= 1 - share - 1e-6).all()


@pytest.mark.parametrize("seed", range(3))
def test_without_target_labels_neighbours_mend_what_a_domain_taught(seed: int) -> None:
    features, labels = clusters(900, seed)
    moved = np.random.default_rng(seed).normal(size=(1, 16)) * 0.9
    source, of_source = clusters(300, seed + 50, spread=0.3)
    source = source + torch.tensor(moved, dtype=torch.float32)
    head = solved(source, of_source)
    seen, unseen = features[:600], features[600:]
    said = said_by(head, HEAD, seen)
    believed = believe_a_domain(seen, said, widths=WIDTHS)
    assert np.allclose(believed.unlabelled.sum(axis=1), 1) and believed.labelled.shape == (0, CLASSES)
    assert np.abs(believed.unlabelled.mean(axis=0) - said.mean(axis=0)).max() < 0.1  # no class swallows another
    weights, target = np.full(300, 1 / 300), np.zeros(300, dtype=bool)
    found = solve_taught(source, of_source, weights, seen, believed, head=HEAD, balanced=False, target=target)
    before, after = ((said_by(each, HEAD, unseen).argmax(axis=1) == labels[600:]).mean() for each in (head, found))
    assert 0.5 < before < 0.95 and after > before + 0.02


@pytest.mark.parametrize("frequencies", [(1 / 3, 1 / 3, 1 / 3), (0.9, 0.05, 0.05)])
def test_neighbours_that_agree_by_chance_are_not_heard(frequencies: tuple[float, ...]) -> None:
    """What a head says has nothing to do with what is alike to the network: then only the head is believed."""
    features, _ = clusters(400, 4)
    guessed = np.random.default_rng(1).choice(CLASSES, 400, p=frequencies)
    said = np.eye(CLASSES)[guessed] * 0.7 + 0.1
    believed = believe_a_domain(features, said, widths=WIDTHS)
    assert (believed.labels == guessed).mean() > 0.95


def test_a_head_that_learns_from_a_domains_answers_is_as_sure_as_the_one_without() -> None:
    """What neighbours say is spread over the classes: of images that are right for 95 % it would be half sure."""
    features, labels = clusters(400, 5)
    said = np.eye(CLASSES)[labels] * 0.91 + 0.03
    believed = believe_a_domain(features, said, widths=WIDTHS)
    given = {"head": HEAD, "balanced": False, "target": np.zeros(60, dtype=bool)}
    head = solve_taught(features[:60], labels[:60], np.full(60, 1 / 60), features, believed, **given)
    assert believed.unlabelled.max(axis=1).mean() < 0.9
    assert said_by(head, HEAD, features).max(axis=1).mean() == pytest.approx(said.max(axis=1).mean(), abs=0.01)


@pytest.mark.parametrize("count", [1, 2])
def test_of_hardly_any_image_what_is_said_is_believed(count: int) -> None:
    said = np.array([[0.2, 0.3, 0.5], [0.0, 1.0, 0.0]])[:count]
    believed = believe_a_domain(torch.ones(count, 16), said, widths=WIDTHS)
    assert np.allclose(believed.unlabelled, said, atol=1e-6)


def sessions(count: int, of_class: float, seed: int) -> tuple[torch.Tensor, np.ndarray]:
    """Images of twelve sessions with all classes in each: who is alike is of one session, then perhaps of one class."""
    rng = np.random.default_rng(seed)
    labels, session = rng.integers(0, CLASSES, count), rng.integers(0, 12, count)
    known = np.random.default_rng(9)
    centre = known.normal(size=(CLASSES, 16)) * of_class
    features = known.normal(size=(12, 16))[session] * 2 + centre[labels] + 0.3 * rng.normal(size=(count, 16))
    return torch.tensor(features, dtype=torch.float32), labels


@pytest.mark.parametrize("seed", range(3))
def test_neighbours_of_one_session_rather_than_of_one_class_are_not_heard(seed: int) -> None:
    """A head finds the classes in what all sessions share; on who is alike it does not show."""
    images, labels = sessions(400, 0.5, seed)
    head = solved(images[:100], labels[:100])
    said = said_by(head, HEAD, images[100:])
    assert (said.argmax(axis=1) == labels[100:]).mean() > 0.8
    assert not are_heard(images[100:], said, widths=WIDTHS)


@pytest.mark.parametrize("seed", range(3))
def test_neighbours_of_one_class_are_heard_also_beside_a_head_that_is_often_wrong(seed: int) -> None:
    images, labels = clusters(400, seed)
    first = np.array([np.flatnonzero(labels == k)[0] for k in range(CLASSES)])
    rest = np.setdiff1d(np.arange(400), first)
    said = said_by(solved(images[first], labels[first]), HEAD, images[rest])
    assert (said.argmax(axis=1) == labels[rest]).mean() < 0.95
    assert are_heard(images[rest], said, widths=WIDTHS)


def test_the_sure_ones_teach_more() -> None:
    believed = Believed(np.array([[1.0, 0.0], [0.6, 0.4], [0.5, 0.5]]), np.empty((0, 2)), 0.7)
    assert believed.weights[0] > 10 * believed.weights[1] > 0 and believed.weights.sum() == pytest.approx(1)
    assert believed.weights[2] > 0  # no row without a weight, however unsure all are
