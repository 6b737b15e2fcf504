"""What a trial needs of its worker group: who it is, and tensors that all workers agree upon."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from raytl.training.devices import upload


@dataclass(frozen=True)
class Group:
    """A worker's place in its group; alone by default, and then every method does nothing.

    All workers call the same methods in the same order, with tensors of the same shapes.
    """

    rank: int = 0
    size: int = 1

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Mean of the gradients over the group, in one collective call.

        A parameter may have no gradient in some workers (a loss that found nothing in its batch): that counts as zero.
        Where it has none in any of them it keeps none.
        """
        if self.size == 1:
            return
        known = [parameter for parameter in parameters if parameter.requires_grad]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in known]
        own = torch.tensor([float(p.grad is not None) for p in known])
        present = upload(own, gradients[0].device)
        _in_one_piece([*gradients, present], self._sum)
        # Looked at only where it decides something: reading it waits for the device.
        counts = own if own.all() else present
        for parameter, gradient, count in zip(known, gradients, counts.tolist(), strict=True):
            parameter.grad = gradient.div_(self.size) if count else None

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Mean over the group, in place; floating-point tensors."""
        if self.size > 1:
            _in_one_piece([tensor.data for tensor in tensors], self._mean)

    def mean(self, value: Tensor) -> Tensor:
        """Mean of a scalar over the group."""
        result = value.detach().clone()
        self.average([result])
        return result

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Rank 0's values for everyone, in place."""
        if self.size == 1:
            return
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            by_type.setdefault(tensor.dtype, []).append(tensor.data)
        for group in by_type.values():
            _in_one_piece(group, lambda flat: distributed.broadcast(flat, src=0))

    def agreed(self, digest: str, device: torch.device) -> str:
        """Rank 0's hash in hex digits, for everyone; all are equally long. device: of tensors that the group shares."""
        if self.size == 1:
            return digest
        told = torch.tensor(list(bytes.fromhex(digest)), dtype=torch.uint8, device=device)
        self.share([told])
        return bytes(told.tolist()).hex()

    @staticmethod
    def _sum(flat: Tensor) -> None:
        distributed.all_reduce(flat)

    def _mean(self, flat: Tensor) -> None:
        distributed.all_reduce(flat)
        flat /= self.size


def _in_one_piece(tensors: list[Tensor], collective: Callable[[Tensor], object]) -> None:
    """Run a collective on many small tensors at the price of one."""
    if not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    collective(flat)
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))
