"""What every regulariser must do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from raytl.core.dimensions import dimensions
from raytl.finetuning import freeze, regularisers


class RegulariserSuite:
    """For a registered regulariser; name: the one it is registered under."""

    name: str

    @pytest.fixture(autouse=True)
    def seeded(self) -> None:
        """The same numbers in every run."""
        torch.manual_seed(0)

    def make(self, stages: list[nn.Module], cut: int = 0) -> regularisers.Regulariser:
        """The regulariser with its default settings."""
        entry = regularisers.get(self.name)
        return entry.regulariser(entry.config(), stages, cut)

    def test_reaches_the_backbone_once_it_has_moved(self) -> None:
        """By a gradient that is not zero."""
        stage = nn.Linear(4, 3)
        penalty = self.make([stage])
        with torch.no_grad():
            stage.weight += 0.1
        penalty(stage(torch.randn(8, 4))).backward()  # type: ignore[no-untyped-call]
        assert stage.weight.grad is not None
        assert stage.weight.grad.norm() > 1e-4

    @pytest.mark.parametrize("n", [1, 2, 20])
    def test_is_a_finite_non_negative_float32_scalar(self, n: int) -> None:
        """In half precision and on dead features too."""
        stage = nn.Linear(4, 3)
        penalty = self.make([stage])
        for features in (stage(torch.randn(n, 4)), torch.zeros(n, 3, requires_grad=True)):
            value = penalty(features.bfloat16())
            assert value.shape == ()
            assert value.dtype == torch.float32
            assert value.isfinite()
            assert value >= 0

    def test_a_fully_frozen_backbone_is_no_error(self) -> None:
        """There is only nothing to hold on to."""
        stage = nn.Linear(4, 3)
        freeze([stage], 1)
        assert self.make([stage], 1)(stage(torch.randn(8, 4))).isfinite()

    def test_its_weight_is_searched_over_a_range_with_its_default(self) -> None:
        """What a search tries first is something that it may try."""
        config = regularisers.get(self.name).config
        assert dimensions(config)["weight"].contains(config().weight)
