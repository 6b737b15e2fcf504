"""Too little memory for a step of training: the allocator of this process really refuses what the network asks for."""

from __future__ import annotations

import gc
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tiny
import torch
from torch import Tensor, nn

from raytl.search.jobs import JobKind, LaneJob
from raytl.search.lanes.work import do_job
from raytl.sources.architectures.base import architecture, registry
from raytl.sources.staging import Pool, Stages
from raytl.training import loop
from raytl.training.strategy import Strategy
from raytl.training.trial import TrialJob

PER_IMAGE = 2**27  # float32: half a gigabyte an image, never written to
HUNGRY = "scratch:hungry"
BATCH = 8


class Hungry(nn.Module):
    """Asks for memory in training, so much an image."""

    def forward(self, x: Tensor) -> Tensor:
        """``x``."""
        if self.training:
            torch.empty(len(x), PER_IMAGE)
        return x


@pytest.fixture(autouse=True)
def hungry() -> Iterator[None]:
    @architecture("hungry", image_size=16, min_size=16)
    def body(channels: int) -> tuple[Stages, int]:
        convolution = nn.Conv2d(channels, 8, 3)
        return [("stem", nn.Sequential(convolution, Hungry())), ("stage1", nn.Sequential(nn.ReLU(), Pool()))], 8

    yield
    registry._entries.pop("hungry")


@contextmanager
def room_for(images: float) -> Iterator[None]:
    """A process that may grow by what so many images ask for, and by as much as anything else here needs."""
    gc.collect()  # what tests before left would else be given back in between, and be room as well
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (int(size + images * 4 * PER_IMAGE), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def done(root: Path, images: float) -> tuple[list[dict[str, float]], loop.TrialResult]:
    workspace = tiny.workspace(root, tiny.data(), epochs=2, steps=3)
    history: list[dict[str, float]] = []
    with room_for(images):
        result = loop.run_trial(workspace, TrialJob(Strategy(HUNGRY)), lambda metrics: history.append(dict(metrics)))
    return history, result


def same(metrics: dict[str, float]) -> dict[str, float]:
    """What of a trial's row is not its time, nor in how many parts a batch went."""
    return {name: value for name, value in metrics.items() if name not in (loop.ACCUMULATION, "seconds")}


def test_a_batch_that_does_not_fit_goes_through_in_parts(tmp_path: Path) -> None:
    whole, of_whole = done(tmp_path, images=3 * BATCH)
    assert all(loop.ACCUMULATION not in metrics for metrics in whole)
    parts, of_parts = done(tmp_path, images=2.5)
    parts = parts[-2:]  # the process may give memory back in between: an epoch in fewer parts is then done again
    assert [metrics["epoch"] for metrics in parts] == [1, 2]
    assert {metrics[loop.ACCUMULATION] for metrics in parts} == {4.0}
    # No batch norm in it: the sum of the parts' gradients is the batch's.
    assert of_parts.validation_probabilities == pytest.approx(of_whole.validation_probabilities, abs=1e-4)
    assert [same(metrics) for metrics in parts] == [pytest.approx(same(metrics), rel=1e-4) for metrics in whole]
    assert same(of_parts.metrics) == pytest.approx(same(of_whole.metrics), rel=1e-4)


def test_the_user_is_told_and_the_metric_says_it(tmp_path: Path) -> None:
    workspace = tiny.workspace(tmp_path, tiny.data())
    job = LaneJob(0, JobKind.SEARCH, Strategy(HUNGRY).to_dict(), 0)
    with room_for(4.5):
        result = do_job(workspace, job, lambda message: None)
    assert result.reason is None and result.metrics[loop.ACCUMULATION] == 2.0
    assert "went through in 2 parts" in result.note


def test_what_fits_in_no_part_fails_with_its_reason(tmp_path: Path) -> None:
    workspace = tiny.workspace(tmp_path, tiny.data())
    job = LaneJob(0, JobKind.SEARCH, Strategy(HUNGRY).to_dict(), 0)
    with room_for(0.5):
        result = do_job(workspace, job, lambda message: None)
    assert result.reason is not None and result.reason.startswith("out of memory")
