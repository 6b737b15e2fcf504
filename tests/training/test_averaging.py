"""The weight average against the formula written out."""

from __future__ import annotations

import torch
from torch import nn

from raytl.training.averaging import WeightAverage


def trained(steps: int, decay: float) -> tuple[nn.Module, WeightAverage, list[torch.Tensor]]:
    """A module that took ``steps`` random steps, its average, and the weight after each step, the start included."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = WeightAverage([module], decay)
    seen = [module[0].weight.detach().clone()]
    for _ in range(steps):
        with torch.no_grad():
            module[0].weight += torch.randn(4, 3)
            module(torch.randn(5, 3))
        average.update()
        seen.append(module[0].weight.detach().clone())
    return module, average, seen


def test_is_the_ramped_exponential_average() -> None:
    module, average, seen = trained(30, 0.9)
    expected = seen[0]
    for step, weight in enumerate(seen[1:], 1):
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight
    average.apply()
    assert torch.allclose(module[0].weight, expected, atol=1e-6)


def test_holds_inside_the_block_and_the_live_weights_after_it() -> None:
    module, average, seen = trained(10, 0.9)
    statistics = module[1].running_mean.clone()
    with average.applied():
        inside, inside_statistics = module[0].weight.detach().clone(), module[1].running_mean.clone()
    assert torch.equal(module[0].weight, seen[-1]) and torch.equal(module[1].running_mean, statistics)
    assert not torch.allclose(inside, seen[-1]) and not torch.allclose(inside_statistics, statistics)
    average.apply()
    assert torch.equal(module[0].weight, inside)


def test_leaves_out_what_is_frozen() -> None:
    module = nn.Linear(2, 2)
    module.weight.requires_grad_(False)
    average = WeightAverage([module], 0.5)
    with torch.no_grad():
        module.weight.fill_(7.0)
    average.update()
    average.apply()
    assert torch.equal(module.weight, torch.full((2, 2), 7.0))
