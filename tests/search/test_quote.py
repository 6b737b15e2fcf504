"""What a search is said to take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
from tiny import MODEL, PRETRAINED, SIDE, data, workspace

from raytl.core.errors import UserError
from raytl.search.lanes.cluster import Lanes
from raytl.search.planning import SearchSettings
from raytl.search.quote import Probed, Quote, quote
from raytl.search.space.binding import BoundSpace
from raytl.search.space.definition import load_space
from raytl.training.pretrain import checkpoint_path
from raytl.training.strategy import Strategy
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
WISHES = SearchSettings(trials=10)
QUOTING = import_module("raytl.search.quote")  # `raytl.search` by its dots is the function


@pytest.fixture(scope="module", autouse=True)
def _rehearsed_thrice() -> Iterator[None]:
    """Of a middle and a range three tell as well as five."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(QUOTING, "OFTEN", 3)
        yield


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
    """With time for all that is looked at, however busy the machine is."""
    return quote(held, bound, WISHES, Lanes(2, 1.0, 0.0), test_images=0, probe_s=600)


def test_ranges_hold_the_expectation(told: Quote) -> None:
    for interval in (told.trial_s, told.search_s):
        assert 0 < interval.low <= interval.value <= interval.high
    assert told.search_s.value > told.trial_s.value


def test_the_default_recipes_and_some_strategies_are_timed(told: Quote) -> None:
    assert [probe.name for probe in told.probed[:3]] == ["fine-tune", "scratch", "source-only"]
    assert "search" in {probe.name for probe in told.probed}
    assert all(probe.epochs == 4 for probe in told.probed if probe.strategy.target_labels)


def test_the_search_is_rehearsed_with_its_probes_baselines_and_trials(told: Quote) -> None:
    # Ten of the search, three baselines, and the probes of plain pixels and of the pretrained model: four and five.
    assert 10 < told.strategies.low <= told.strategies.value <= told.strategies.high <= 10 + 3 + 4 + 5


def test_accuracy_is_what_the_search_would_state_of_its_first_model(told: Quote, held: Workspace) -> None:
    assert told.accuracy is not None
    assert 0 <= told.accuracy.low <= told.accuracy.value <= told.accuracy.high <= 1
    assert told.metric == held.settings.metric


