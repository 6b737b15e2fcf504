"""Tensors that a lane keeps on its device between trials."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor

DEVICE_SHARE = 0.25
"""Of the device memory that is free when a lane starts; other lanes and the training itself need the rest."""


class Residents:
    """The most recently used tensors, on the device, under a byte budget.

    budget_bytes: None for a share of the free memory. On the CPU nothing is copied and nothing kept.
    """

    def __init__(self, device: torch.device, budget_bytes: int | None = None) -> None:
        self.device = device
        self.budget_bytes = _share(device) if budget_bytes is None else budget_bytes
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

    def size_bytes(self) -> int:
        """Bytes of all that is kept."""
        return sum(tensor.nbytes for tensor in self._kept.values())


def _share(device: torch.device) -> int:
    return int(DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else 0
