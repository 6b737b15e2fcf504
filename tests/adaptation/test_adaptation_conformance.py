"""What every registered adaptation loss must do; a new loss is covered by being registered."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from raytl import adaptation
from raytl.adaptation import AdaptationLoss, Views
from raytl.core.dimensions import dimensions
from raytl.core.errors import UserError
from raytl.tasks.task import Role

DIM, CLASSES = 6, 3
TRAINED = [name for name in adaptation.names() if not adaptation.get(name).loss.gradient_free]
ALIGNING = [name for name in TRAINED if Role.SOURCE_DOMAIN in adaptation.get(name).needs]
TARGET_ONLY = [name for name in TRAINED if name not in ALIGNING]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def make(name: str, dim: int = DIM, classes: int = CLASSES) -> AdaptationLoss:
    entry = adaptation.get(name)
    return entry.loss(entry.config(), dim, classes)


def views(features: Tensor, head: Tensor) -> Views:
    """A head so sure of itself that pseudo-labels exist; the strong view is a softer version of the weak one."""
    logits = features @ head
    return Views(features, 4.0 * logits, strong_logits=logits)


def source_for(name: str, features: Tensor, head: Tensor) -> Views | None:
    return views(features, head) if name in ALIGNING else None


@pytest.mark.parametrize("name", TRAINED)
class TestEveryLoss:
    def test_reaches_the_backbone(self, name: str) -> None:
        backbone, head = nn.Linear(5, DIM), torch.randn(DIM, CLASSES)
        source = source_for(name, backbone(torch.randn(12, 5)), head)
        make(name)(source, views(backbone(torch.randn(10, 5) + 1), head), 0.5).backward()
        assert backbone.weight.grad is not None
        assert backbone.weight.grad.isfinite().all()
        assert backbone.weight.grad.norm() > 1e-6

    def test_trains_its_own_parameters(self, name: str) -> None:
        loss, head = make(name), torch.randn(DIM, CLASSES)
        source = source_for(name, torch.randn(12, DIM), head)
        target = torch.randn(10, DIM, requires_grad=True)
        loss(source, views(target + 1, head), 0.5).backward()
        # The bias before a batch norm cancels out of it, so its gradient is rightly zero.
        weights = [parameter for key, parameter in loss.named_parameters() if key.endswith("weight")]
        assert all(weight.grad is not None and weight.grad.norm() > 0 for weight in weights)

    @pytest.mark.parametrize(("n_source", "n_target"), [(3, 17), (17, 3)])
    def test_accepts_domains_of_unequal_size(self, name: str, n_source: int, n_target: int) -> None:
        head = torch.randn(DIM, CLASSES)
        value = make(name)(
            source_for(name, torch.randn(n_source, DIM), head), views(torch.randn(n_target, DIM), head), 0.5
        )
        assert value.shape == ()
        assert value.isfinite()

    @pytest.mark.parametrize("case", ["one image each", "one target image", "constant", "saturated", "tiny", "dead"])
    @pytest.mark.parametrize("progress", [0.0, 1.0])
    def test_is_finite_on_degenerate_input(self, name: str, case: str, progress: float) -> None:
        head = torch.randn(DIM, CLASSES)
        n_source, n_target = {"one image each": (1, 1), "one target image": (8, 1)}.get(case, (8, 8))
        scale = {"constant": 0.0, "saturated": 1e4, "tiny": 1e-12, "dead": 0.0}.get(case, 1.0)
        shift = 1.0 if case == "constant" else 0.0
        source = (torch.randn(n_source, DIM) * scale + shift).requires_grad_()
        target = (torch.randn(n_target, DIM) * scale + shift).requires_grad_()
        value = make(name)(source_for(name, source, head), views(target, head), progress)
        value.backward()
        assert value.isfinite()
        assert target.grad is not None
        assert target.grad.isfinite().all()

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_computes_in_full_precision_under_autocast(self, name: str, dtype: torch.dtype) -> None:
        loss, head = make(name), torch.randn(DIM, CLASSES)
        halves = [(torch.randn(32, DIM) + shift).to(dtype) for shift in (0, 1)]
        half = [Views(x, 4 * x @ head.to(dtype), strong_logits=x @ head.to(dtype)) for x in halves]
        full = [Views(v.features.float(), v.logits.float(), strong_logits=v.strong_logits.float()) for v in half]
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(half[0] if name in ALIGNING else None, half[1], 0.5)
        expected = loss(full[0] if name in ALIGNING else None, full[1], 0.5)
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-7)

    def test_has_a_positive_weight_inside_its_own_range(self, name: str) -> None:
        entry = adaptation.get(name)
        weight = dimensions(entry.config)["weight"]
        assert weight.contains(entry.config().weight)
        assert not weight.contains(0.0)

    def test_pulls_about_as_hard_as_the_task_loss_at_its_default_weight(self, name: str) -> None:
        # Batch-normalised, rectified features as a backbone yields them; the losses differ by orders of magnitude
        # in value, their weighted gradients must not.
        dim, classes = 64, 10
        head = torch.randn(dim, classes) / math.sqrt(dim)
        x, labels = torch.randn(64, dim), torch.randint(0, classes, (64,))
        source = x.relu()
        target = (1.3 * torch.randn(64, dim) + 0.3).relu().requires_grad_()
        task = torch.nn.functional.cross_entropy(target @ head, labels)
        loss = make(name, dim, classes)
        seen = Views(target, 6 * target @ head, strong_logits=target @ head)
        value = loss(Views(source, source @ head) if name in ALIGNING else None, seen, 1.0)
        (task_pull,) = torch.autograd.grad(task, target)
        (pull,) = torch.autograd.grad(loss.config.weight * value, target)
        assert 0.02 < (pull.norm() / task_pull.norm()).item() < 50


def gap(name: str, head: Tensor, scale: float, shift: float) -> float:
    """The loss's own opinion of how far N(0, 1) and N(shift, scale²) are apart, on images it has not seen.

    A discriminator is trained first; it then finds the better, the lower its risk is.
    """
    loss = make(name)

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


@pytest.mark.parametrize("name", ALIGNING)
class TestLossesThatAlignDomains:
    def test_is_least_on_identical_domains(self, name: str) -> None:
        head = torch.randn(DIM, CLASSES)
        assert gap(name, head, 1.0, 0.0) < gap(name, head, 2.0, 1.0) - 0.02

    def test_closes_a_known_gap(self, name: str) -> None:
        head = torch.randn(DIM, CLASSES)
        source, target = torch.randn(128, DIM), 2 * torch.randn(128, DIM) + 1.0
        scale, shift = torch.ones(DIM, requires_grad=True), torch.zeros(DIM, requires_grad=True)
        loss = make(name)
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

    def test_asks_for_both_domains(self, name: str) -> None:
        assert adaptation.get(name).needs == {Role.SOURCE_DOMAIN, Role.UNLABELLED}


def error(features: Tensor, labels: Tensor) -> float:
    """Share of images on the wrong side of the source classifier's border, which is at 0."""
    return float(((features[:, 0] > 0).long() != labels).float().mean())


@pytest.mark.parametrize("name", [name for name in TARGET_ONLY if name != "afn"])
def test_prediction_losses_mend_a_shifted_target(name: str) -> None:
    """Two clusters, the target shifted so far that the source's border cuts one of them; the border must move back."""
    labels = torch.arange(128) % 2
    target = torch.randn(128, 2) * 0.5
    target[:, 0] += 3.0 * labels - 1.5 + 1.2
    head = torch.tensor([[-2.0, 2.0], [0.0, 0.0]])
    shift = torch.zeros(2, requires_grad=True)
    loss = make(name, 2, 2)
    optimizer = torch.optim.Adam([shift], 0.05)
    before = error(target, labels)
    for _ in range(80):
        optimizer.zero_grad()
        features = target + shift
        loss(None, Views(features, features @ head, strong_logits=features @ head), 1.0).backward()
        optimizer.step()
    assert before > 0.1
    assert error((target + shift).detach(), labels) < 0.5 * before


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
