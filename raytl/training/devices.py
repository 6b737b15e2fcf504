"""Where training runs, and how the host works ahead of it."""

from __future__ import annotations

import gc

import torch
from torch import Tensor

from raytl.core.gpus import usable_indices

GPU_BATCH = 64
OUT_OF_MEMORY = "out of memory"
_NO_MEMORY = (
    OUT_OF_MEMORY,
    "can't allocate memory",
    # CUDA's libraries say it in words of their own; cuDNN finds no way to compute where each needs more than there is.
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
    "unable to find an engine to execute this computation",
)


def choose_device(name: str) -> torch.device:
    """The device of that name, of a GPU with its number; ``auto`` for a GPU where there is one that torch can use.

    Without a number it is the current one, or the first that torch can use where that is not one of them.
    """
    device = torch.device(("cuda" if usable_indices() else "cpu") if name == "auto" else name)
    if device.type == "cuda" and device.index is None:  # not every function of torch takes it without
        current, usable = torch.cuda.current_device(), usable_indices()
        return torch.device("cuda", current if current in usable or not usable else usable[0])
    return device


def keep_to_share(device: torch.device, share: float) -> None:
    """Let this process have no more than its share of the GPU's memory, so that running out of it hurts no other."""
    if device.type == "cuda" and share < 1:
        torch.cuda.set_per_process_memory_fraction(share, device)


def free_bytes(device: torch.device, share: float) -> int:
    """Memory that a process may still take of a GPU of which it has a share; 0 of the CPU's, which is nobody's own."""
    if device.type != "cuda":
        return 0
    free, total = torch.cuda.mem_get_info(device)
    return int(min(free, share * total))


def timed_batch(device: torch.device, most: int) -> int:
    """Images to time a pass with: ``most`` on a processor, on a GPU as many as it is given in earnest.

    There a few take as long as a full batch, and an image would seem to take many times what it does.
    """
    return most if device.type == "cpu" else max(most, GPU_BATCH)


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device, copied there while the host goes on; itself where it is there already.

    From ordinary memory a copy would first wait for all that the device has still to do: one such copy in each step,
    and the host never works ahead.
    """
    if device.type != "cuda" or tensor.device.type == device.type:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was no memory, of the device or of this machine."""
    said = str(error)
    return isinstance(error, MemoryError) or any(words in said for words in _NO_MEMORY)


def gpu_fault(error: BaseException) -> str | None:
    """What a GPU said when it failed, after which no call to it succeeds in this process; None of other errors."""
    said = str(error).strip().splitlines()
    failed = isinstance(error, RuntimeError) and bool(said) and said[0].startswith(("CUDA error", "HIP error"))
    return said[0] if failed else None


def free_memory(device: torch.device) -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def finish(device: torch.device) -> None:
    """Wait until the device has done all that it was given; without that no clock tells how long it takes."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
