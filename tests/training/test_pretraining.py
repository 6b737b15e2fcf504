"""Source models made from source domains: at which size, in how long, and under which name they are kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import MODEL, PRETRAINED, data, workspace

from raytl.core.errors import UserError
from raytl.sources.checkpoint import write_checkpoint
from raytl.training import pretrain
from raytl.training.pretrain import LEAST_STEPS, checkpoint_path, is_hurried, is_pretrained
from raytl.training.workspace import PretrainSettings

PARTS = ("bright", MODEL)


class TestSize:
    @pytest.mark.parametrize(
        ("side", "limit", "expected"),
        [(8, 96, 32), (28, 96, 32), (33, 96, 48), (300, 96, 96), (300, None, 32), (20, 16, 16), (None, 96, 96)],
    )
    def test_small_images_are_not_blown_up(
        self, tmp_path: Path, side: int | None, limit: int | None, expected: int
    ) -> None:
        held = workspace(tmp_path, replace(data(), image_side=side), image_size=limit)
        assert held.source_model(MODEL)[0].preprocessing.size == expected

    def test_networks_with_published_weights_keep_the_size_that_is_asked_for(self, tmp_path: Path) -> None:
        held = workspace(tmp_path, replace(data(), image_side=8), image_size=96)
        assert held.image_size("torchvision:resnet18") == 96

    def test_a_size_in_the_name_goes_before_all_others(self, tmp_path: Path) -> None:
        held = workspace(tmp_path, replace(data(), image_side=16), image_size=16)
        assert held.source_model(f"{MODEL}@48px")[0].preprocessing.size == 48

    def test_the_size_is_part_of_what_a_model_is_kept_under(self, tmp_path: Path) -> None:
        small = workspace(tmp_path, replace(data(), image_side=16), image_size=64)
        large = workspace(tmp_path, replace(data(), image_side=60), image_size=64)
        assert checkpoint_path(small, *PARTS) != checkpoint_path(large, *PARTS)


class TestTime:
    def test_too_little_of_it_makes_fewer_steps_and_a_model_of_its_own(self, tmp_path: Path) -> None:
        settings = PretrainSettings(steps=LEAST_STEPS + 40, batch_size=16, augmentation="none")
        hurried = workspace(tmp_path, data(), pretrain=settings, pretrain_s=0.001)
        patient = workspace(tmp_path, data(), pretrain=settings)
        weights = hurried.source_model(PRETRAINED)[1]
        assert is_pretrained(hurried, *PARTS) and not is_pretrained(patient, *PARTS)
        assert is_hurried(hurried, PRETRAINED) and not is_hurried(hurried, MODEL)
        assert not is_hurried(workspace(tmp_path / "elsewhere", data(), pretrain_s=0.001), PRETRAINED)  # none is there
        assert weights != patient.source_model(PRETRAINED)[1]
        assert not is_hurried(patient, PRETRAINED)
        replayed = workspace(tmp_path, data(), pretrain=settings, pretrain_s=0.001, hurried=(PRETRAINED,))
        assert replayed.source_model(PRETRAINED)[1] == weights  # a whole one is there by now
        again = workspace(tmp_path, data(), pretrain=settings, pretrain_s=0.001)
        assert again.source_model(PRETRAINED)[1] == patient.source_model(PRETRAINED)[1]  # the whole one is there now

    def test_what_would_take_many_times_as_long_is_given_up_after_some_steps(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pretrain, "LITTLE_S", 0.0)
        hurried = workspace(tmp_path, data(), pretrain_s=1e-6)
        with pytest.raises(UserError, match=f"^bright: too slow to be learned by {MODEL}: 12 steps would take "):
            hurried.source_model(PRETRAINED)
        assert not is_pretrained(hurried, *PARTS)

    def test_enough_of_it_changes_nothing(self, tmp_path: Path) -> None:
        settings = PretrainSettings(steps=LEAST_STEPS + 10, batch_size=16, augmentation="none")
        unhurried = workspace(tmp_path / "a", data(), pretrain=settings, pretrain_s=600.0)
        patient = workspace(tmp_path / "b", data(), pretrain=settings)
        assert unhurried.source_model(PRETRAINED)[1] == patient.source_model(PRETRAINED)[1]
        assert checkpoint_path(unhurried, *PARTS).exists()


class TestWhatTheNameDependsOn:
    def test_the_groups_of_the_domain_for_other_images_are_held_out_by_them(self, tmp_path: Path) -> None:
        held = data()
        domain = held.source_domains["bright"]
        grouped = replace(domain, groups=np.arange(len(domain)) // 3)
        alone = workspace(tmp_path, held)
        together = workspace(tmp_path, replace(held, source_domains={**held.source_domains, "bright": grouped}))
        assert not np.array_equal(alone.source_split("bright")[1], together.source_split("bright")[1])
        assert checkpoint_path(alone, *PARTS) != checkpoint_path(together, *PARTS)

    @pytest.mark.parametrize("ending", ["", "@48px"])
    def test_the_weights_in_a_folder_of_ones_own(self, tmp_path: Path, ending: str) -> None:
        space = workspace(tmp_path, data())
        model, _ = space.source_model(MODEL)
        model.labels = tuple(str(number) for number in range(model.feature_dim))
        folder = tmp_path / "own"
        paths = set()
        for shift in (0.0, 1.0):
            with torch.no_grad():
                next(model.parameters()).add_(shift)
            write_checkpoint(folder, model, {})
            parts = (PARTS[0], f"file:{folder}{ending}")
            paths |= {checkpoint_path(space, *parts), checkpoint_path(space, *parts)}
        assert len(paths) == 2
