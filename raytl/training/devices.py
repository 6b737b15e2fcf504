"""Where training runs, and how the host works ahead of it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def choose_device(name: str) -> torch.device:
    """The device of that name; ``auto`` for a GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """Half precision where the hardware has it; bfloat16 needs no scaling of the loss."""
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device, copied there while the host goes on; itself where it is there already.

    From ordinary memory a copy would first wait for all that the device has still to do: one such copy in each step,
    and the host never works ahead.
    """
    if device.type != "cuda" or tensor.device.type == device.type:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def finish(device: torch.device) -> None:
    """Wait until the device has done all that it was given; without that no clock tells how long it takes."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
