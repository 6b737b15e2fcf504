"""Each loss against its paper's formula, written plainly in float64 with loops: the value and the gradient."""

from __future__ import annotations

import math
from collections.abc import Callable

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from raytl import adaptation
from raytl.adaptation import AdaptationLoss, Views

DIM, CLASSES, N_SOURCE, N_TARGET = 4, 3, 7, 9


def make(name: str, dim: int = DIM, classes: int = CLASSES) -> AdaptationLoss:
    entry = adaptation.get(name)
    torch.manual_seed(1)
    return entry.loss(entry.config(), dim, classes).double()


def tensors(seed: int = 0) -> list[Tensor]:
    """Source features, source logits, target features, weak and strong target logits."""
    torch.manual_seed(seed)
    shapes = [(N_SOURCE, DIM), (N_SOURCE, CLASSES), (N_TARGET, DIM), (N_TARGET, CLASSES), (N_TARGET, CLASSES)]
    result = [3 * torch.randn(shape, dtype=torch.float64) for shape in shapes]
    result[2] += 0.7
    return [tensor.requires_grad_() for tensor in result]


def softmax(row: Tensor) -> Tensor:
    return row.exp() / row.exp().sum()


def entropy(p: Tensor) -> Tensor:
    return -sum(p[j] * p[j].log() for j in range(len(p)))


def cov(x: Tensor) -> Tensor:
    mean = x.mean(0)
    return sum(torch.outer(row - mean, row - mean) for row in x) / (len(x) - 1)


def coral(fs: Tensor, zs: Tensor, ft: Tensor, zt: Tensor, zz: Tensor) -> Tensor:
    return ((cov(fs) - cov(ft)) ** 2).sum() / (4 * DIM**2)


