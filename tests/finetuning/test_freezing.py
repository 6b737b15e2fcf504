"""Frozen stages stay frozen, and batch-norm statistics go where they are meant to go."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from raytl.finetuning import freeze, recalibrate_norm, running_statistics_kept, training_mode


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def stages() -> list[nn.Module]:
    return [
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5)),
        nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU()),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5), nn.BatchNorm1d(5)),
    ]


def run(parts: list[nn.Module], x: Tensor) -> Tensor:
    for part in parts:
        x = part(x)
    return x


def state(parts: list[nn.Module]) -> list[Tensor]:
    return [tensor.clone() for part in parts for tensor in part.state_dict().values()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_training_leaves_everything_below_the_cut_as_it_was(cut: int) -> None:
    parts = stages()
    freeze(parts, cut)
    before = [state([part]) for part in parts]
    head = nn.Linear(5, 2)
    trained = [p for part in [*parts, head] for p in part.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, 0.1)
    for _ in range(2):  # epochs, with an evaluation in between
        training_mode(parts, cut)
        optimizer.zero_grad()
        head(run(parts, torch.randn(8, 1, 10, 10) + 3)).square().sum().backward()
        optimizer.step()
        nn.ModuleList(parts).eval()
        run(parts, torch.randn(8, 1, 10, 10))
        nn.ModuleList(parts).train()
    unchanged = [same(old, state([part])) for old, part in zip(before, parts, strict=True)]
    assert unchanged == [index < cut for index in range(3)]


def test_frozen_stages_give_the_same_output_every_time() -> None:
    parts, x = stages(), torch.randn(8, 1, 10, 10)
    freeze(parts, 1)
    training_mode(parts, 1)
    assert torch.equal(parts[0](x), parts[0](x))  # dropout sleeps
    training_mode(parts, 0)
    assert not torch.equal(parts[0](x), parts[0](x))


@pytest.mark.parametrize("cut", [-1, 4])
def test_a_cut_outside_the_stages_is_refused(cut: int) -> None:
    with pytest.raises(ValueError, match=r"outside 0\.\.3"):
        freeze(stages(), cut)


@given(st.lists(st.integers(2, 7), min_size=1, max_size=4), st.integers(0, 100))
@settings(max_examples=20)
def test_recalibrated_statistics_are_the_weighted_mean_of_the_batches(sizes: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    norm = nn.BatchNorm2d(3, momentum=0.3)
    norm(torch.randn(4, 3, 2, 2) * 50 + 70)  # statistics of some other domain
    batches = [torch.randn(n, 3, 2, 2) * 2 + index for index, n in enumerate(sizes)]
    recalibrate_norm([norm], 0, batches)
    weights = torch.tensor(sizes) / sum(sizes)
    means = torch.stack([batch.mean((0, 2, 3)) for batch in batches])
    variances = torch.stack([batch.var((0, 2, 3)) for batch in batches])
    torch.testing.assert_close(norm.running_mean, weights @ means, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(norm.running_var, weights @ variances, rtol=1e-4, atol=1e-4)
    assert norm.momentum == 0.3
    assert norm.training


def test_recalibration_undoes_a_shift_of_the_input() -> None:
    """What AdaBN is for: after it, features of inverted, brightened images are again about standard."""
    parts = stages()
    nn.ModuleList(parts).eval()
    target = 5 - 3 * torch.randn(64, 1, 10, 10)
    off = run(parts, target)
    recalibrate_norm(parts, 0, target.split(16))
    mended = run(parts, target)
    assert (off.mean(0).abs() + (off.std(0) - 1).abs()).max() > 0.5
    assert (mended.mean(0).abs() + (mended.std(0) - 1).abs()).max() < 0.2


def test_recalibration_touches_norm_statistics_from_the_start_on_and_nothing_else() -> None:
    parts = stages()
    training_mode(parts, 1)
    modes = [module.training for part in parts for module in part.modules()]
    below, weights = state(parts[:1]), [p.clone() for part in parts for p in part.parameters()]
    inputs = parts[0](torch.randn(20, 1, 10, 10)).detach()
    before = state(parts[1:])
    recalibrate_norm(parts, 1, [inputs])
    assert same(below, state(parts[:1]))
    assert not same(before, state(parts[1:]))
    assert same(weights, [p for part in parts for p in part.parameters()])
    assert modes == [module.training for part in parts for module in part.modules()]


def test_recalibration_survives_batches_of_one_and_a_failing_batch() -> None:
    parts = stages()
    before = state(parts)
    recalibrate_norm(parts, 0, [torch.randn(1, 1, 10, 10)])
    recalibrate_norm(parts, 0, [])
    assert same(before, state(parts))
    nn.ModuleList(parts).eval()
    with pytest.raises(RuntimeError):
        recalibrate_norm(parts, 0, [torch.randn(4, 3, 10, 10)])
    assert not any(module.training for part in parts for module in part.modules())
    assert parts[0][1].momentum == 0.1


def test_without_norm_layers_recalibration_reads_no_data() -> None:
    def explode() -> Tensor:
        raise AssertionError("nothing to estimate, nothing to read")

    recalibrate_norm([nn.Linear(2, 2)], 0, (explode() for _ in range(1)))


def test_a_source_batch_is_normalised_by_itself_but_not_remembered() -> None:
    parts, source = stages()[1:], torch.randn(16, 4, 8, 8) * 4 + 9
    training_mode(parts, 0)
    before = state(parts)
    with running_statistics_kept(parts):
        kept = run(parts, source)
    assert same(before, state(parts))
    assert torch.equal(kept, run(parts, source))  # the same batch statistics were used
    assert not same(before, state(parts))  # and outside the context they are remembered again


def test_an_overflowing_source_batch_does_not_poison_the_statistics() -> None:
    norm = nn.BatchNorm1d(2)
    with running_statistics_kept([norm]):
        norm(torch.full((4, 2), float("inf")))
    assert norm.running_mean is not None
    assert norm.running_mean.isfinite().all()


def test_frozen_norms_keep_using_their_running_statistics_within_the_context() -> None:
    parts, x = stages(), torch.randn(8, 1, 10, 10) + 3
    nn.ModuleList(parts).eval()
    expected = run(parts, x)
    with running_statistics_kept(parts):
        assert torch.equal(run(parts, x), expected)
