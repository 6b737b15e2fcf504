"""What two domains, batch norm and the pull towards the source model do to a trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import MODEL, PRETRAINED, data, shapes, workspace

from raytl.core.hashing import hash_tensors
from raytl.sources import SourceModel
from raytl.tasks import Images
from raytl.training import Strategy
from raytl.training.loop import run_trial
from raytl.training.trial import TrialJob, TrialResult
from raytl.training.workspace import PretrainSettings, Workspace

SOURCE_ONLY: dict[str, Any] = {"source_model": PRETRAINED, "source_domain": "bright", "target_labels": False}


@pytest.fixture(scope="module")
def shifted(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The target is the source domain in other light: contrast down to a third, and brighter."""
    held = data(target=12, unlabelled=40, contrast=0.3, light=140.0)
    pretrain = PretrainSettings(steps=80, batch_size=16, augmentation="none")
    return workspace(tmp_path_factory.mktemp("shifted"), held, epochs=1, steps=3, pretrain=pretrain)


def train(space: Workspace, **values: Any) -> TrialResult:
    return run_trial(space, TrialJob(Strategy.from_dict({"head_lr": 1e-4} | values)), lambda metrics: None)


def first_norm(model: SourceModel) -> Any:
    return model.stage_list()[0][1]


def means_before_norm(model: SourceModel, images: Images) -> torch.Tensor:
    """Per channel, over images and places: what the first batch norm sees in these images."""
    with torch.no_grad():
        convolved = model.stage_list()[0][0](model.preprocessing.normalise(images.tensor(model.preprocessing)))
    return convolved.mean((0, 2, 3))


class TestAdaBN:
    def test_recovers_what_another_light_costs(self, shifted: Workspace) -> None:
        plain = train(shifted, **SOURCE_ONLY)
        adapted = train(shifted, **SOURCE_ONLY, adaptation="adabn")
        assert plain.metrics["source-accuracy"] > 0.9
        assert adapted.metrics["target-accuracy"] > plain.metrics["target-accuracy"] + 0.2
        assert adapted.metrics["target-accuracy"] > 0.85

    def test_the_returned_model_has_the_statistics_of_the_target(self, shifted: Workspace) -> None:
        model = train(shifted, **SOURCE_ONLY, adaptation="adabn").model
        assert shifted.data.unlabelled is not None
        assert torch.allclose(
            first_norm(model).running_mean, means_before_norm(model, shifted.data.unlabelled), atol=1e-3
        )

    def test_does_not_depend_on_the_order_of_the_images(self, tmp_path: Path) -> None:
        """300 images, class after class: whole batches of one class would have statistics of their own."""
        held = data(target=4, unlabelled=100, contrast=0.5)
        assert held.unlabelled is not None
        settings: dict[str, Any] = {"pretrain": PretrainSettings(steps=60, batch_size=16, augmentation="none")}
        mixed = np.random.default_rng(0).permutation(300)
        results = []
        for i, images in enumerate([held.unlabelled, held.unlabelled.subset(mixed)]):
            other = type(held)(**{**vars(held), "unlabelled": images})
            space = workspace(tmp_path / str(i), other, epochs=1, steps=1, **settings)
            results.append(train(space, **SOURCE_ONLY, adaptation="adabn", head_lr=1e-6).model)
        deepest = [model.stage_list()[-1][0][1].running_var for model in results]
        assert torch.allclose(*deepest, rtol=0.05)

    def test_an_epoch_in_between_is_scored_with_them_but_goes_on_without(self, shifted: Workspace) -> None:
        longer = workspace(
            shifted.cache.root.parent, shifted.data, epochs=3, steps=2, pretrain=shifted.settings.pretrain
        )
        scored = [entry["target-accuracy"] for entry in train(longer, **SOURCE_ONLY, adaptation="adabn").history]
        assert min(scored) > 0.85


class TestBatchNorm:
    def gaps(self, space: Workspace, batch_norm: str) -> tuple[float, float]:
        """How far the first running mean has come from the source domain's to the target's, as shares 0 and 1."""
        model = train(space, source_model=MODEL, source_domain="bright", batch_norm=batch_norm, head_lr=1e-6).model
        target, source = space.data.target, space.data.source_domains["bright"]
        assert target is not None
        t, s = means_before_norm(model, target), means_before_norm(model, source)
        mean = first_norm(model).running_mean
        return float((mean - t).norm()), float((mean - s).norm())

    def test_separate_remembers_the_target_alone_and_joint_both(self, tmp_path: Path) -> None:
        held = data(target=12, unlabelled=None, contrast=0.3, light=140.0)
        space = workspace(tmp_path, held, epochs=3, steps=20)
        to_target, to_source = self.gaps(space, "separate")
        assert to_target < 0.05 * to_source
        to_target, to_source = self.gaps(space, "joint")
        assert 0.5 < to_target / to_source < 2.0


