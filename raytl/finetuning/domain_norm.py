"""Batch norm when two domains are seen: whose statistics are used, and whose are remembered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from raytl.finetuning.freezing import batch_norms


@contextmanager
def running_statistics_kept(stages: Sequence[nn.Module]) -> Iterator[None]:
    """Within the context, forward passes leave all running batch-norm statistics untouched.

    Layers in training mode still normalise by the batch's own statistics. For ``batch_norm: separate``, where the
    source batch passes in here and only the target batch may move the statistics that inference will use.
    """
    norms = [norm for stage in stages for norm in batch_norms(stage) if norm.track_running_stats]
    try:
        for norm in norms:
            # Not ``momentum = 0``: that would still multiply, and so keep an overflow of the source batch for good.
            norm.track_running_stats = False
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
