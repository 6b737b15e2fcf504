"""What every adaptation loss must do."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raytl import adaptation
from raytl.adaptation import ActsOn, AdaptationEntry, AdaptationLoss, Views
from raytl.core.dimensions import dimensions
from raytl.core.errors import UserError
from raytl.tasks.task import Role

DIM, CLASSES = 6, 3


def views(features: Tensor, head: Tensor) -> Views:
    """What a linear head makes of features (n, d).

    So sure of itself that pseudo-labels exist; the strong view is a softer version of the weak one.
    """
    logits = features @ head
    return Views(features, 4.0 * logits, strong_logits=logits)


def has_gradient(entry: AdaptationEntry) -> bool:
    """Whether anything is differentiated."""
    return not entry.loss.gradient_free


def aligns(entry: AdaptationEntry) -> bool:
    """Whether a loss compares a source domain with the target."""
    return Role.SOURCE_DOMAIN in entry.needs


def acts_on_predictions(entry: AdaptationEntry) -> bool:
    """Whether a loss looks at the predictions for the target, and at nothing else."""
    return ActsOn.LOGITS in entry.acts_on and not aligns(entry)


def of_losses(*that: Callable[[AdaptationEntry], bool]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """For a test of losses of some kind; of another, whose name is only known once the test runs, it is skipped."""

    def applies(entry: AdaptationEntry) -> bool:
        return all(one(entry) for one in that)

    def limit(test: Callable[..., None]) -> Callable[..., None]:
        @wraps(test)
        def only_there(self: AdaptationSuite, *arguments: Any, **named: Any) -> None:
            if not applies(self.entry):
                pytest.skip(f"not {' and '.join(one.__name__ for one in that)}: {self.name}")
            test(self, *arguments, **named)

        only_there.applies = applies  # type: ignore[attr-defined]
        return only_there

    return limit


class AdaptationSuite:
    """For a registered adaptation loss; name: the one it is registered under.

    A class that names its loss has no more tests than apply to it.
    """

    name: str
    _left_out: frozenset[str] = frozenset()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" not in cls.__dict__:
            return
        before, left_out = cls._left_out, frozenset[str]()
        with suppress(UserError):  # not registered yet: tests that do not apply are skipped
            entry = adaptation.get(cls.name)
            left_out = frozenset(test for test in dir(AdaptationSuite) if not cls.applies(test, entry))
        for test in (before | left_out) - cls.__dict__.keys():  # before: by a class that this one is made from
            setattr(cls, test, None if test in left_out else getattr(AdaptationSuite, test))
        cls._left_out = left_out

    @classmethod
    def applies(cls, test: str, entry: AdaptationEntry) -> bool:
        """Whether a loss is of the kind that a test, by its name, is for."""
        found = getattr(getattr(AdaptationSuite, test, None), "applies", None)
        return found is None or bool(found(entry))

    @pytest.fixture(autouse=True)
    def seeded(self) -> None:
        """The same numbers in every run."""
        torch.manual_seed(0)

    @property
    def entry(self) -> AdaptationEntry:
        """What was registered."""
        return adaptation.get(self.name)

    def make(self, dim: int = DIM, classes: int = CLASSES) -> AdaptationLoss:
        """The loss with its default settings."""
        return self.entry.loss(self.entry.config(), dim, classes)

    def source(self, features: Tensor, head: Tensor) -> Views | None:
        """The labelled side, where the loss asks for one."""
        return views(features, head) if aligns(self.entry) else None

    # --- every loss -------------------------------------------------------------------------------------------------

    @of_losses(has_gradient)
    def test_reaches_the_backbone(self) -> None:
        """By a gradient that is finite and not zero."""
        loss, backbone, head = self.make(), nn.Linear(5, DIM), torch.randn(DIM, CLASSES)
        source = self.source(backbone(torch.randn(12, 5)), head)
        loss(source, views(backbone(torch.randn(10, 5) + 1), head), 0.5).backward()
        assert backbone.weight.grad is not None
        assert backbone.weight.grad.isfinite().all()
        assert backbone.weight.grad.norm() > 1e-6

    def test_recalibrates_batch_norm_where_it_declares_so(self) -> None:
        """And nowhere else."""
        assert (ActsOn.BATCH_NORM in self.entry.acts_on) == self.entry.loss.recalibrates_norm

    @of_losses(has_gradient)
    def test_acts_on_what_it_declares(self) -> None:
        """The head learns from a loss on logits, and from no other."""
        loss, head = self.make(), torch.randn(DIM, CLASSES, requires_grad=True)
        features = [torch.randn(n, DIM) + shift for n, shift in ((12, 0), (10, 1))]
        value = loss(self.source(features[0], head), views(features[1], head), 0.5)
        (pull,) = torch.autograd.grad(value, head, allow_unused=True) if value.requires_grad else (None,)
        assert (pull is not None and bool(pull.any())) == (ActsOn.LOGITS in self.entry.acts_on)

    @of_losses(has_gradient)
    def test_trains_its_own_parameters(self) -> None:
        """Those of a discriminator, say; all of them."""
        loss, head = self.make(), torch.randn(DIM, CLASSES)
        source = self.source(torch.randn(12, DIM), head)
        target = torch.randn(10, DIM, requires_grad=True)
        loss(source, views(target + 1, head), 0.5).backward()
        # The bias before a batch norm cancels out of it, so its gradient is rightly zero.
        weights = [parameter for key, parameter in loss.named_parameters() if key.endswith("weight")]
        assert all(weight.grad is not None and weight.grad.norm() > 0 for weight in weights)

    @pytest.mark.parametrize(("n_source", "n_target"), [(3, 17), (17, 3)])
    @of_losses(has_gradient)
    def test_accepts_domains_of_unequal_size(self, n_source: int, n_target: int) -> None:
        """As the two halves of a batch may be."""
        loss, head = self.make(), torch.randn(DIM, CLASSES)
        value = loss(self.source(torch.randn(n_source, DIM), head), views(torch.randn(n_target, DIM), head), 0.5)
        assert value.shape == ()
        assert value.isfinite()

    @pytest.mark.parametrize("case", ["one image each", "one target image", "constant", "saturated", "tiny", "dead"])
    @pytest.mark.parametrize("progress", [0.0, 1.0])
    @of_losses(has_gradient)
    def test_is_finite_on_degenerate_input(self, case: str, progress: float) -> None:
        """Value and gradient: one NaN ends a trial."""
        loss, head = self.make(), torch.randn(DIM, CLASSES)
        n_source, n_target = {"one image each": (1, 1), "one target image": (8, 1)}.get(case, (8, 8))
        scale = {"constant": 0.0, "saturated": 1e4, "tiny": 1e-12, "dead": 0.0}.get(case, 1.0)
        shift = 1.0 if case == "constant" else 0.0
        source = (torch.randn(n_source, DIM) * scale + shift).requires_grad_()
        target = (torch.randn(n_target, DIM) * scale + shift).requires_grad_()
        value = loss(self.source(source, head), views(target, head), progress)
        value.backward()  # type: ignore[no-untyped-call]
        assert value.isfinite()
        assert target.grad is not None
        assert target.grad.isfinite().all()

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    @of_losses(has_gradient)
    def test_computes_in_full_precision_under_autocast(self, dtype: torch.dtype) -> None:
        """Covariances, distances and entropies lose their meaning in half precision."""
        loss, head = self.make(), torch.randn(DIM, CLASSES)
        halves = [(torch.randn(32, DIM) + shift).to(dtype) for shift in (0, 1)]
        half = [Views(x, 4 * x @ head.to(dtype), strong_logits=x @ head.to(dtype)) for x in halves]
        full = [each.full_precision() for each in half]
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(half[0] if aligns(self.entry) else None, half[1], 0.5)
        expected = loss(full[0] if aligns(self.entry) else None, full[1], 0.5)
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-7)

    @of_losses(has_gradient)
    def test_has_a_positive_weight_inside_its_own_range(self) -> None:
        """What a search tries first is something that it may try."""
        self.make()
        weight = dimensions(self.entry.config)["weight"]
        assert weight.contains(self.entry.config().weight)
        assert not weight.contains(0.0)

    @of_losses(has_gradient)
    def test_pulls_about_as_hard_as_the_task_loss_at_its_default_weight(self) -> None:
        """Losses differ by orders of magnitude in value; their weighted gradients must not."""
        # Batch-normalised, rectified features as a backbone yields them.
        dim, classes = 64, 10
        loss, head = self.make(dim, classes), torch.randn(dim, classes) / math.sqrt(dim)
        x, labels = torch.randn(64, dim), torch.randint(0, classes, (64,))
        source = x.relu()
        target = (1.3 * torch.randn(64, dim) + 0.3).relu().requires_grad_()
        task = nn.functional.cross_entropy(target @ head, labels)
        seen = Views(target, 6 * target @ head, strong_logits=target @ head)
        value = loss(Views(source, source @ head) if aligns(self.entry) else None, seen, 1.0)
        (task_pull,) = torch.autograd.grad(task, target)
        (pull,) = torch.autograd.grad(loss.config.weight * value, target)
        assert 0.02 < (pull.norm() / task_pull.norm()).item() < 50

    # --- losses that align a source domain with the target -----------------------------------------------------------

    @of_losses(has_gradient, aligns)
    def test_is_least_on_identical_domains(self) -> None:
        """And clearly greater on domains that differ in mean and scale."""
        head = torch.randn(DIM, CLASSES)
        assert self._gap(head, 1.0, 0.0) < self._gap(head, 2.0, 1.0) - 0.02

    @of_losses(has_gradient, aligns)
    def test_closes_a_known_gap(self) -> None:
        """Between two Gaussians, in some steps."""
        loss, head = self.make(), torch.randn(DIM, CLASSES)
        source, target = torch.randn(128, DIM), 2 * torch.randn(128, DIM) + 1.0
        scale, shift = torch.ones(DIM, requires_grad=True), torch.zeros(DIM, requires_grad=True)
        optimizer = torch.optim.Adam(
            [{"params": [scale, shift], "lr": 0.02}, {"params": loss.parameters(), "lr": 0.005}]
        )

        def distance() -> float:
            moved = (target * scale + shift).detach()
            return float((moved.mean(0) - source.mean(0)).norm() + (torch.cov(moved.T) - torch.cov(source.T)).norm())

        before = distance()
        for _ in range(120):
            optimizer.zero_grad()
            loss(views(source, head), views(target * scale + shift, head), 1.0).backward()
            optimizer.step()
        assert distance() < 0.6 * before

    @of_losses(aligns)
    def test_asks_for_both_domains(self) -> None:
        """A loss that compares two domains cannot run without the other one."""
        assert self.entry.needs == {Role.SOURCE_DOMAIN, Role.UNLABELLED}

    # --- losses on the predictions for the target ---------------------------------------------------------------------

    @of_losses(has_gradient, acts_on_predictions)
    def test_mends_a_shifted_target(self) -> None:
        """Two clusters, the target so far off that the source's border cuts one of them: the border must move back."""
        loss, labels = self.make(2, 2), torch.arange(128) % 2
        target = torch.randn(128, 2) * 0.5
        target[:, 0] += 3.0 * labels - 1.5 + 1.2
        head = torch.tensor([[-2.0, 2.0], [0.0, 0.0]])
        shift = torch.zeros(2, requires_grad=True)
        optimizer = torch.optim.Adam([shift], 0.05)

        def error(features: Tensor) -> float:
            return float(((features[:, 0] > 0).long() != labels).float().mean())

        before = error(target)
        for _ in range(80):
            optimizer.zero_grad()
            features = target + shift
            loss(None, Views(features, features @ head, strong_logits=features @ head), 1.0).backward()
            optimizer.step()
        assert before > 0.1
        assert error((target + shift).detach()) < 0.5 * before

    # --- helpers ------------------------------------------------------------------------------------------------------

    def _gap(self, head: Tensor, scale: float, shift: float) -> float:
        """The loss's own opinion of how far N(0, 1) and N(shift, scale²) are apart, on images it has not seen.

        A discriminator is trained first; it then finds the better, the lower its risk is.
        """
        loss = self.make()

        def draw(n: int) -> tuple[Views, Views]:
            return views(torch.randn(n, DIM), head), views(scale * torch.randn(n, DIM) + shift, head)

        parameters = list(loss.parameters())
        if parameters:
            optimizer = torch.optim.Adam(parameters, 0.005)
            for _ in range(25):
                optimizer.zero_grad()
                loss(*draw(64), 1.0).backward()
                optimizer.step()
        value = loss(*draw(256), 1.0).item()
        return -value if parameters else value
