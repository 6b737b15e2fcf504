"""Layers that hear one place of an image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raytl.evaluation.place_probes import (
    PLACE_STRENGTHS,
    draw,
    fit_places,
    minimise_places,
    said_anywhere,
    solve_places,
)
from raytl.evaluation.probes import fit_logistic
from raytl.sources.heads import PlacesLayer

CHANNELS, PLACES, CLASSES = 12, 30, 3


def scenes(count: int, seed: int, strength: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """A thing at one place of many, by two of whose channels its class is told: float32 (n, channels x places)."""
    rng = np.random.default_rng(seed)
    x, labels = rng.normal(size=(count, CHANNELS, PLACES)), rng.integers(0, CLASSES, count)
    where = rng.integers(0, PLACES, count)
    kinds = np.random.default_rng(9).normal(size=(CLASSES, CHANNELS))
    x[np.arange(count), :, where] += strength * (kinds / np.linalg.norm(kinds, axis=1, keepdims=True))[labels]
    return x.reshape(count, -1).astype(np.float32), labels


def fitted(x: np.ndarray, y: np.ndarray, **given: object) -> object:
    even = np.full(len(y), 1 / len(y))
    return fit_places(torch.as_tensor(x), y, CLASSES, PLACES, **{"sample_weight": even, **given})


@pytest.mark.parametrize("seed", range(3))
def test_hears_a_small_thing_anywhere_that_means_and_maxima_lose(seed: int) -> None:
    (x, y), (new, truth) = scenes(150, seed), scenes(600, seed + 100)
    probe = fitted(x, y)
    right = (probe.logits(new).argmax(1) == truth).mean()

    def pooled(features: np.ndarray) -> np.ndarray:
        at = features.reshape(len(features), CHANNELS, PLACES)
        return np.concatenate([at.mean(2), at.max(2), at.std(2)], axis=1)

    usual = (fit_logistic(pooled(x), y, CLASSES).logits(pooled(new)).argmax(1) == truth).mean()
    assert right > usual + 0.1
    held = probe.out_of_fold
    assert np.isfinite(held).all() and np.allclose(held.sum(1), 1)
    assert abs((held.argmax(1) == y).mean() - right) < 0.15  # by layers that did not learn from the image


def test_says_what_the_layer_of_a_head_says() -> None:
    x, y = scenes(40, 1)
    probe, layer = fitted(x, y), PlacesLayer(CHANNELS, CLASSES)
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(probe.weight))
        layer.bias.copy_(torch.as_tensor(probe.bias))
        said = layer(torch.as_tensor(x)).numpy()
    np.testing.assert_allclose(said, probe.logits(x), atol=1e-4)
    assert layer(torch.empty(0, CHANNELS * PLACES)).shape == (0, CLASSES)
    at = np.einsum("kc,ncp->nkp", probe.weight, x.reshape(len(x), CHANNELS, PLACES))
    np.testing.assert_allclose(said, np.log(np.exp(at).mean(2)) + probe.bias, atol=1e-4)


def test_the_features_scale_and_offset_do_not_matter_nor_does_a_channel_that_is_always_the_same() -> None:
    (x, y), (new, _) = scenes(80, 2), scenes(50, 3)

    def other(features: np.ndarray) -> np.ndarray:
        at = 50 * features.reshape(len(features), CHANNELS, PLACES) + 30
        return np.concatenate([at, np.full((len(at), 1, PLACES), 7, np.float32)], axis=1).reshape(len(at), -1)

    one, two = fitted(x, y).logits(new), fitted(other(x), y).logits(other(new))
    said = [torch.as_tensor(each).softmax(1).numpy() for each in (one, two)]
    np.testing.assert_allclose(*said, atol=0.05)


def test_groups_are_never_on_two_sides() -> None:
    """Each thing was seen four times: by its own other pictures every label would be known."""
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(30, CHANNELS * PLACES)), 4, axis=0).astype(np.float32)
    y, groups = np.repeat(rng.integers(0, CLASSES, 30), 4), np.repeat(np.arange(30), 4)
    alone, together = (fitted(x, y, groups=each).out_of_fold.argmax(1) for each in (None, groups))
    assert (alone == y).mean() > 0.9 > 0.6 > (together == y).mean()


def test_views_teach_and_tell_nothing() -> None:
    x, y = scenes(40, 4)
    told = np.where(np.arange(80) < 40, 1 / 40, 0.0)
    probe = fitted(np.concatenate([x, x]), np.concatenate([y, y]), telling=told, groups=np.tile(np.arange(40), 2))
    assert np.isfinite(probe.out_of_fold[:40]).all() and np.isnan(probe.out_of_fold[40:]).all()


def test_where_nothing_can_be_held_out_the_strength_is_the_usual() -> None:
    x, y = scenes(60, 5)
    first = np.array([np.flatnonzero(y == k)[0] for k in range(CLASSES)])
    probe = fitted(x[first], y[first])
    assert np.isnan(probe.out_of_fold).all() and probe.strength in PLACE_STRENGTHS
    assert np.isfinite(probe.logits(x)).all()


def test_a_class_without_images_is_never_named_and_a_single_one_always() -> None:
    x, y = scenes(40, 6)
    few = y != 1
    said = fitted(x[few], y[few]).logits(x)
    assert (said.argmax(1) != 1).all() and np.isfinite(said).all()
    only = fitted(x[y == 2], y[y == 2])
    assert (only.logits(x).argmax(1) == 2).all()


@pytest.mark.parametrize("classes", [3, 60, 200])
def test_of_many_images_some_of_every_class_are_drawn_and_weigh_as_much(classes: int) -> None:
    """In whatever order they come, and those of the target before a source domain's."""
    labels = np.repeat(np.arange(classes), 20)
    own = np.arange(len(labels)) % 10 == 0
    weights = np.where(own, 1 / own.sum(), 1 / (~own).sum())
    everyone = np.ones(len(labels), dtype=bool)
    drawn = draw(labels, classes, weights, own, 100_000, (own, ~own))
    assert (drawn.weights[own] > 0).all() and set(labels[drawn.telling]) == set(range(classes))
    assert drawn.weights[own].sum() == pytest.approx(1) and drawn.weights[~own].sum() == pytest.approx(1)
    assert set(labels[~own & (drawn.weights > 0)]) == set(range(classes)) and not drawn.telling[~own].any()
    assert drawn.all_teach == (classes == 3)
    narrow = draw(labels, classes, weights, everyone, 100, (everyone,))
    assert narrow.all_teach == (classes < 200)


