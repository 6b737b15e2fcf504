"""On a GPU (an emulated one): every strategy trains there, to the numbers of the CPU, and no step waits for it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from emulated_cuda import DEVICE, MEMORY_BYTES, emulated_cuda
from tiny import MODEL, STAGES, data, workspace

from raytl import adaptation, finetuning
from raytl.search.propose.features import pooled_features
from raytl.training import Strategy
from raytl.training.loop import run_trial
from raytl.training.pretrain import train_source_model
from raytl.training.residents import DEVICE_SHARE, Residents
from raytl.training.trial import TrialJob, TrialResult
from raytl.training.workspace import PretrainSettings, Workspace

STEPS = 3
BASE = Strategy(MODEL, cut=2, source_domain="bright", augmentation="none")
STRATEGIES = {
    "cached": replace(BASE, source_domain=None),
    "from pixels": replace(BASE, cut=0, augmentation="color"),
    "cached views": replace(BASE, augmentation="shift", cached_views=2),
    "linear head": replace(BASE, cut=STAGES),
    "from the probe": replace(BASE, start="probe"),
    "balanced classes": replace(BASE, class_weights="balanced"),
    "mlp head": replace(BASE, cut=STAGES, head="mlp"),
    "separate batch norm": replace(BASE, batch_norm="separate"),
    "averaged adamw": replace(BASE, optimizer="adamw", ema=0.9, label_smoothing=0.1),
    **{
        f"adaptation {name}": replace(BASE, adaptation=name)
        for name in adaptation.names()
        if adaptation.get(name).trains
    },
    **{f"regulariser {name}": replace(BASE, regulariser=name) for name in finetuning.regularisers.names()},
}

SAME_DRAWS = {
    name
    for name, strategy in STRATEGIES.items()
    if strategy.augmentation == "none" and "pseudo-label" not in strategy.adaptation
}
"""A GPU augments by draws of its own."""


def train(space: Workspace, strategy: Strategy) -> TrialResult:
    return run_trial(space, TrialJob(strategy, 0), lambda metrics: None)


def on_gpu(root: Path, **settings: Any) -> Workspace:
    return workspace(root, data(), device="cuda:0", **settings)


def waits(root: Path, strategy: Strategy, steps: int, **settings: Any) -> Counter[str]:
    """Of a trial in a workspace that has seen one like it: nothing is left to be cached."""
    with emulated_cuda() as gpu:
        space = on_gpu(root, steps=steps, **settings)
        train(space, strategy)
        gpu.waits.clear()
        train(space, strategy)
        return Counter(gpu.waits)


@pytest.mark.parametrize("name", STRATEGIES)
def test_no_step_waits_for_the_device(tmp_path: Path, name: str) -> None:
    few, many = (waits(tmp_path, STRATEGIES[name], steps) for steps in (STEPS, 2 * STEPS))
    assert few, "an epoch ends with a look at the loss and the predictions"
    assert many == few


def test_no_step_waits_where_the_images_stay_on_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Residents, "get", lambda self, key, host: host)
    few, many = (waits(tmp_path, STRATEGIES["from pixels"], steps) for steps in (STEPS, 2 * STEPS))
    assert many == few


@pytest.mark.parametrize("name", sorted(SAME_DRAWS))
def test_the_numbers_are_those_of_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """In full precision, which is what the CPU trains in. Both start from one source model and see the same batches."""
    strategy = STRATEGIES[name]
    cpu = train(workspace(tmp_path / "cpu", data()), strategy)
    real = torch.autocast
    with emulated_cuda():
        monkeypatch.setattr(torch, "autocast", lambda kind, *args, **kwargs: real("cpu", enabled=False))
        gpu = train(on_gpu(tmp_path / "gpu"), strategy)
    np.testing.assert_allclose(gpu.validation_probabilities, cpu.validation_probabilities, atol=1e-4)


def test_half_precision_is_used_and_stays_inside(tmp_path: Path) -> None:
    with emulated_cuda():
        space = on_gpu(tmp_path)
        seen: set[torch.dtype] = set()
        hook = torch.nn.modules.module.register_module_forward_hook(lambda module, args, out: seen.add(out.dtype))
        try:
            result = train(space, STRATEGIES["from pixels"])
        finally:
            hook.remove()
    assert torch.bfloat16 in seen
    assert {tensor.dtype for tensor in result.model.parameters()} == {torch.float32}
    assert result.validation_probabilities.dtype == np.float32


def test_source_models_are_pretrained_on_it(tmp_path: Path) -> None:
    held = data()
    seen = []
    for steps in (16, 18):  # between two looks at the loss
        with emulated_cuda() as gpu:
            space = on_gpu(tmp_path)
            start, _ = space.source_model(MODEL)
            train_index, held_out = space.source_split("bright")
            settings = PretrainSettings(steps=steps, batch_size=16)
            model, accuracy, done = train_source_model(
                space, start, held.source_domains["bright"], train_index, held_out, settings, seed=0
            )
            assert done == steps
            assert 0 <= accuracy <= 1
            assert next(model.parameters()).device == DEVICE
            seen.append(Counter(gpu.waits))
    assert seen[0] == seen[1]


def test_a_head_is_solved_for_as_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strategy = Strategy(MODEL, cut=STAGES, head="logistic", source_domain="bright")
    cpu = train(workspace(tmp_path / "cpu", data()), strategy)
    real = torch.autocast
    with emulated_cuda():
        monkeypatch.setattr(torch, "autocast", lambda kind, *args, **kwargs: real("cpu", enabled=False))
        gpu = train(on_gpu(tmp_path / "gpu"), strategy)
    np.testing.assert_allclose(gpu.validation_probabilities, cpu.validation_probabilities, atol=1e-4)


def test_source_models_make_the_same_of_images_as_on_the_cpu(tmp_path: Path) -> None:
    here = workspace(tmp_path / "cpu", data())
    assert here.data.target is not None
    expected = pooled_features(here, MODEL, here.data.target)
    with emulated_cuda():
        there = pooled_features(on_gpu(tmp_path / "gpu"), MODEL, here.data.target)
    assert len(there) == len(expected) == STAGES
    for ours, theirs in zip(there, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


@pytest.mark.parametrize(("share", "limits"), [(1.0, []), (0.25, [0.25])])
def test_a_lane_that_shares_a_gpu_keeps_to_its_share(tmp_path: Path, share: float, limits: list[float]) -> None:
    """Also with what it keeps there between trials, of which the training itself must not run out of room."""
    with emulated_cuda() as gpu:
        space = workspace(tmp_path, data(), device="auto", gpu_share=share)
    assert gpu.limits == limits
    assert space.device == DEVICE
    assert space.residents.budget_bytes == DEVICE_SHARE * share * MEMORY_BYTES


class TestTheEmulation:
    """It must notice what it is there to notice."""

    def test_tensors_of_two_devices_are_refused(self) -> None:
        with emulated_cuda():
            there = torch.ones(2).to(DEVICE)
            with pytest.raises(RuntimeError, match="same device"):
                there + torch.ones(2)
            with pytest.raises(RuntimeError, match="same device"):
                torch.nn.Linear(2, 1).to(DEVICE)(torch.ones(1, 2))
            with pytest.raises(TypeError, match="numpy"):
                there.numpy()

    @pytest.mark.parametrize(
        "look",
        [
            lambda there: there.sum().item(),
            lambda there: float(there[0]),
            lambda there: bool(there.any()),
            lambda there: there.tolist(),
            lambda there: there.cpu(),
            lambda there: there[there > 0],
            lambda there: there[torch.tensor([0])],
            lambda there: there.nonzero(),
            lambda there: torch.ones(2).to(there.device),
            lambda there: torch.ones(2).to(there),
            lambda there: torch.ones(2).to(there.device, non_blocking=True),  # not pinned
            lambda there: torch.tensor([1.0], device=there.device),
            lambda there: there.new_tensor([1.0]),
            lambda there: there.copy_(torch.ones(2)),
            lambda there: torch.cuda.synchronize(),
        ],
    )
    def test_every_wait_is_seen(self, look: Any) -> None:
        with emulated_cuda() as gpu:
            there = torch.ones(2, device=DEVICE)
            assert not gpu.waits
            look(there)
            assert len(gpu.waits) == 1

    def test_what_needs_no_wait_is_not_one(self) -> None:
        with emulated_cuda() as gpu:
            there = torch.zeros(2, device=DEVICE).requires_grad_()
            index = torch.tensor([0]).pin_memory().to(DEVICE, non_blocking=True)
            (there[index] * 2.0).sum().backward()
            assert there.grad is not None
            assert there.grad.device == DEVICE
            assert not gpu.waits
            assert there.grad.tolist() == [2.0, 0.0]
