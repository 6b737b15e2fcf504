"""Endless streams of batch indices over pools of unequal size."""

from __future__ import annotations

import torch
from torch import Tensor


class IndexStream:
    """Indices into a pool of ``size`` images, ``batch_size`` at a time, for ever.

    A pool of at least a batch is walked in shuffled passes (no image twice before all were seen once); a smaller pool
    is drawn with replacement, so that a handful of labelled images still makes full batches.
    """

    def __init__(self, size: int, batch_size: int, generator: torch.Generator) -> None:
        if size < 1:
            raise ValueError("a pool needs at least one image")
        self.size = size
        self.batch_size = batch_size
        self._generator = generator
        self._order = torch.empty(0, dtype=torch.int64)

    def next(self) -> Tensor:
        """int64 (batch_size,)."""
        if self.size < self.batch_size:
            return torch.randint(self.size, (self.batch_size,), generator=self._generator)
        while len(self._order) < self.batch_size:
            self._order = torch.cat([self._order, torch.randperm(self.size, generator=self._generator)])
        batch, self._order = self._order[: self.batch_size], self._order[self.batch_size :]
        return batch
