"""Heads that go by what is near, against scikit-learn's, and how sure they are of what was left out."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from torch.nn import functional as F

from raytl.evaluation import near_probes
from raytl.evaluation.near_probes import SolvedNear, solve_nearest_mean, solve_neighbours
from raytl.sources.near_heads import NearestMeanHead, NeighboursHead

SOLVES = pytest.mark.parametrize("solve", [solve_nearest_mean, solve_neighbours])


def data(n: int, k: int = 3, signal: float = 1.0, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % k
    features = rng.normal(size=(n, 20)) + signal * np.random.default_rng(99).normal(size=(k, 20))[labels] + 3.0
    return torch.tensor(features, dtype=torch.float32), labels


def solved(solve: partial[SolvedNear], n: int = 60, k: int = 3, **more: object) -> SolvedNear:
    features, labels = data(n, k)
    settings: dict[str, object] = {"weights": np.full(n, 1 / n), "groups": None, "balanced": False, "seed": 0}
    return solve(features, labels, k, **settings | more)  # type: ignore[arg-type]


def unit(head: NearestMeanHead | NeighboursHead, features: torch.Tensor) -> np.ndarray:
    return F.normalize(features - head.centre, dim=1).numpy()


def test_the_nearest_mean_is_that_of_scikit_learn() -> None:
    features, labels = data(60)
    head = solved(solve_nearest_mean).head
    assert torch.allclose(head.centre, features.mean(dim=0), atol=1e-5)
    theirs = NearestCentroid().fit(unit(head, features), labels)
    length = np.linalg.norm(theirs.centroids_, axis=1, keepdims=True)
    assert isinstance(head, NearestMeanHead)
    np.testing.assert_allclose(head.means, theirs.centroids_ / length, atol=1e-5)
    fresh = data(200, seed=1)[0]
    logits = unit(head, fresh) @ (theirs.centroids_ / length).T * float(head.sharpness)
    np.testing.assert_allclose(head(fresh), logits, atol=1e-4)


def test_the_nearest_images_are_those_of_scikit_learn() -> None:
    features, labels = data(60)
    head = solved(solve_neighbours).head
    assert isinstance(head, NeighboursHead) and 1 <= len(head.ranks) <= 30
    sharpness = float(head.sharpness)

    def falls(squares: np.ndarray) -> np.ndarray:
        # Between directions half of the square of the distance is what the cosine lacks of 1.
        return np.exp(-(squares**2 / 2) * sharpness)

    theirs = KNeighborsClassifier(len(head.ranks), weights=falls).fit(unit(head, features), labels)
    fresh = data(200, seed=1)[0]
    expected = theirs.predict_proba(unit(head, fresh)) * (1 - float(head.doubt)) + float(head.doubt) / 3
    np.testing.assert_allclose(softmax(head(fresh).numpy(), axis=1), expected, atol=1e-4)


@SOLVES
def test_groups_are_never_on_two_sides(solve: partial[SolvedNear]) -> None:
    # Every item twice, and nothing to be learned: who finds its twin is right.
    features, labels = data(24, 4, signal=0.0)
    twins, twice, groups = features.repeat(2, 1), np.tile(labels, 2), np.tile(np.arange(24), 2)
    right = {}
    for name, given in (("torn", None), ("whole", groups)):
        said = solve(twins, twice, 4, np.full(48, 1 / 48), given, balanced=False, seed=0).out_of_fold
        right[name] = (said.argmax(axis=1) == twice).mean()
    assert right["whole"] < 0.45 < right["torn"]


@SOLVES
def test_with_one_image_a_class_nothing_is_left_out_and_the_nearest_one_is_named(solve: partial[SolvedNear]) -> None:
    found = solved(solve, n=5, k=5)
    assert np.isnan(found.out_of_fold).all() and float(found.head.sharpness) == 5.0
    features, labels = data(5, 5)
    assert (found.head(features).argmax(dim=1).numpy() == labels).all()
    fresh = data(200, 5, seed=1)[0]
    nearest = (unit(found.head, fresh) @ unit(found.head, features).T).argmax(axis=1)
    assert (found.head(fresh).argmax(dim=1).numpy() == nearest).all()


@SOLVES
def test_a_class_with_a_single_image_is_learned_and_never_left_out(solve: partial[SolvedNear]) -> None:
    features, labels = data(31, 2)
    labels[30] = 2
    found = solve(features, labels, 3, np.full(31, 1.0), None, balanced=False, seed=0)
    assert np.isnan(found.out_of_fold[30]).all() and np.isfinite(found.out_of_fold[:30]).all()
    np.testing.assert_allclose(found.out_of_fold[:30].sum(axis=1), 1.0, atol=1e-5)


@SOLVES
def test_a_class_without_images_is_never_named(solve: partial[SolvedNear]) -> None:
    features, labels = data(30, 2)
    found = solve(features, labels * 2, 4, np.full(30, 1.0), None, balanced=False, seed=0)
    said = found.head(data(200, 2, seed=1)[0]).softmax(dim=1)
    assert float(said[:, [1, 3]].max()) < 1e-6 and torch.isfinite(said).all()


@SOLVES
def test_weights_of_one_are_no_weights_and_a_fit_is_the_same_again(solve: partial[SolvedNear]) -> None:
    first, second = (solved(solve, weights=np.full(60, weight)) for weight in (1 / 60, 7.0))
    for one, other in zip(first.head.buffers(), second.head.buffers(), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_balanced_the_rare_class_has_as_much_to_say() -> None:
    features, labels = data(60, signal=0.5)
    labels[(labels == 2) & (np.arange(60) > 12)] = 1
    named = {}
    for balanced in (False, True):
        found = solve_neighbours(features, labels, 3, np.full(60, 1.0), None, balanced=balanced, seed=0)
        named[balanced] = float(found.head(data(300, signal=0.5, seed=1)[0]).softmax(dim=1)[:, 2].mean())
    assert named[True] > 2 * named[False]


def test_of_many_images_some_of_every_class_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_probes, "MOST_IMAGES", 24)
    monkeypatch.setattr(near_probes, "MOST_ASKED", 12)
    found = solved(solve_neighbours)
    assert isinstance(found.head, NeighboursHead) and found.head.images.shape == (24, 20)
    assert (found.head.says > 0).sum(dim=0).tolist() == [8, 8, 8]
    assert np.isfinite(found.out_of_fold).all(axis=1).sum() == 12


def test_it_is_surer_where_classes_are_further_apart() -> None:
    sure = []
    for signal in (0.3, 1.5):
        features, labels = data(90, signal=signal)
        sure.append(solve_nearest_mean(features, labels, 3, np.full(90, 1.0), None, balanced=False, seed=0).head)
    assert float(sure[0].sharpness) < float(sure[1].sharpness)