def test_several_problems_are_solved_as_each_by_itself() -> None:
    x, y = scenes(50, 8)
    seen, labels = torch.as_tensor(x).reshape(50, CHANNELS, PLACES), torch.as_tensor(y)
    rng = np.random.default_rng(1)
    weights = torch.as_tensor(rng.dirichlet(np.ones(50), size=3)).float()
    path = [torch.full((3,), 0.1)]
    together = minimise_places(seen, labels, weights, CLASSES, path, steps=200)
    for one, own in zip(together, weights, strict=True):
        alone = minimise_places(seen, labels, own[None], CLASSES, [path[0][:1]], steps=200)[0]
        said = [said_anywhere(seen, each[:, :-1], each[:, -1]).softmax(1) for each in (one, alone)]
        torch.testing.assert_close(*said, atol=0.02, rtol=0)


def test_solved_by_itself_it_is_the_same_layer() -> None:
    """As a script has it, which knows the strength."""
    x, y = scenes(60, 10)
    probe = fitted(x, y)
    path = [each for each in PLACE_STRENGTHS if each >= probe.strength]
    labels, even = torch.as_tensor(y), torch.full((60,), 1 / 60)
    weight, bias = solve_places(torch.as_tensor(x), labels, even, CLASSES, PLACES, path)
    said = said_anywhere(torch.as_tensor(x), weight, bias).softmax(1).numpy()
    known = torch.as_tensor(probe.logits(x)).softmax(1).numpy()
    np.testing.assert_allclose(said, known, atol=0.02)
