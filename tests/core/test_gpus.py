"""Which GPUs are counted: those that torch can compute on, whatever the driver lists."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import ray
import torch

from raytl.core.gpus import unusable_gpus, usable_alone_visible, usable_gpus
from raytl.machines.looks import Mark, gpu
from raytl.runs.environment import environment
from raytl.search.lanes.cluster import lanes_here, start
from raytl.training.devices import choose_device, out_of_memory


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    usable_gpus.cache_clear()
    yield
    usable_gpus.cache_clear()


def cards(monkeypatch: pytest.MonkeyPatch, *capabilities: tuple[int, int]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"card {index}")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capabilities[index])
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80", "sm_90a", "compute_90"])
    monkeypatch.setattr(torch.version, "cuda", "13.0")


def test_none_where_cuda_cannot_start_though_the_driver_lists_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(index: int) -> str:
        raise RuntimeError("The NVIDIA driver on your system is too old")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", refuse)
    assert usable_gpus() == ()
    assert environment()["gpus"] == []
    assert choose_device("auto").type == "cpu"
    lanes = lanes_here(None, 0.0, 1, None)
    assert lanes is not None
    assert lanes.gpus == 0


def test_none_that_torch_has_no_code_for(monkeypatch: pytest.MonkeyPatch) -> None:
    cards(monkeypatch, (7, 0))
    assert usable_gpus() == ()
    assert unusable_gpus() == ("card 0 (sm_70)",)
    found = gpu()
    assert found.mark is Mark.WARNING
    assert "card 0 (sm_70)" in found.found


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (8, 9), (9, 0)])
def test_code_of_one_generation_runs_on_all_of_it(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    cards(monkeypatch, capability)
    assert usable_gpus() == ("card 0",)
    assert unusable_gpus() == ()


@pytest.mark.parametrize(
    ("listed", "visible"), [(None, "1,3"), ("4,5, 6,7", "5,7"), ("GPU-a,GPU-b,GPU-c,GPU-d", "GPU-b,GPU-d")]
)
def test_those_that_torch_has_code_for_are_taken_and_not_the_first(
    monkeypatch: pytest.MonkeyPatch, listed: str | None, visible: str
) -> None:
    cards(monkeypatch, (12, 0), (8, 6), (7, 0), (8, 6))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    if listed is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert usable_gpus() == ("card 1", "card 3")
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda", 1)
    assert "trains on card 1, card 3" in gpu().found
    with usable_alone_visible():
        assert os.environ["CUDA_VISIBLE_DEVICES"] == visible
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == listed


def test_a_list_of_gpus_that_are_all_of_use_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    cards(monkeypatch, (8, 0), (8, 6))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert choose_device("auto") == torch.device("cuda", 1)
    with usable_alone_visible():
        assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_a_ray_of_this_machines_own_hands_out_the_ones_of_use(monkeypatch: pytest.MonkeyPatch) -> None:
    cards(monkeypatch, (12, 0), (8, 6))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    begun: list[tuple[int, str | None]] = []
    monkeypatch.setattr(
        ray, "init", lambda **how: begun.append((how["num_gpus"], os.environ.get("CUDA_VISIBLE_DEVICES")))
    )
    start(1)
    assert begun == [(1, "1")]


@pytest.mark.parametrize(
    "said",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "GET was unable to find an engine to execute this computation",
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory",
    ],
)
def test_lack_of_memory_is_known_by_its_words(said: str) -> None:
    assert out_of_memory(RuntimeError(said))
    assert not out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))
