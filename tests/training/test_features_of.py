"""Heads on features that another kind of device made: read where they are kept, never made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from emulated_cuda import emulated_cuda
from tiny import MODEL, PRETRAINED, STAGES, data, workspace

from raytl.search.jobs import JobKind, JobResult, LaneJob
from raytl.search.lanes.work import do_job
from raytl.training import Strategy, pools
from raytl.training.pools import PoolMaker
from raytl.training.workspace import Workspace

HEAD = Strategy(MODEL, cut=STAGES, head="logistic")
STRATEGIES = [
    HEAD,
    replace(HEAD, head="stages"),
    replace(HEAD, head="stages", source_domain="bright"),
    replace(HEAD, head="stages", source_domain="bright", adaptation="moments"),
    replace(HEAD, head="stages", adaptation="propagation"),
    Strategy(PRETRAINED, cut=STAGES, head="logistic"),
]
"""As probes are."""


@pytest.fixture(autouse=True)
def _neighbours_are_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a few images there are too few for that by themselves."""
    monkeypatch.setattr("raytl.training.taught.AGREED", -1.0)


def done(space: Workspace, strategy: Strategy, **job: object) -> JobResult:
    return do_job(space, LaneJob(0, JobKind.CONFIRM, strategy.to_dict(), 1, **job), lambda message: None)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_same_is_said_of_what_a_gpu_has_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: Strategy
) -> None:
    """In full precision, though the GPU looks at whole networks in half of it; and no image is decoded."""
    with emulated_cuda():
        gpu = done(workspace(tmp_path, data(), device="cuda:0"), strategy)
    assert gpu.reason is None and gpu.device == "cuda"
    monkeypatch.setattr(Workspace, "pixels", lambda self, images, preprocessing: pytest.fail("decoded"))
    cpu = done(workspace(tmp_path, data()), strategy, features_of="cuda")
    assert cpu.reason is None and cpu.device == "cpu" and not cpu.absent
    np.testing.assert_allclose(cpu.validation_probabilities, gpu.validation_probabilities, atol=1e-5)
    assert cpu.metrics["score"] == pytest.approx(gpu.metrics["score"], abs=1e-5)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_is_not_kept_is_said_to_be_absent_and_not_made(tmp_path: Path, strategy: Strategy) -> None:
    """Nor are those taken that this kind of device has made."""
    own = done(workspace(tmp_path, data()), strategy)
    before = sorted(path.name for path in tmp_path.rglob("*.npy"))
    result = done(workspace(tmp_path, data()), strategy, features_of="cuda")
    assert own.reason is None and result.absent and result.reason is None and result.validation_index is None
    assert sorted(path.name for path in tmp_path.rglob("*.npy")) == before


def test_a_source_model_that_is_not_there_is_not_trained_for_it(tmp_path: Path) -> None:
    assert done(workspace(tmp_path, data()), STRATEGIES[-1], features_of="cuda").absent
    assert not list((tmp_path / "sources").rglob("*.safetensors"))


def test_what_goes_while_it_is_asked_for_is_not_made_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PoolMaker, "_run", lambda self, *args: pytest.fail("passed through the network"))
    monkeypatch.setattr(PoolMaker, "_image_bytes", lambda self: 1)
    assert done(workspace(tmp_path, data()), HEAD, features_of="cuda").absent


def test_how_long_it_would_take_here_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a time budget too: it is not given up, but left to a lane with a GPU."""
    monkeypatch.setattr(pools, "TIMED_FROM", 1)
    monkeypatch.setattr(PoolMaker, "_image_seconds", lambda self: pytest.fail("timed"))
    assert done(workspace(tmp_path, data()), HEAD, features_of="cuda", within_s=0.0).absent


def test_what_the_cache_has_no_room_for_is_no_work_for_it(tmp_path: Path) -> None:
    space = workspace(tmp_path, data())
    space.cache.budget_bytes = 0
    assert done(space, HEAD, features_of="cuda").absent
    assert not done(space, HEAD).absent
