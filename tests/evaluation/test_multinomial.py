"""The solver where it is hardest: many classes that can be told apart, hardly any penalty, all kinds at once."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from raytl.core.stopping import StoppedError, stoppable
from raytl.evaluation.multinomial import solve


def problem(classes: int, each: int, width: int, signal: float, seed: int, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """Features (n, width) of mean square length 1 along principal axes, and one-hot targets (classes, n)."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    noise = rng.normal(size=(len(labels), width)) * np.geomspace(5, 0.2, width)
    rows = signal * rng.normal(size=(classes, width))[labels] + noise
    rows = (rows - rows.mean(axis=0)) / rows.std(axis=0) / np.sqrt(width)
    axes, scales, _ = np.linalg.svd(rows, full_matrices=False)
    return torch.tensor(axes * scales, dtype=kind), torch.eye(classes, dtype=kind)[:, labels]


def losses(design: Tensor, targets: Tensor, penalties: Tensor, found: Tensor) -> np.ndarray:
    """Of each problem, at the coefficients found: (b,)."""
    logits = (found[:, :, :-1] @ design.T + found[:, :, -1:]).double()
    entropy = -(logits.log_softmax(dim=1) * targets).sum(dim=1).mean(dim=1)
    return (entropy + 0.5 * penalties * found[:, :, :-1].double().square().sum(dim=(1, 2))).numpy()


def solved(design: Tensor, targets: Tensor, penalties: Tensor, tolerance: float) -> np.ndarray:
    weights = torch.full((len(penalties), len(design)), 1 / len(design), dtype=design.dtype)
    return losses(design, targets, penalties, solve(design, targets, weights, penalties, tolerance=tolerance))


def test_can_be_stopped() -> None:
    asked = threading.Event()
    asked.set()
    design, targets = problem(3, 4, 5, 1.0, 0, torch.float32)
    with stoppable(asked), pytest.raises(StoppedError):
        solved(design, targets, torch.tensor([1e-3]), 1e-6)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_many_classes_that_can_be_told_apart_are_told_apart(kind: torch.dtype) -> None:
    """A first step far beyond the optimum left the softmax without any curvature, and the solver where it was."""
    design, targets = problem(100, 6, 160, 0.55, 0, kind)
    penalties = torch.tensor([1e-3, 1e-4, 1e-5, 1e-6], dtype=kind)
    least = solved(design.double(), targets.double(), penalties.double(), 1e-10)
    assert (np.diff(least) < 0).all()
    assert least[-1] < 0.1
    np.testing.assert_allclose(solved(design, targets, penalties, 1e-5), least, atol=2e-3)


@settings(max_examples=25, deadline=None)
@given(
    classes=st.integers(2, 30),
    each=st.integers(1, 6),
    width=st.integers(2, 80),
    signal=st.floats(0.0, 30.0),
    seed=st.integers(0, 1000),
)
def test_no_problem_ends_worse_than_it_began_or_than_a_stronger_penalty_leaves_it(
    classes: int, each: int, width: int, signal: float, seed: int
) -> None:
    design, targets = problem(classes, each, width, signal, seed, torch.float32)
    penalties = torch.tensor([1.0, 1e-2, 1e-4, 1e-6])
    found = solved(design, targets, penalties, 1e-5)
    assert (found <= np.log(classes) + 1e-4).all()
    assert (np.diff(found) <= 1e-3).all()