def mkmmd(fs: Tensor, zs: Tensor, ft: Tensor, zt: Tensor, zz: Tensor) -> Tensor:
    def d2(a: Tensor, b: Tensor) -> Tensor:
        return ((a - b) ** 2).sum()

    both = [*fs, *ft]
    mean = sum(float(d2(a, b)) for a in both for b in both) / len(both) ** 2

    def k(a: Tensor, b: Tensor) -> Tensor:
        return sum(torch.exp(-d2(a, b) / (2 * 2.0**e * mean)) for e in range(-3, 2))

    within = [
        sum(k(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j) / (len(x) * (len(x) - 1))
        for x in (fs, ft)
    ]
    return within[0] + within[1] - 2 * sum(k(a, b) for a in fs for b in ft) / (len(fs) * len(ft))


def confusion(z: Tensor, t: float = 2.5) -> Tensor:
    p = [softmax(row / t) for row in z]
    raw = [1 + math.exp(-float(entropy(row))) for row in p]
    w = [len(raw) * value / sum(raw) for value in raw]
    c = [[sum(w[i] * p[i][j] * p[i][k] for i in range(len(p))) for k in range(CLASSES)] for j in range(CLASSES)]
    return sum(c[j][k] / sum(c[j]) for j in range(CLASSES) for k in range(CLASSES) if j != k) / CLASSES


def mcc(fs: Tensor, zs: Tensor, ft: Tensor, zt: Tensor, zz: Tensor) -> Tensor:
    return confusion(zt)


def fixmatch(zt: Tensor, zz: Tensor) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for weak, strong in zip(zt.detach(), zz, strict=True):
        p = softmax(weak)
        if p.max() >= 0.9:
            total = total - softmax(strong)[int(p.argmax())].log()
    return total / len(zt)


def pseudo_label(fs: Tensor, zs: Tensor, ft: Tensor, zt: Tensor, zz: Tensor) -> Tensor:
    return fixmatch(zt, zz)


def mcc_pseudo_label(fs: Tensor, zs: Tensor, ft: Tensor, zt: Tensor, zz: Tensor) -> Tensor:
    return confusion(zt) + fixmatch(zt, zz)


def information_maximisation(fs: Tensor, zs: Tensor, ft: Tensor, zt: Tensor, zz: Tensor) -> Tensor:
    p = [softmax(row) for row in zt]
    return sum(entropy(row) for row in p) / len(p) - entropy(sum(p) / len(p))


def bnm(fs: Tensor, zs: Tensor, ft: Tensor, zt: Tensor, zz: Tensor) -> Tensor:
    p = torch.stack([softmax(row) for row in zt])
    return -torch.linalg.eigvalsh(p.T @ p).sqrt().sum() / len(p)


def afn(fs: Tensor, zs: Tensor, ft: Tensor, zt: Tensor, zz: Tensor) -> Tensor:
    def growth(x: Tensor) -> Tensor:
        return sum(((row**2).sum().sqrt() - float((row**2).sum().sqrt()) - 1) ** 2 for row in x) / len(x)

    return growth(fs) + growth(ft)


FORMULAS: dict[str, Callable[..., Tensor]] = {
    "afn": afn,
    "bnm": bnm,
    "coral": coral,
    "information-maximisation": information_maximisation,
    "mcc": mcc,
    "mcc-pseudo-label": mcc_pseudo_label,
    "mkmmd": mkmmd,
    "pseudo-label": pseudo_label,
}
ADVERSARIAL = {"cdan", "dann"}


def test_every_loss_with_a_value_has_its_formula_here() -> None:
    assert set(FORMULAS) | ADVERSARIAL | {"adabn", "moments", "propagation"} == set(adaptation.names())


def gradients(value: Tensor, wrt: list[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(value, wrt, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, wrt, strict=True)]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", FORMULAS)
def test_value_and_gradient_are_the_papers(name: str, seed: int) -> None:
    given_ = tensors(seed)
    fs, zs, ft, zt, zz = given_
    value = make(name)(Views(fs, zs), Views(ft, zt, strong_logits=zz), 1.0)
    expected = FORMULAS[name](*given_)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)
    for ours, theirs in zip(gradients(value, given_), gradients(expected, given_), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-11)
    assert any(g.norm() > 1e-3 for g in gradients(value, given_))


def plain_discriminator(module: nn.Module, x: Tensor) -> Tensor:
    p = dict(module.named_parameters())
    for linear, norm in (("0", "1"), ("3", "4")):
        x = torch.stack([p[f"{linear}.weight"] @ row + p[f"{linear}.bias"] for row in x])
        variance = ((x - x.mean(0)) ** 2).mean(0)
        x = (x - x.mean(0)) / (variance + 1e-5).sqrt() * p[f"{norm}.weight"] + p[f"{norm}.bias"]
        x = torch.where(x > 0, x, torch.zeros_like(x))
    return torch.stack([(p["6.weight"][0] * row).sum() + p["6.bias"][0] for row in x])


def risk(logits: Tensor, weights: list[float]) -> Tensor:
    source = sum(-w * (1 / (1 + (-z).exp())).log() for w, z in zip(weights, logits[:N_SOURCE], strict=False)) / N_SOURCE
    target = sum(-w * (1 / (1 + z.exp())).log() for w, z in zip(weights[N_SOURCE:], logits[N_SOURCE:], strict=True))
    return (source + target / N_TARGET) / 2


def plain_adversarial(name: str, loss: AdaptationLoss, given_: list[Tensor]) -> Tensor:
    fs, zs, ft, zt, _ = given_
    features, weights = torch.cat([fs, ft]), [1.0] * (N_SOURCE + N_TARGET)
    if name == "cdan":
        p = [softmax(row).detach() for row in torch.cat([zs, zt])]
        features = torch.stack([torch.outer(q, f).flatten() for q, f in zip(p, features, strict=True)])
        raw = [1 + math.exp(-float(entropy(q))) for q in p]
        means = [sum(raw[:N_SOURCE]) / N_SOURCE] * N_SOURCE + [sum(raw[N_SOURCE:]) / N_TARGET] * N_TARGET
        weights = [value / mean for value, mean in zip(raw, means, strict=True)]
    return risk(plain_discriminator(loss.discriminator, features), weights)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(ADVERSARIAL))
@pytest.mark.parametrize("progress", [0.0, 0.05, 0.3, 1.0])
def test_adversarial_value_and_reversed_gradient_are_the_papers(name: str, progress: float) -> None:
    given_, loss = tensors(), make(name)
    fs, zs, ft, zt, _ = given_
    value = loss(Views(fs, zs), Views(ft, zt), progress)
    expected = plain_adversarial(name, loss, given_)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)
    strength = 2 / (1 + math.exp(-10 * progress)) - 1
    for ours, theirs in zip(gradients(value, given_), gradients(expected, given_), strict=True):
        torch.testing.assert_close(ours, -strength * theirs, rtol=1e-6, atol=1e-11)
    parameters = list(loss.parameters())
    for ours, theirs in zip(gradients(value, parameters), gradients(expected, parameters), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-10)  # the discriminator itself is not reversed


