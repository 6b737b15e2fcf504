"""Averages of layers on stages' features: whom the target's images let speak, and how sure the average is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from raytl.evaluation.calibration import fit_temperature
from raytl.evaluation.head_probes import SolvedHead, solve_parts

STAGES, WIDTH, CLASSES = 4, 6, 10


class World:
    """Classes around means that every stage sees with noise of its own; the domain's images lie a little aside."""

    def __init__(self, seed: int, noise: float = 0.7) -> None:
        self.rng = np.random.default_rng(seed)
        self.means = self.rng.normal(size=(STAGES, CLASSES, WIDTH))
        self.noise = noise

    def features(self, labels: np.ndarray, shift: float = 0.0) -> np.ndarray:
        stages = [means[labels] + self.rng.normal(0, self.noise, (len(labels), WIDTH)) + shift for means in self.means]
        return np.concatenate(stages, axis=1).astype(np.float32)


def solve(
    world: World, per_class: int, *, domain: str = "", at_least: float = 0.0, peaks: Sequence[bool] = ()
) -> SolvedHead:
    labels = np.repeat(np.arange(CLASSES), per_class)
    target, features = np.ones(len(labels), dtype=bool), world.features(labels)
    if domain:
        theirs = np.repeat(np.arange(CLASSES), 30)
        features = np.concatenate([features, world.features(theirs, 0.2)])
        said = (theirs + 1) % CLASSES if domain == "permuted" else theirs
        labels, target = np.concatenate([labels, said]), np.concatenate([target, np.zeros(len(theirs), dtype=bool)])
    weights = np.where(target, 1 / target.sum(), 1 / max(1, (~target).sum()))
    return solve_parts(
        torch.as_tensor(features), labels, CLASSES, weights, None,
        widths=[WIDTH] * STAGES, balanced=False, seed=0, target=target, at_least=at_least, peaks=peaks,
    )  # fmt: skip


def said(head: SolvedHead, features: np.ndarray) -> np.ndarray:
    seen = np.split(features, STAGES, axis=1) * head.members
    layers = [probe.logits(stage) for probe, stage in zip(head.probes, seen, strict=True)]
    probabilities = [np.exp(z - z.max(1, keepdims=True)) for z in layers]
    mean = sum(s * p / p.sum(1, keepdims=True) for s, p in zip(head.shares, probabilities, strict=True))
    return np.asarray(mean)


def accuracy(head: SolvedHead, world: World) -> float:
    labels = np.repeat(np.arange(CLASSES), 100)
    return float((said(head, world.features(labels)).argmax(1) == labels).mean())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("per_class", "most"), [(1, 0.45), (3, 0.2)])
def test_a_domain_of_wrong_labels_is_doubted_even_by_one_image_a_class(seed: int, per_class: int, most: float) -> None:
    world = World(seed)
    joined, own = solve(world, per_class, domain="permuted"), solve(world, per_class)
    assert joined.members == 2 and joined.shares[STAGES:].sum() < most
    assert accuracy(joined, world) >= accuracy(own, world) - 0.05


@pytest.mark.parametrize("seed", range(3))
def test_a_domain_that_is_right_is_heard_more_than_one_image_a_class(seed: int) -> None:
    world = World(seed)
    joined, own = solve(world, 1, domain="right"), solve(world, 1)
    assert joined.shares[STAGES:].sum() > 0.5
    assert accuracy(joined, world) >= accuracy(own, world)


def test_shares_are_shares() -> None:
    for domain in ("", "right", "permuted"):
        head = solve(World(0), 2, domain=domain)
        assert (head.shares >= 0).all() and head.shares.sum() == pytest.approx(1)


def test_where_nothing_was_held_out_the_average_is_as_much_surer_as_is_usual() -> None:
    head = solve(World(0), 1)
    assert np.isnan(head.out_of_fold).all()
    assert head.temperature == pytest.approx(STAGES**-0.4) and head.sharpness == pytest.approx(STAGES**0.4)


def test_layers_on_peaks_make_the_average_no_surer() -> None:
    """They are of the same stages as those on means, and fail where these do."""
    means, both = (solve(World(0), 1, peaks=peaks).temperature for peaks in ((), (False, True, False, True)))
    assert means == pytest.approx(STAGES**-0.4) and both == pytest.approx((STAGES / 2) ** -0.4)
    assert solve(World(0), 1, peaks=(True,) * STAGES).temperature == means  # there are no others


def test_predictions_of_a_silenced_domain_do_not_say_how_sure_to_be() -> None:
    """With one image a class only the domain's layers were ever asked, and they were wrong of all."""
    head = solve(World(1), 1, domain="permuted")
    assert head.temperature == pytest.approx((2 * STAGES) ** -0.4)


def test_many_images_outvote_what_is_usual() -> None:
    world, labels = World(0, noise=2.0), np.repeat(np.arange(CLASSES), 40)
    head = solve(world, 40)
    alone = fit_temperature(np.log(head.out_of_fold), labels)
    assert head.temperature == pytest.approx(alone, rel=0.05)
    assert abs(head.temperature / alone - 1) < abs(STAGES**-0.4 / alone - 1)


