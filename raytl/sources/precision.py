"""Half precision where the hardware has it: for training, and for what serves a model on a GPU."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

_AMPERE = 8


def has_half(device: torch.device) -> bool:
    """Whether a device computes in bfloat16. GPUs before Ampere only emulate it, slower than full precision."""
    # Not torch.cuda.is_bf16_supported, which speaks of the current GPU.
    return device.type == "cuda" and (bool(torch.version.hip) or torch.cuda.get_device_capability(device)[0] >= _AMPERE)


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """Half precision where the hardware has it; bfloat16 needs no scaling of the loss."""
    return torch.autocast(device.type, torch.bfloat16) if has_half(device) else nullcontext()


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """What is computed meanwhile is not in half precision, also within :func:`autocast`."""
    return torch.autocast(device.type, enabled=False)
