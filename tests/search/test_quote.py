"""What a search is said to take."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tiny import MODEL, PRETRAINED, SIDE, data, workspace

from raytl.search.lanes.cluster import Lanes
from raytl.search.plan.settings import PlanSettings
from raytl.search.quote import Quote, quote
from raytl.search.space.binding import BoundSpace
from raytl.search.space.definition import load_space
from raytl.training.pretrain import checkpoint_path
from raytl.training.workspace import Workspace

SPACE = f"""
epochs: 4
grace_epochs: 1
image_size: {SIDE}
space:
  source_model: ['{PRETRAINED}']
  cut: [0, 2]
  head_lr: [0.01, 0.1]
  augmentation: [none, shift]
"""
PLAN = PlanSettings(trials=10, folds=2, lanes=2, epochs=4, directory=Path())


@pytest.fixture(scope="module")
def bound(tmp_path_factory: pytest.TempPathFactory) -> BoundSpace:
    file = tmp_path_factory.mktemp("space") / "quote.yaml"
    file.write_text(SPACE)
    return BoundSpace(load_space(str(file)), data(8))


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory, bound: BoundSpace) -> Workspace:
    return workspace(tmp_path_factory.mktemp("home"), bound.data, epochs=4)


@pytest.fixture(scope="module")
def told(held: Workspace, bound: BoundSpace) -> Quote:
    return quote(held, bound, PLAN, Lanes(2, 1.0, 0.0), probe_s=30)


def test_ranges_hold_the_expectation(told: Quote) -> None:
    for interval in (told.trial_s, told.search_s):
        assert 0 < interval.low <= interval.value <= interval.high
    assert told.search_s.value > told.trial_s.value


def test_the_default_recipes_and_some_strategies_are_probed(told: Quote) -> None:
    assert [probe.name for probe in told.probed[:3]] == ["fine-tune", "scratch", "source-only"]
    assert "search" in {probe.name for probe in told.probed}
    assert all(probe.epochs == 4 for probe in told.probed if probe.strategy.target_labels)


def test_accuracy_is_that_of_validation_images(told: Quote, held: Workspace) -> None:
    assert told.accuracy is not None
    count = len(held.folds[0][1])
    assert told.accuracy.value * count == pytest.approx(round(told.accuracy.value * count))
    assert 0 <= told.accuracy.low <= told.accuracy.value <= told.accuracy.high <= 1


def test_what_was_made_on_the_way_is_kept(told: Quote, held: Workspace) -> None:
    assert told.pretrain_s == 0
    assert checkpoint_path(held, "bright", MODEL).exists()


def test_disk_holds_at_least_what_the_probe_has_put_there(told: Quote, held: Workspace) -> None:
    pixels = 4 * SIDE * SIDE  # the arrays of moved images and single samples are of the cache's own making
    weights = 4 * sum(p.numel() for p in held.source_model(MODEL)[0].parameters())
    assert told.disk_bytes > weights + pixels * len(held.data.target or ())
    assert told.memory_bytes > 2**28


def test_more_trials_take_longer_and_more_lanes_less(held: Workspace, bound: BoundSpace) -> None:
    def seconds(trials: int, lanes: int) -> float:
        plan = replace(PLAN, trials=trials, lanes=lanes)
        return quote(held, bound, plan, Lanes(lanes, 1.0, 0.0), probe_s=0.5).search_s.value

    assert seconds(10**6, 4) < seconds(10**6, 1) < seconds(10**8, 1)


def test_long_pretraining_is_reckoned_and_not_done(tmp_path: Path, bound: BoundSpace) -> None:
    held = workspace(tmp_path, bound.data)
    held = workspace(tmp_path, bound.data, pretrain=replace(held.settings.pretrain, steps=10**7))
    told = quote(held, bound, PLAN, Lanes(1, 1.0, 0.0), probe_s=1.0)
    assert told.pretrain_s > 60
    assert told.search_s.low > told.pretrain_s
    assert told.accuracy is None  # no pretrained model was tried
    assert not checkpoint_path(held, "bright", MODEL).exists()
    assert {probe.strategy.source_model for probe in told.probed} == {MODEL}


def test_without_target_labels_no_accuracy_is_told(tmp_path: Path) -> None:
    file = tmp_path / "quote.yaml"
    file.write_text(SPACE)
    bound = BoundSpace(load_space(str(file)), data(None))
    told = quote(workspace(tmp_path, bound.data, folds=(0, 0)), bound, PLAN, Lanes(1, 1.0, 0.0), probe_s=3)
    assert told.accuracy is None and told.probed