@pytest.mark.parametrize("domain", ["", "right", "permuted"])
def test_of_thousands_of_images_some_tell_what_all_would(domain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also how much a domain is to be heard, which is asked of fewer of the target's images than teach."""
    world = World(0, noise=1.5)
    few = solve(world, 400, domain=domain)
    assert np.isfinite(few.out_of_fold[:4000, 0]).sum() == 2500
    monkeypatch.setattr("raytl.evaluation.head_probes.TELLING", 4000)
    everyone = solve(World(0, noise=1.5), 400, domain=domain)
    np.testing.assert_allclose(few.shares, everyone.shares, atol=0.05)
    assert few.sharpness == pytest.approx(everyone.sharpness, rel=0.05)
    strengths = [np.log10([probe.strength for probe in head.probes]) for head in (few, everyone)]
    assert np.abs(strengths[0] - strengths[1]).max() <= 1.01
    assert abs(accuracy(few, World(1, noise=1.5)) - accuracy(everyone, World(1, noise=1.5))) < 0.02


@pytest.mark.parametrize("seed", range(3))
def test_a_least_share_is_given_to_a_domain_that_the_target_does_not_contradict(seed: int) -> None:
    def joined(domain: str, at_least: float) -> np.ndarray:
        return solve(World(seed), 8, domain=domain, at_least=at_least).shares

    assert joined("right", 0.0)[STAGES:].sum() < 0.96 and joined("right", 0.97)[STAGES:].sum() == pytest.approx(0.97)
    np.testing.assert_array_equal(joined("permuted", 0.97), joined("permuted", 0.0))


@pytest.mark.parametrize("views", [False, True])
def test_of_several_domains_each_has_layers_of_its_own_and_as_much_of_a_say(views: bool) -> None:
    world = World(0)
    labels = np.tile(np.repeat(np.arange(CLASSES), 12), 2)
    features = np.concatenate([world.features(labels[:120], 0.2), world.features(labels[:120], -0.2)])
    domains = np.repeat([0, 1], 120)
    copies = np.tile(np.arange(240) % 3 == 2, 1) if views else np.zeros(240, dtype=bool)
    given = {"widths": [WIDTH] * STAGES, "balanced": False, "seed": 0, "views": copies}
    weights, nobody = np.full(240, 1 / 240), np.zeros(240, dtype=bool)
    x = torch.as_tensor(features)
    both = solve_parts(x, labels, CLASSES, weights, None, target=nobody, domains=domains, **given)
    assert (both.members, both.shares.tolist()) == (2, [1 / (2 * STAGES)] * (2 * STAGES))
    for number in (0, 1):
        own = domains == number
        alone = solve_parts(
            x[own], labels[own], CLASSES, weights[own], None, target=nobody[own], **{**given, "views": copies[own]}
        )
        theirs = both.probes[number * STAGES :][:STAGES]
        assert all(np.allclose(a.weight, b.weight, atol=1e-6) for a, b in zip(theirs, alone.probes, strict=True))
    # Of each image one half of them speaks that saw others of its domain, and one that saw none of it.
    told = np.isfinite(both.out_of_fold).all(axis=1)
    assert (told == ~copies).all()
    stages = np.split(features, STAGES, axis=1)
    layers = [probe.logits(stage) for probe, stage in zip(both.probes[STAGES:], stages, strict=True)]
    of_second = np.mean([np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in layers], axis=0)
    first = told & (domains == 0)
    of_first = 2 * both.out_of_fold[first] - of_second[first]
    assert (of_first > -1e-9).all() and np.allclose(of_first.sum(axis=1), 1)
    assert (of_first.argmax(axis=1) == labels[first]).mean() > 0.8


def test_a_domain_that_lacks_a_class_learns_it_from_the_others() -> None:
    world = World(1)
    full, fewer = np.repeat(np.arange(CLASSES), 12), np.repeat(np.arange(2, CLASSES), 12)
    labels, domains = np.concatenate([full, fewer]), np.repeat([0, 1], [len(full), len(fewer)])
    features = torch.as_tensor(np.concatenate([world.features(full, 0.2), world.features(fewer, -0.2)]))
    weights, nobody = np.full(len(labels), 1 / len(labels)), np.zeros(len(labels), dtype=bool)
    head = solve_parts(
        features, labels, CLASSES, weights, None,
        widths=[WIDTH] * STAGES, balanced=False, seed=0, target=nobody, domains=domains,
    )  # fmt: skip
    of_lacking = np.repeat([0, 1], 100)
    assert (said(head, world.features(of_lacking)).argmax(1) == of_lacking).mean() > 0.8


def test_layers_on_places_that_were_asked_of_some_images_are_not_silenced_by_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are compared by what they were asked of: where they know more they are heard as if that were all."""
    rng = np.random.default_rng(0)
    labels = np.arange(240) % 3
    pooled, places = rng.normal(size=(240, 6)), rng.normal(size=(240, 5, 8))
    places[np.arange(240), labels, rng.integers(0, 8, 240)] += 5
    features = torch.as_tensor(np.concatenate([pooled, places.reshape(240, -1)], axis=1)).float()
    shares = []
    for least in (240, 40):
        monkeypatch.setattr("raytl.evaluation.place_probes.COMPARED_FEW", least)
        monkeypatch.setattr("raytl.evaluation.place_probes.COMPARED_CELLS", 40 * 3 * least)
        found = solve_parts(
            features, labels, 3, np.full(240, 1 / 240), None, widths=[6, 40], places=[1, 8], balanced=False, seed=0
        )
        assert np.isfinite(found.out_of_fold).all()
        shares.append(found.shares[1])
    assert min(shares) > 0.8 and abs(shares[0] - shares[1]) < 0.1