def test_cdan_maps_wide_products_at_random_to_their_inner_products() -> None:
    """The random map keeps inner products in expectation, so that the discriminator sees the same geometry."""
    torch.manual_seed(0)
    loss = adaptation.get("cdan").loss(adaptation.get("cdan").config(), 512, 20)
    f, p = torch.randn(2, 512), torch.softmax(torch.randn(2, 20), dim=1)
    mapped = loss._combine(f, p)  # type: ignore[operator]
    assert mapped.shape == (2, 1024)
    exact = (f @ f.T) * (p @ p.T)
    assert (mapped @ mapped.T - exact).abs().max() < 0.25 * exact.diagonal().max()


def test_mkmmd_is_unbiased_where_the_domains_are_one() -> None:
    torch.manual_seed(0)
    loss = make("mkmmd")
    draws = torch.randn(400, 2, 6, DIM, dtype=torch.float64)
    values = torch.stack([loss(Views(a, a), Views(b, b), 1.0) for a, b in draws])
    standard_error = values.std() / math.sqrt(len(values))
    assert values.mean().abs() < 4 * standard_error
    assert 4 * standard_error < 0.2  # the biased estimator would be at about 1.2 here


def test_a_batch_without_confident_predictions_teaches_nothing() -> None:
    strong = torch.randn(5, CLASSES, requires_grad=True)
    value = make("pseudo-label")(None, Views(torch.randn(5, DIM), torch.zeros(5, CLASSES), strong_logits=strong), 1.0)
    value.backward()
    assert value.item() == 0.0
    assert strong.grad is not None
    assert strong.grad.abs().max() == 0.0


def test_self_training_takes_its_labels_from_the_weak_view_without_teaching_it() -> None:
    weak = torch.tensor([[9.0, 0.0, 0.0]], requires_grad=True)
    strong = torch.zeros(1, CLASSES, requires_grad=True)
    make("pseudo-label")(None, Views(torch.zeros(1, DIM), weak, strong_logits=strong), 1.0).backward()
    assert weak.grad is None
    assert strong.grad is not None
    assert strong.grad[0, 0] < 0 < strong.grad[0, 1]


@pytest.mark.parametrize("name", ["pseudo-label", "mcc-pseudo-label"])
def test_self_training_sets_in_gradually(name: str) -> None:
    _, _, ft, zt, zz = tensors()
    loss, target = make(name), Views(ft, zt, strong_logits=zz)
    values = [loss(None, target, progress).item() for progress in (0.0, 0.1, 0.2, 1.0)]
    assert values == pytest.approx([0.0, values[3] / 2, values[3], values[3]])
    assert values[3] > 0


logit_batches = st.integers(1, 12).flatmap(
    lambda n: st.lists(st.lists(st.floats(-60, 60), min_size=4, max_size=4), min_size=n, max_size=n)
)


@given(logit_batches)
@settings(max_examples=60)
def test_prediction_losses_stay_in_their_documented_ranges(rows: list[list[float]]) -> None:
    logits = torch.tensor(rows, dtype=torch.float64)
    target, n, k = Views(logits, logits), len(rows), 4
    assert 0 <= make("mcc", k, k)(None, target, 1.0).item() < 1
    assert -math.log(k) - 1e-9 <= make("information-maximisation", k, k)(None, target, 1.0).item() <= 1e-9
    assert -min(1.0, math.sqrt(k / n)) - 1e-9 <= make("bnm", k, k)(None, target, 1.0).item() < 0


@given(st.integers(0, 1000), st.integers(2, 9), st.integers(2, 9))
@settings(max_examples=30)
def test_alignment_losses_do_not_care_which_domain_is_which_nor_where_the_origin_is(seed: int, n: int, m: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(n, DIM, generator=generator, dtype=torch.float64)
    b = 2 * torch.randn(m, DIM, generator=generator, dtype=torch.float64)
    for name in ("coral", "mkmmd"):
        loss = make(name)
        value = loss(Views(a, a), Views(b, b), 1.0).item()
        assert loss(Views(b, b), Views(a, a), 1.0).item() == pytest.approx(value, abs=1e-9)
        assert loss(Views(a + 100, a), Views(b + 100, b), 1.0).item() == pytest.approx(value, abs=1e-7)