@pytest.mark.parametrize(("budget_s", "expected_s"), [(None, 60.0), (30.0, 15.0), (900.0, 60.0)])
def test_who_asks_what_a_short_search_brings_does_not_wait_for_longer(
    held: Workspace, bound: BoundSpace, budget_s: float | None, expected_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two minutes went into what half a minute would bring."""
    asked: list[float] = []

    def probed(workspace: Workspace, name: str, strategy: Strategy, at_most_s: float) -> Probed | None:
        asked.append(at_most_s)
        return None

    monkeypatch.setattr(QUOTING, "_probe", probed)
    with pytest.raises(UserError, match="none of the strategies"):
        quote(held, bound, SearchSettings(time_budget_s=budget_s), Lanes(2, 1.0, 0.0), test_images=0)
    assert expected_s / 12 <= max(asked) <= expected_s / 3


def test_what_was_made_on_the_way_is_kept(told: Quote, held: Workspace) -> None:
    assert told.pretrain_s == 0
    assert 0 < told.kept_s < told.probe_s
    assert checkpoint_path(held, "bright", MODEL).exists()


def test_disk_holds_at_least_what_the_probe_has_put_there(told: Quote, held: Workspace) -> None:
    pixels = 4 * SIDE * SIDE  # the arrays of moved images and single samples are of the cache's own making
    weights = 4 * sum(p.numel() for p in held.source_model(MODEL)[0].parameters())
    assert told.disk_bytes > weights + pixels * len(held.data.target or ())
    assert told.memory_bytes > 2**28


def test_disk_holds_each_model_that_a_search_keeps_until_its_end(held: Workspace, bound: BoundSpace) -> None:
    """Where there is a test split, what it is held against is made ready for it too: baselines and controls."""
    weights = 4 * sum(p.numel() for p in held.source_model(MODEL)[0].parameters())

    def told_of(test_images: int) -> int:
        wishes = replace(WISHES, trials=3)
        return quote(held, bound, wishes, Lanes(1, 1.0, 0.0), test_images=test_images, probe_s=1.0).disk_bytes

    assert told_of(4) >= told_of(0) + 3 * weights  # the baselines
    assert told_of(0) > 3 * weights + 4 * 2**20  # with one that is replaced, and the report


def test_of_a_million_trials_the_first_ones_tell_of_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QUOTING, "MOST_TRIALS", 16)
    file = tmp_path / "rates.yaml"
    file.write_text(SPACE.replace("[0.01, 0.1]", "{low: 0.001, high: 1.0, log: true}"))
    bound = BoundSpace(load_space(str(file)), data(8))
    wishes = SearchSettings(trials=10**6)
    told = quote(workspace(tmp_path, bound.data), bound, wishes, Lanes(1, 1.0, 0.0), test_images=0, probe_s=0.5)
    assert told.strategies.value == pytest.approx(10**6, rel=0.1)
    assert told.search_s.value > 100 * told.trial_s.low
    hour = replace(wishes, time_budget_s=3600.0)
    told = quote(workspace(tmp_path, bound.data), bound, hour, Lanes(1, 1.0, 0.0), test_images=0, probe_s=0.5)
    assert told.search_s.high < 1.1 * 3600
    # Each is trained for an epoch at least, of four. "66,690 strategies" was said of 8 minutes, of which 23 came.
    assert told.strategies.low > 60 and told.strategies.high < 2 * 4 * 3600 / told.trial_s.low
    alone = replace(hour, trials=None)
    told = quote(workspace(tmp_path, bound.data), bound, alone, Lanes(1, 1.0, 0.0), test_images=0, probe_s=0.5)
    assert told.trials is None and 100 < told.strategies.value < 10**6 and told.search_s.high < 1.1 * 3600


def test_a_time_budget_is_kept_and_less_is_tried(held: Workspace, bound: BoundSpace, told: Quote) -> None:
    wishes = replace(WISHES, trials=60, time_budget_s=20.0)
    short = quote(held, bound, wishes, Lanes(1, 1.0, 0.0), test_images=0, probe_s=1.0)
    assert short.search_s.value < 40 + max(probe.seconds for probe in short.probed)
    assert short.time_budget_s == 20.0
    assert short.strategies.value < 60


def test_long_pretraining_is_reckoned_and_not_done(tmp_path: Path, bound: BoundSpace) -> None:
    held = workspace(tmp_path, bound.data)
    held = workspace(tmp_path, bound.data, pretrain=replace(held.settings.pretrain, steps=10**7))
    told = quote(held, bound, WISHES, Lanes(1, 1.0, 0.0), test_images=0, probe_s=1.0)
    assert told.pretrain_s > 60
    assert told.search_s.low > told.pretrain_s
    assert not checkpoint_path(held, "bright", MODEL).exists()
    assert {probe.strategy.source_model for probe in told.probed} == {MODEL}


def test_without_target_labels_no_accuracy_is_told(tmp_path: Path) -> None:
    file = tmp_path / "quote.yaml"
    file.write_text(SPACE)
    bound = BoundSpace(load_space(str(file)), data(None))
    held = workspace(tmp_path, bound.data, folds=(0, 0))
    told = quote(held, bound, WISHES, Lanes(1, 1.0, 0.0), test_images=0, probe_s=3)
    assert told.accuracy is None and told.probed


def test_where_nothing_would_tell_what_is_better_no_training_is_timed(tmp_path: Path) -> None:
    """As the search trains nothing there: with one image a class none can be held out."""
    file = tmp_path / "quote.yaml"
    file.write_text(SPACE.replace(PRETRAINED, MODEL))
    bound = BoundSpace(load_space(str(file)), data(1, None, domains=False))
    held = workspace(tmp_path, bound.data, folds=(0, 0))
    told = quote(held, bound, WISHES, Lanes(1, 1.0, 0.0), test_images=0, probe_s=3)
    assert not told.probed and told.trial_s is None and told.trials == 0
    assert told.strategies.value > 0 and told.search_s.value > 0
