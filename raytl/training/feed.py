"""The feed: batches of every role, augmented and ready for the network's entry stage."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from raytl.finetuning import augmentation
from raytl.training.batches import IndexStream
from raytl.training.devices import upload
from raytl.training.distributed import Group
from raytl.training.network import Network
from raytl.training.pools import Pool, to_inputs

STRONG = "strong"


class Feed:
    """Draws a trial's batches, for ever; of each the share of one worker.

    All workers of a group draw the same batches, those that one worker would draw by itself, from generators of the
    same seeds. batch_size: of all their shares together, a multiple of the group's size.

    pools: by role (``target``, ``source``, ``unlabelled``), none of them empty. strong: the unlabelled images once
    more, for the strongly augmented second view, or None. Where a pool has views made beforehand, each batch comes from
    one of them, drawn at random; other pixels are augmented here, activations are as they are.
    policies: names, of the first view and of the strong one. generator: of indices and views, on the CPU;
    device_generator: of the augmentation.
    """

    def __init__(
        self,
        pools: Mapping[str, Pool],
        strong: Pool | None,
        batch_size: int,
        network: Network,
        policies: tuple[str, str],
        generator: torch.Generator,
        device_generator: torch.Generator,
        group: Group | None = None,
    ) -> None:
        group = group or Group()
        share = batch_size // group.size
        self._share = slice(group.rank * share, (group.rank + 1) * share)
        self._pools = pools
        self._strong = strong
        self._network = network
        self._policies = policies
        self._generator = generator
        self._device_generator = device_generator
        self._streams = {role: IndexStream(len(pool), batch_size, generator) for role, pool in pools.items()}

    def next(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Inputs by role, ``strong`` among them where it is wanted, and the labels of the roles that have them."""
        inputs: dict[str, Tensor] = {}
        labels: dict[str, Tensor] = {}
        for role, stream in self._streams.items():
            index, pool = stream.next(), self._pools[role]
            if role == "unlabelled" and self._strong is not None:
                inputs[STRONG] = self._draw(self._strong, index, self._policies[1])
            inputs[role] = self._draw(pool, index, self._policies[0])
            if pool.labels is not None:
                labels[role] = pool.labels[upload(index[self._share], pool.labels.device)]
        return inputs, labels

    def _draw(self, pool: Pool, index: Tensor, policy: str) -> Tensor:
        network = self._network
        view = int(torch.randint(len(pool.views), (), generator=self._generator)) if pool.views else None
        if pool.inputs.dtype != torch.uint8 or view is not None or policy == "none":
            return to_inputs(upload(pool.take(index[self._share], view), network.device), network)
        scale, shift = network.affine
        # How an image is changed depends on its place in the batch: each worker changes all of it, which is little
        # beside a step, and takes its share.
        batch = upload(pool.take(index), network.device)
        pixels = augmentation.get(policy)(batch.float() / 255, self._device_generator)[self._share]
        return torch.addcmul(shift, pixels, scale * 255).contiguous(memory_format=torch.channels_last)
