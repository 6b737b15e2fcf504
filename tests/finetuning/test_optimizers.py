"""Learning-rate groups, optimizers, schedules."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from raytl.finetuning import (
    OPTIMIZERS,
    SCHEDULES,
    build_optimizer,
    freeze,
    lr_factor,
    parameter_groups,
    set_progress,
)


def stages() -> list[nn.Module]:
    return [
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)),
        nn.Sequential(nn.Conv2d(4, 6, 3, bias=False), nn.GroupNorm(2, 6)),
        nn.Sequential(nn.Linear(6, 5), nn.LayerNorm((5, 1))),
    ]


def groups(cut: int = 0, parts: list[nn.Module] | None = None, heads: list[nn.Module] | None = None):
    parts = parts or stages()
    heads = heads if heads is not None else [nn.Linear(5, 2)]
    made = parameter_groups(parts, cut, heads, head_lr=0.1, backbone_ratio=0.2, weight_decay=0.01)
    return parts, heads, {group["name"]: group for group in made}


def test_only_matrices_and_kernels_are_decayed() -> None:
    parts, (head,), by_name = groups()
    assert {id(p) for p in by_name["backbone"]["params"]} == {
        id(parts[0][0].weight),
        id(parts[1][0].weight),
        id(parts[2][0].weight),
    }
    assert [p.shape for p in by_name["head"]["params"]] == [head.weight.shape]
    assert {name: group["weight_decay"] for name, group in by_name.items()} == {
        "head": 0.01,
        "head-no-decay": 0.0,
        "backbone": 0.01,
        "backbone-no-decay": 0.0,
    }
    assert any(p is parts[2][1].weight for p in by_name["backbone-no-decay"]["params"])  # a norm's matrix


def test_the_backbone_learns_at_its_ratio_of_the_heads_rate() -> None:
    _, _, by_name = groups()
    assert by_name["head"]["lr"] == by_name["head-no-decay"]["lr"] == 0.1
    assert by_name["backbone"]["lr"] == by_name["backbone-no-decay"]["lr"] == pytest.approx(0.02)


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_every_trainable_parameter_is_in_exactly_one_group(cut: int) -> None:
    parts, heads = stages(), [nn.Linear(5, 2), nn.Linear(5, 1)]
    freeze(parts, cut)
    _, _, by_name = groups(cut, parts, heads)
    listed = [id(p) for group in by_name.values() for p in group["params"]]
    expected = [id(p) for module in [*parts[cut:], *heads] for p in module.parameters()]
    assert sorted(listed) == sorted(expected)


def test_frozen_and_shared_parameters_do_not_occur_twice() -> None:
    parts, head = stages(), nn.Linear(6, 5)
    head.weight = parts[2][0].weight
    parts[1][0].weight.requires_grad_(False)
    _, _, by_name = groups(0, parts, [head])
    listed = [id(p) for group in by_name.values() for p in group["params"]]
    assert len(listed) == len(set(listed))
    assert id(parts[1][0].weight) not in listed
    assert id(head.weight) in {id(p) for p in by_name["head"]["params"]}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_fits_a_small_regression(name: str) -> None:
    torch.manual_seed(0)
    body, head = nn.Linear(3, 8), nn.Linear(8, 1)
    x = torch.randn(64, 3)
    y = x.sum(dim=1, keepdim=True)
    made = parameter_groups([body], 0, [head], head_lr=0.05, backbone_ratio=0.5, weight_decay=1e-4)
    optimizer = build_optimizer(name, made)
    losses = []
    for step in range(60):
        set_progress(optimizer, "cosine", step / 60, 0.1)
        loss = (head(body(x)) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_memory_layout_changes_nothing(name: str) -> None:
    """Weights that lie channels last take the steps that torch's own optimizer takes, without a gradient none."""
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 5, 2))
    nets = {
        layout: copy.deepcopy(first).to(memory_format=layout) for layout in (torch.channels_last, torch.preserve_format)
    }
    kind = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[name]
    options = {"momentum": 0.9, "nesterov": True} if name == "sgd" else {}
    reference = copy.deepcopy(first)
    steppers = [
        build_optimizer(name, parameter_groups(list(net), 0, [], head_lr=1, backbone_ratio=0.1, weight_decay=0.0))
        for net in nets.values()
    ]
    steppers.append(kind(reference.parameters(), lr=0.1, weight_decay=0.0, **options))
    everyone = [*nets.values(), reference]
    for step in range(4):
        x = torch.randn(2, 3, 8, 8)
        for net, optimizer in zip(everyone, steppers, strict=True):
            optimizer.zero_grad()
            net(x).square().mean().backward()
            if step == 2:
                net[2].weight.grad = None
            optimizer.step()
    for net in nets.values():
        for parameter, expected in zip(net.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(parameter, expected, rtol=1e-4, atol=1e-5)
    assert not torch.equal(first[0].weight, reference[0].weight)


def test_an_unknown_name_is_refused() -> None:
    _, _, by_name = groups()
    with pytest.raises(ValueError, match="unknown optimizer 'sgdd'"):
        build_optimizer("sgdd", list(by_name.values()))


@given(st.sampled_from(SCHEDULES), st.floats(0, 1), st.floats(0, 1))
def test_the_rate_is_a_share_of_its_peak(schedule: str, progress: float, warmup: float) -> None:
    assert 0.0 <= lr_factor(schedule, progress, warmup) <= 1.0


@given(st.sampled_from(SCHEDULES), st.floats(0.05, 0.9), st.floats(0, 1), st.floats(0, 1))
def test_the_rate_rises_in_the_warm_up_and_never_again(schedule: str, warmup: float, a: float, b: float) -> None:
    early, late = sorted((a, b))
    before = lr_factor(schedule, early * warmup * 0.999, warmup), lr_factor(schedule, late * warmup * 0.999, warmup)
    after = (
        lr_factor(schedule, warmup + early * (1 - warmup), warmup),
        lr_factor(schedule, warmup + late * (1 - warmup), warmup),
    )
    assert before[0] <= before[1]
    assert after[0] >= after[1] - 1e-12


def test_known_points_of_the_schedules() -> None:
    assert lr_factor("cosine", 0.1, 0.1) == 1.0
    assert lr_factor("cosine", 0.55, 0.1) == pytest.approx(0.5)
    assert lr_factor("cosine", 1.0, 0.1) == pytest.approx(0.0)
    assert lr_factor("constant", 1.0, 0.1) == 1.0
    assert lr_factor("inverse", 1.0, 0.0) == pytest.approx(11**-0.75)
    assert lr_factor("cosine", 0.0, 0.1) == pytest.approx(0.01)
    with pytest.raises(ValueError, match="unknown schedule 'cosin'"):
        lr_factor("cosin", 0.5, 0.1)


def test_progress_scales_every_groups_own_peak() -> None:
    _, _, by_name = groups()
    optimizer = build_optimizer("adamw", list(by_name.values()))
    for _ in range(2):  # twice, because it must not compound
        set_progress(optimizer, "cosine", 0.5, 0.0)
    assert {round(group["lr"], 9) for group in optimizer.param_groups} == {0.05, 0.01}
