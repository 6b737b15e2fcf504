"""Heads that are trained side by side: with the numbers that each has alone, and those of the general loop."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import PRETRAINED, SIDE, STAGES, data, workspace

from raytl.sources.heads import MlpHead
from raytl.tasks import LabelledImages, TrainingData
from raytl.tasks.items import PixelsItem
from raytl.training.heads import common_settings, train_together
from raytl.training.loop import run_trial
from raytl.training.stacks import TILE
from raytl.training.strategy import Strategy
from raytl.training.trial import TrialError, TrialJob, TrialResult
from raytl.training.workspace import Workspace

OTHER = "pretrain:other/scratch:cnn-small"
PROBE = Strategy(PRETRAINED, cut=STAGES, head_lr=0.05)
HEADS = [
    PROBE,
    replace(PROBE, optimizer="adamw", head_lr=0.003, weight_decay=0.05),
    replace(PROBE, head_lr=0.02, label_smoothing=0.1, schedule="inverse", warmup=0.0),
    replace(PROBE, optimizer="adamw", head_lr=0.01, ema=0.9, schedule="constant"),
    replace(PROBE, head_lr=0.1, ema=0.98, weight_decay=0.1),
]
SITUATIONS: dict[str, dict[str, Any]] = {
    "target": {},
    "a head that is new": {"source_model": OTHER},
    "with a source domain": {"source_domain": "bright"},
    "source domain alone": {"source_domain": "bright", "target_labels": False},
    "cached views": {"augmentation": "shift", "cached_views": 2},
}


def jobs(fold: int | None = 0, **common: Any) -> list[TrialJob]:
    return [TrialJob(replace(strategy, **common), fold) for strategy in HEADS]


def alone(space: Workspace, job: TrialJob) -> TrialResult:
    return run_trial(space, job, lambda metrics: None)


def together(space: Workspace, some: list[TrialJob]) -> list[TrialResult]:
    results = [result for result in train_together(space, some) if isinstance(result, TrialResult)]
    assert len(results) == len(some)
    return results


def numbers(result: TrialResult) -> list[dict[str, float]]:
    return [{key: value for key, value in metrics.items() if key != "seconds"} for metrics in result.history]


def same_bits(a: TrialResult, b: TrialResult) -> bool:
    weights = zip(a.model.state_dict().values(), b.model.state_dict().values(), strict=True)
    return (
        numbers(a) == numbers(b)
        and np.array_equal(a.validation_probabilities, b.validation_probabilities)
        and all(torch.equal(one, other) for one, other in weights)
    )


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return workspace(tmp_path_factory.mktemp("cached"), data(), epochs=3)


@pytest.fixture(scope="module")
def uncached(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return workspace(tmp_path_factory.mktemp("uncached"), data(), epochs=3, activation_cache=False)


@pytest.mark.parametrize("situation", SITUATIONS)
class TestEveryHead:
    def test_has_the_bits_that_it_has_alone(self, space, situation):
        some = jobs(**SITUATIONS[situation])
        results = together(space, some)
        assert all(same_bits(result, alone(space, job)) for result, job in zip(results, some, strict=True))
        assert len({str(numbers(result)) for result in results}) == len(results)

    def test_has_the_numbers_of_the_general_loop(self, space, uncached, situation):
        for job in jobs(**SITUATIONS[situation]):
            quick, slow = alone(space, job), alone(uncached, job)
            assert len(quick.history) == len(slow.history) == 3
            for one, other in zip(numbers(quick), numbers(slow), strict=True):
                assert one == pytest.approx(other, rel=1e-3, abs=1e-4)
            for own, expected in zip(quick.model.head.parameters(), slow.model.head.parameters(), strict=True):
                np.testing.assert_allclose(own.detach(), expected.detach(), rtol=1e-3, atol=1e-4)


class TestCompany:
    @settings(
        deadline=None,
        max_examples=25,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    @given(
        order=st.lists(st.sampled_from(range(len(HEADS))), min_size=1, max_size=8),
        threads=st.sampled_from([1, 2]),
    )
    def test_does_not_change_a_number(self, space, order, threads):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            known = [alone(space, job) for job in jobs()]
            results = together(space, [jobs()[index] for index in order])
        finally:
            torch.set_num_threads(before)
        assert all(same_bits(result, known[index]) for index, result in zip(order, results, strict=True))

    @pytest.mark.parametrize("classes", [2, TILE, TILE + 1, 3 * TILE + 5])
    def test_does_not_change_a_number_with_any_count_of_classes(self, tmp_path, classes):
        rng = np.random.default_rng(0)
        items = [PixelsItem(str(i), rng.integers(0, 255, (SIDE, SIDE), dtype=np.uint8)) for i in range(4 * classes)]
        labels = np.arange(4 * classes, dtype=np.int64) % classes
        names = tuple(f"class {index:02}" for index in range(classes))
        task = TrainingData("noise", names, LabelledImages("noise", items, None, names, labels), None, {}, channels=1)
        space = workspace(tmp_path, task)
        some = jobs(source_model="scratch:cnn-small")
        results = together(space, some)
        assert all(same_bits(result, alone(space, job)) for result, job in zip(results, some, strict=True))
        assert results[0].validation_probabilities.shape[1] == classes
        np.testing.assert_allclose(results[0].validation_probabilities.sum(1), 1, rtol=1e-5)

    def test_that_diverges_leaves_the_others_alone(self, space):
        wild = TrialJob(replace(PROBE, head_lr=1e38))
        first, failed, last = train_together(space, [jobs()[0], wild, jobs()[1]])
        assert isinstance(failed, TrialError)
        assert "head_lr 1e+38" in str(failed)
        with pytest.raises(TrialError, match=re.escape(str(failed))):
            alone(space, wild)
        for result, job in ((first, jobs()[0]), (last, jobs()[1])):
            assert isinstance(result, TrialResult) and same_bits(result, alone(space, job))


class TestResult:
    def test_is_a_model_that_says_what_was_measured(self, space):
        results = together(space, jobs())
        images = space.data.target.subset(results[0].validation_index)
        for result in results:
            pixels = space.pixels(images, result.model.preprocessing)
            with torch.inference_mode():
                said = result.model.eval()(result.model.preprocessing.normalise(pixels)).softmax(1)
            np.testing.assert_allclose(said.numpy(), result.validation_probabilities, atol=1e-5)

    def test_can_be_trained_on(self, space):
        model = together(space, jobs())[0].model
        model(torch.zeros(2, 1, SIDE, SIDE)).sum().backward()
        assert model.head.weight.grad.abs().sum() > 0

    def test_of_a_final_job_is_measured_once(self, space):
        reports: list[dict[str, Any]] = []
        run_trial(space, replace(jobs()[0], final=True), reports.append)
        assert ["score" in metrics for metrics in reports] == [False, False, True]
        assert [metrics["last"] for metrics in reports] == [False, False, True]

    def test_without_a_fold_has_no_validation(self, space):
        (result,) = together(space, [jobs(fold=None)[0]])
        assert result.validation_probabilities.shape == (0, 3)
        assert same_bits(result, alone(space, jobs(fold=None)[0]))


class TestNotTogether:
    """Nothing is trained, so that the caller trains them one by one."""

    @pytest.mark.parametrize(
        "odd",
        [
            {"cut": STAGES - 1},
            {"head": "mlp"},
            {"source_domain": "bright"},
            {"augmentation": "shift", "cached_views": 1},
            {"adaptation": "adabn"},
        ],
        ids=lambda values: next(iter(values)),
    )
    def test_strategies_that_differ_below_the_head(self, space, odd):
        assert train_together(space, [TrialJob(PROBE), TrialJob(replace(PROBE, **odd))]) == []

    def test_heads_with_a_hidden_layer(self, space):
        """They are trained one by one, and that they learn."""
        assert train_together(space, jobs(head="mlp")) == []
        result = alone(space, jobs(head="mlp")[1])
        assert isinstance(result.model.head, MlpHead)
        losses = [metrics["train_loss"] for metrics in result.history]
        assert losses == sorted(losses, reverse=True)

    def test_different_folds(self, space):
        assert train_together(space, [TrialJob(PROBE, 0), TrialJob(PROBE, 1)]) == []

    def test_images_that_are_augmented_anew(self, space):
        assert train_together(space, jobs(augmentation="shift")) == []

    def test_features_that_the_cache_has_no_room_for(self, tmp_path: Path, monkeypatch):
        monkeypatch.setenv("RAYTL_CACHE_BYTES", "2000")
        assert train_together(workspace(tmp_path, data()), jobs()) == []


def test_settings_of_the_head_are_not_common():
    assert all(common_settings(strategy) == common_settings(PROBE) for strategy in HEADS)
    assert common_settings(replace(PROBE, source_domain="bright")) != common_settings(PROBE)
