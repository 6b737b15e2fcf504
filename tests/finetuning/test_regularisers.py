"""Regularisers: what each must do, and each against a plain formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from raytl.core.errors import UserError
from raytl.finetuning import freeze, regularisers
from raytl.testing import RegulariserSuite


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def make(name: str, stages: list[nn.Module], cut: int = 0) -> regularisers.Regulariser:
    entry = regularisers.get(name)
    return entry.regulariser(entry.config(), stages, cut)


class TestEveryRegulariser(RegulariserSuite):
    @pytest.fixture(params=regularisers.names(), autouse=True)
    def _each(self, request: pytest.FixtureRequest) -> None:
        self.name = request.param


def test_l2_sp_is_half_the_squared_way_from_the_start() -> None:
    stages: list[nn.Module] = [nn.Linear(4, 4), nn.Linear(4, 3)]
    freeze(stages, 1)
    start = {key: value.detach().clone() for key, value in stages[1].named_parameters()}
    penalty = make("l2-sp", stages, 1)
    features = torch.randn(8, 3)
    assert penalty(features).item() == 0.0
    with torch.no_grad():
        for stage in stages:
            for parameter in stage.parameters():
                parameter += torch.randn_like(parameter)
    value = penalty(features)
    value.backward()
    moved = {key: parameter.detach() - start[key] for key, parameter in stages[1].named_parameters()}
    assert value.item() == pytest.approx(0.5 * sum(float((gap**2).sum()) for gap in moved.values()), rel=1e-5)
    for key, parameter in stages[1].named_parameters():
        torch.testing.assert_close(parameter.grad, moved[key])
    assert all(parameter.grad is None for parameter in stages[0].parameters())


def test_l2_sp_brings_the_weights_back() -> None:
    stage = nn.Linear(4, 3)
    start = stage.weight.detach().clone()
    penalty = make("l2-sp", [stage])
    with torch.no_grad():
        stage.weight += 1.0
    optimizer = torch.optim.SGD(stage.parameters(), 0.1)
    for _ in range(50):
        optimizer.zero_grad()
        penalty(torch.zeros(1, 3)).backward()
        optimizer.step()
    torch.testing.assert_close(stage.weight.detach(), start, atol=0.01, rtol=0)


@pytest.mark.parametrize("smallest", [1, 2])
def test_bss_is_the_squared_tail_of_the_spectrum(smallest: int) -> None:
    entry = regularisers.get("bss")
    penalty = entry.regulariser(entry.config(smallest=smallest), [], 0)  # type: ignore[call-arg]
    features = torch.randn(10, 4, requires_grad=True)
    value = penalty(features)
    value.backward()
    u, s, vt = np.linalg.svd(features.detach().double().numpy(), full_matrices=False)
    assert value.item() == pytest.approx((s[-smallest:] ** 2).sum(), rel=1e-4)
    expected = 2 * (u[:, -smallest:] * s[-smallest:]) @ vt[-smallest:]
    torch.testing.assert_close(features.grad, torch.tensor(expected, dtype=torch.float32), rtol=1e-3, atol=1e-4)


def test_a_misspelt_regulariser_names_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown regulariser 'l2sp'; did you mean 'l2-sp'"):
        regularisers.get("l2sp")
