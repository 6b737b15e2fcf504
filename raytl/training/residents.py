"""Tensors that a lane keeps on its device between trials."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor

DEVICE_SHARE = 0.25
"""Of the device memory that a lane may take when it starts; the training itself needs the rest."""


class Residents:
    """The most recently used tensors, on the device, under a byte budget.

    On the CPU nothing is copied and nothing kept.
    """

    def __init__(self, device: torch.device, budget_bytes: int) -> None:
        self.device = device
        self.budget_bytes = budget_bytes
        self._kept: OrderedDict[str, Tensor] = OrderedDict()

    def get(self, key: str, host: Tensor) -> Tensor:
        """``host`` on the device, copied there the first time; ``host`` itself where it is larger than the budget."""
        if host.device == self.device or host.nbytes > self.budget_bytes:
            return host
        if key not in self._kept:
            while self._kept and self.size_bytes() + host.nbytes > self.budget_bytes:
                self._kept.popitem(last=False)
            self._kept[key] = host.to(self.device)
        self._kept.move_to_end(key)
        return self._kept[key]

    def release(self) -> None:
        """Keep nothing, and give the device's memory back: another process is to have it."""
        self._kept.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def size_bytes(self) -> int:
        """Bytes of all that is kept."""
        return sum(tensor.nbytes for tensor in self._kept.values())
