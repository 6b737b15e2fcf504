"""Every registered adaptation loss passes the suite; a new loss is covered by being registered."""

from __future__ import annotations

import pytest
import torch

from raytl import adaptation
from raytl.adaptation import AdaptationLoss, Views
from raytl.core.dimensions import dimensions
from raytl.core.errors import UserError
from raytl.testing import AdaptationSuite

DIM, CLASSES = 6, 3


class TestEveryLoss(AdaptationSuite):
    @pytest.fixture(autouse=True)
    def _each(self, request: pytest.FixtureRequest) -> None:
        self.name = request.param

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """A test is of the losses that it applies to."""
        test = metafunc.function.__name__
        names = [name for name in adaptation.names() if self.applies(test, adaptation.get(name))]
        metafunc.parametrize("_each", names, indirect=True)


def left(suite: type[AdaptationSuite]) -> set[str]:
    return {name for name in dir(suite) if name.startswith("test_") and getattr(suite, name) is not None}


def test_a_class_that_names_its_loss_has_the_tests_that_apply_to_it() -> None:
    class Unaligned(AdaptationSuite):
        name = "adabn"

    class Aligned(Unaligned):
        name = "coral"

        def test_mends_a_shifted_target(self) -> None:
            """One's own."""

    class Unknown(Unaligned):
        name = "registered later"

    assert left(Unaligned) == {"test_recalibrates_batch_norm_where_it_declares_so"}
    assert left(Aligned) == left(Unknown) == left(AdaptationSuite)


def test_one_that_is_named_late_skips_what_does_not_apply_to_it() -> None:
    suite = AdaptationSuite()
    suite.name = "mcc"
    with pytest.raises(pytest.skip.Exception, match="not has_gradient and aligns: mcc"):
        suite.test_closes_a_known_gap()


def make(name: str) -> AdaptationLoss:
    entry = adaptation.get(name)
    return entry.loss(entry.config(), DIM, CLASSES)


def test_feature_norms_grow_under_afn() -> None:
    features = torch.randn(32, DIM, requires_grad=True)
    before = features.detach().norm(dim=1)
    optimizer = torch.optim.SGD([features], 1.0)
    for _ in range(20):
        optimizer.zero_grad()
        make("afn")(None, Views(features, features), 0.5).backward()
        optimizer.step()
    assert (features.detach().norm(dim=1) > before + 0.5).all()


def test_adabn_differentiates_nothing_and_asks_for_recalibration() -> None:
    loss = make("adabn")
    assert loss.gradient_free
    assert loss.recalibrates_norm
    assert "weight" not in dimensions(adaptation.get("adabn").config)
    assert loss(None, Views(torch.randn(3, DIM), torch.randn(3, CLASSES)), 0.5).item() == 0.0


def test_only_self_training_asks_for_a_strong_view() -> None:
    assert {name for name in adaptation.names() if adaptation.get(name).loss.wants_strong_view} == {
        "mcc-pseudo-label",
        "pseudo-label",
    }


def test_a_misspelt_loss_names_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown adaptation loss 'corall'; did you mean 'coral'"):
        adaptation.get("corall")
