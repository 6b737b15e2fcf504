"""Cached views: augmented versions of every image that the frozen stages see once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from tiny import CLASSES, MODEL, PRETRAINED, SIDE, STAGES, data, workspace

from raytl import adaptation
from raytl.core.hashing import hash_tensors
from raytl.evaluation import validators
from raytl.finetuning import augmentation
from raytl.finetuning.policy import Policy
from raytl.search.space.binding import BoundSpace
from raytl.search.space.definition import load_space
from raytl.training import Strategy
from raytl.training.feed import Feed
from raytl.training.loop import run_trial
from raytl.training.network import Network
from raytl.training.pools import Pool, PoolMaker
from raytl.training.pretrain import checkpoint_path
from raytl.training.residents import Residents
from raytl.training.roles import PROBE_SAMPLE, QUICK_SAMPLE, make_roles
from raytl.training.trial import TrialJob, TrialResult
from raytl.training.workspace import PretrainSettings, Workspace

VIEWED: dict[str, dict[str, Any]] = {
    "augmented": {"augmentation": "shift"},
    "strong": {"adaptation": "pseudo-label"},
    "both": {"augmentation": "shift", "adaptation": "mcc-pseudo-label"},
    "two domains": {"augmentation": "flip", "adaptation": "coral", "source_domain": "bright"},
}


def train(space: Workspace, **values: Any) -> TrialResult:
    strategy = Strategy.from_dict({"source_model": PRETRAINED, "cached_views": 2} | values)
    return run_trial(space, TrialJob(strategy), lambda metrics: None)


def kept(space: Workspace, kind: str = "activations") -> set[str]:
    return {path.name for path in space.cache.root.glob(f"{kind}-*.npy")}


def network(space: Workspace, cut: int) -> tuple[Network, str]:
    model, weights = space.source_model(PRETRAINED)
    return Network(model, CLASSES, cut, device=space.device), weights


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return workspace(tmp_path_factory.mktemp("cached"), data())


@pytest.fixture(scope="module")
def uncached(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return workspace(tmp_path_factory.mktemp("uncached"), data(), activation_cache=False)


class TestTrial:
    @pytest.mark.parametrize("variant", VIEWED)
    @pytest.mark.parametrize("cut", [1, 3, STAGES])
    def test_has_the_numbers_that_the_network_would_give(
        self, cached: Workspace, uncached: Workspace, cut: int, variant: str
    ) -> None:
        one, other = (train(space, cut=cut, **VIEWED[variant]) for space in (cached, uncached))
        assert np.allclose(one.validation_probabilities, other.validation_probabilities, atol=1e-4)
        assert one.metrics["score"] == pytest.approx(other.metrics["score"], abs=1e-4)
        assert not kept(uncached)

    def test_differs_from_one_without_views(self, cached: Workspace) -> None:
        plain, few, more = (
            train(cached, cut=3, augmentation=policy, cached_views=count)
            for policy, count in [("none", 2), ("shift", 1), ("shift", 4)]
        )
        assert len({hash_tensors(result.model.state_dict()) for result in (plain, few, more)}) == 3

    def test_that_wants_more_views_finds_the_first(self, tmp_path: Path) -> None:
        space = workspace(tmp_path, data(domains=False, unlabelled=None))
        train(space, source_model=MODEL, cut=3, augmentation="shift", cached_views=2)
        two = kept(space)
        train(space, source_model=MODEL, cut=3, augmentation="shift", cached_views=3)
        assert len(two) == 3 and len(kept(space)) == 4 and two < kept(space)  # the images as they are, and the views

    def test_without_views_runs_the_frozen_stages_on_every_new_version(self, tmp_path: Path) -> None:
        space = workspace(tmp_path, data(domains=False, unlabelled=None))
        train(space, source_model=MODEL, cut=3, augmentation="shift", cached_views=0)
        assert not kept(space)

    def test_gives_the_same_bits_from_a_full_cache_and_from_one_that_was_emptied(self, cached: Workspace) -> None:
        values = {"cut": 2, **VIEWED["both"]}
        results = [train(cached, **values), train(cached, **values)]
        for name in kept(cached):
            (cached.cache.root / name).unlink()
        results.append(train(cached, **values))
        assert len({hash_tensors(result.model.state_dict()) for result in results}) == 1
        assert kept(cached)

    def test_trains_from_pixels_where_the_budget_has_no_room(
        self, tmp_path: Path, uncached: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RAYTL_CACHE_BYTES", str(100_000))  # the pixels of each collection, but no activations
        space = workspace(tmp_path, data())
        values = {"cut": 1, **VIEWED["augmented"]}
        scores = [train(each, **values).metrics["score"] for each in (space, uncached)]
        assert scores[0] == scores[1]
        assert not kept(space)


class TestPool:
    def test_batches_come_from_the_views_and_evaluation_from_the_images_themselves(self, cached: Workspace) -> None:
        net, _ = network(cached, STAGES)
        net.entry = STAGES
        views = tuple(torch.full((20, 4), float(number)) for number in (1, 2, 3))
        pool = Pool(torch.zeros(20, 4), torch.arange(20), views=views).subset(np.arange(5, 17))
        generator = torch.Generator().manual_seed(0)
        feed = Feed({"target": pool}, None, 8, net, ("shift", "strong"), generator, generator)
        drawn = Counter()
        for _ in range(60):
            inputs, labels = feed.next()
            drawn[tuple(inputs["target"].unique().tolist())] += 1
            assert labels["target"].min() >= 5 and labels["target"].max() < 17
        assert set(drawn) == {(1.0,), (2.0,), (3.0,)} and min(drawn.values()) > 8
        assert torch.cat(list(pool.batches(5))).eq(0).all()

    @pytest.mark.parametrize("cut", range(1, STAGES + 1))
    def test_gathers_maps_in_the_layout_that_convolutions_want(self, cached: Workspace, cut: int) -> None:
        net, weights = network(cached, cut)
        assert cached.data.target is not None
        pool = PoolMaker(cached, net, weights, cached=True).make(cached.data.target).subset([3, 1, 4, 1, 5])
        with torch.no_grad():
            net.eval()
            pixels = cached.data.target.subset([3, 1, 4, 1, 5]).tensor(net.preprocessing)
            expected = net.model.run(net.preprocessing.normalise(pixels), 0, cut)
        index = torch.tensor([4, 0, 0])
        assert torch.allclose(pool.take(index), expected[index], atol=1e-5)
        assert torch.allclose(torch.cat(list(pool.batches(2))), expected, atol=1e-5)
        if expected.ndim == 4:
            assert pool.take(index).is_contiguous(memory_format=torch.channels_last)

    def test_views_are_moved_images_and_no_two_are_alike(self, uncached: Workspace) -> None:
        net, weights = network(uncached, 2)
        assert uncached.data.target is not None
        pool = PoolMaker(uncached, net, weights, cached=False).make(uncached.data.target, None, "shift", 2)
        assert all(view.dtype == torch.uint8 and view.shape == pool.inputs.shape for view in pool.views)
        for one, other in [(pool.inputs, pool.views[0]), (pool.inputs, pool.views[1]), pool.views]:
            gap = (one.float() - other.float()).abs().mean(dim=(1, 2, 3))
            assert gap.min() > 1  # of 255: moved
            assert gap.mean() < 40  # but the same picture


@pytest.mark.parametrize("cached", [True, False])
def test_a_policy_that_was_changed_does_not_find_the_views_it_made_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: bool
) -> None:
    space = workspace(tmp_path, data(domains=False))
    model, weights = space.source_model(MODEL)
    net = Network(model, CLASSES, 2, device=space.device)
    maker = PoolMaker(space, net, weights, cached=cached)
    images = space.data.target
    assert images is not None
    before = [maker.make(images, None, "shift", 1).views[0].clone(), maker.make_moved(images).inputs.clone()]
    assert torch.equal(maker.make(images, None, "shift", 1).views[0], before[0])
    monkeypatch.setitem(augmentation._POLICIES, "shift", Policy(rotation=45.0, brightness=0.5))
    after = [maker.make(images, None, "shift", 1).views[0], maker.make_moved(images).inputs]
    assert not any(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    fresh = workspace(tmp_path / "fresh", data(domains=False))
    assert torch.equal(PoolMaker(fresh, net, weights, cached=cached).make_moved(images).inputs, after[1])


def test_a_source_model_is_kept_under_what_its_policy_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = workspace(tmp_path, data(), pretrain=PretrainSettings(augmentation="shift"))
    before = checkpoint_path(space, "bright", MODEL)
    assert checkpoint_path(space, "bright", MODEL) == before
    monkeypatch.setitem(augmentation._POLICIES, "shift", Policy(rotation=45.0))
    assert checkpoint_path(space, "bright", MODEL) != before


def test_before_the_last_epoch_fewer_unlabelled_images_are_looked_at(tmp_path: Path) -> None:
    space = workspace(tmp_path, data(unlabelled=100, domains=False))
    model, weights = space.source_model(MODEL)
    net = Network(model, CLASSES, 0, device=space.device)
    plain = make_roles(space, net, weights, Strategy(MODEL), 0, None)
    assert plain.sample is not None and [len(pool) for pool in plain.sample] == [PROBE_SAMPLE, PROBE_SAMPLE]
    roles = make_roles(space, net, weights, Strategy(MODEL, adaptation="mcc"), 0, None)
    assert roles.sample is not None and roles.quick_sample is not None
    assert [len(pool) for pool in roles.sample] == [300, 300]
    assert [len(pool) for pool in roles.quick_sample] == [QUICK_SAMPLE, QUICK_SAMPLE]
    assert space.data.unlabelled is not None
    everything = space.data.unlabelled.tensor(net.preprocessing)
    still, moved = (torch.cat(list(pool.batches(64))).float() for pool in roles.quick_sample)
    assert (still - moved).abs().mean() < (still - moved.roll(1, 0)).abs().mean()  # the same images in the same order
    rows = {tuple(image.flatten().tolist()) for image in everything}
    assert len({tuple(image.flatten().tolist()) for image in still} & rows) == QUICK_SAMPLE
    job = TrialJob(Strategy(MODEL), frequencies=(1 / 3,) * 3)
    history = run_trial(space, job, lambda metrics: None).history
    measured = [set(epoch) & set(validators.names()) for epoch in history]
    assert measured[-1] == {name for name in validators.names() if "source_labels" not in validators.get(name).inputs}
    assert measured[0] == {name for name in measured[-1] if validators.get(name).every_epoch} < measured[-1]


class TestResidents:
    def test_keep_the_most_recent_under_the_budget(self) -> None:
        residents = Residents(torch.device("meta"), budget_bytes=1000)
        small, large = torch.zeros(100), torch.zeros(251)  # 400 and 1,004 bytes
        first = residents.get("a", small)
        assert first.device.type == "meta" and residents.get("a", small) is first
        assert residents.get("large", large) is large
        residents.get("b", small)
        residents.get("a", small)
        residents.get("c", small)  # in the place of b
        assert residents.get("a", small) is first
        assert residents.size_bytes() == 800

    def test_copy_nothing_on_the_cpu(self) -> None:
        residents, tensor = Residents(torch.device("cpu"), 0), torch.zeros(3)
        assert residents.get("a", tensor) is tensor
        assert residents.size_bytes() == 0


def test_the_search_varies_views_only_where_they_save_something(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"""
image_size: {SIDE}
space:
  source_model: [{PRETRAINED}]
  source_domain: none
  cut: any
  augmentation: [none, shift]
  cached_views: [2, 5]
  adaptation: [none, mcc, pseudo-label]
""")
    space = BoundSpace(load_space(str(path)), data())
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for strategy in [space.suggest(study.ask()) for _ in range(150)]:
        strong = strategy.adaptation != "none" and adaptation.get(strategy.adaptation).loss.wants_strong_view
        useful = strategy.cut > 0 and (strong or strategy.augmentation != "none")
        assert strategy.cached_views in ((2, 5) if useful else (0,))
        seen.add((strategy.cut > 0, strong, strategy.augmentation, strategy.cached_views))
    assert len(seen) == 11