class TestL2SP:
    @pytest.fixture(scope="class")
    def space(self, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
        """One step on one batch that holds every training image, so that two trials see the same."""
        held = data(target=4, unlabelled=None)
        return workspace(tmp_path_factory.mktemp("l2"), held, epochs=1, steps=1, folds=(3, 1))

    def weights(self, space: Workspace, **values: Any) -> tuple[torch.Tensor, torch.Tensor]:
        common = {"source_model": PRETRAINED, "head_lr": 0.1, "backbone_ratio": 1.0, "warmup": 0.0}
        model = train(space, **common, **values).model
        return model.stage_list()[1][0].weight.detach(), model.head.weight.detach()

    def test_the_batch_is_the_whole_training_fold(self, space: Workspace) -> None:
        sizes = {len(training) for training, _ in space.folds}
        assert {space.settings.budget.batch_for(size) for size in sizes} == sizes

    def test_takes_the_place_of_weight_decay_below_the_head(self, space: Workspace) -> None:
        backbone, head = self.weights(space, regulariser="l2-sp", weight_decay=0.0)
        decayed_backbone, decayed_head = self.weights(space, regulariser="l2-sp", weight_decay=0.5)
        assert torch.allclose(backbone, decayed_backbone, atol=1e-5)
        assert (decayed_head - head).norm() > 0.01 * head.norm()

    def test_other_regularisers_stand_beside_it(self, space: Workspace) -> None:
        backbone, _ = self.weights(space, regulariser="bss", weight_decay=0.0)
        decayed, _ = self.weights(space, regulariser="bss", weight_decay=0.5)
        assert (decayed - backbone).norm() > 0.01 * backbone.norm()

    def test_keeps_the_weights_near_the_source_model(self, tmp_path: Path) -> None:
        space = workspace(tmp_path, data(unlabelled=None), epochs=2, steps=10)
        start = space.source_model(PRETRAINED)[0].stage_list()[1][0].weight.detach()
        common: dict[str, Any] = {"source_model": PRETRAINED, "head_lr": 0.1, "backbone_ratio": 1.0}
        free = train(space, **common).model
        held = train(space, **common, regulariser="l2-sp", **{"regulariser.weight": 1.0}).model
        gaps = [float((model.stage_list()[1][0].weight.detach() - start).norm()) for model in (free, held)]
        assert gaps[1] < 0.5 * gaps[0]


class TestPretraining:
    def test_learns_the_source_domain(self, shifted: Workspace) -> None:
        model, _ = shifted.source_model(PRETRAINED)
        new = shapes(20, 77)
        with torch.no_grad():
            logits = model.eval()(model.preprocessing.normalise(new.tensor(model.preprocessing)))
        assert float((logits.argmax(1).numpy() == new.labels).mean()) > 0.85

    def test_another_process_finds_it_on_disk_and_reads_the_same_weights(self, shifted: Workspace) -> None:
        _, weights = shifted.source_model(PRETRAINED)
        other = Workspace(shifted.data, shifted.settings, shifted.cache.root.parent)
        before = {path: path.stat().st_mtime_ns for path in other.models_root.glob("*/model.json")}
        assert other.source_model(PRETRAINED)[1] == weights
        assert {path: path.stat().st_mtime_ns for path in other.models_root.glob("*/model.json")} == before

    def test_a_damaged_one_is_trained_again(self, tmp_path: Path) -> None:
        space = workspace(tmp_path, data())
        _, weights = space.source_model(PRETRAINED)
        path = next(space.models_root.glob("*/model.safetensors"))
        path.write_bytes(path.read_bytes()[:100])
        assert workspace(tmp_path, data()).source_model(PRETRAINED)[1] == weights

    def test_changed_settings_train_another_one(self, tmp_path: Path) -> None:
        one = workspace(tmp_path, data()).source_model(PRETRAINED)[1]
        changed = PretrainSettings(steps=13, batch_size=16, augmentation="none")
        assert workspace(tmp_path, data(), pretrain=changed).source_model(PRETRAINED)[1] != one

    def test_a_domain_of_one_class_teaches_nothing_but_does_not_fail(self, tmp_path: Path) -> None:
        held = data()
        one = type(held)(**{**vars(held), "source_domains": {"single": shapes(6, classes=("x",))}})
        space = workspace(tmp_path, one)
        assert np.isfinite(train(space, source_model=f"pretrain:single/{MODEL}").metrics["score"])

    def test_models_handed_out_are_copies(self, shifted: Workspace) -> None:
        model, weights = shifted.source_model(PRETRAINED)
        with torch.no_grad():
            model.head.weight.zero_()
        again, _ = shifted.source_model(PRETRAINED)
        assert hash_tensors(again.state_dict()) == weights
