"""Freezing the stages below the cut, and keeping their batch norm and dropout still while the rest trains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def freeze(stages: Sequence[nn.Module], cut: int) -> None:
    """Take the parameters of ``stages[:cut]`` out of training; those of ``stages[cut:]`` are left as they are.

    That alone does not freeze batch-norm statistics: call :func:`training_mode` as well, every epoch.
    Raises ValueError where the cut is not in [0, len(stages)].
    """
    _check_cut(stages, cut)
    for stage in stages[:cut]:
        stage.requires_grad_(False)


def training_mode(stages: Sequence[nn.Module], cut: int) -> None:
    """Put ``stages[cut:]`` in training mode and ``stages[:cut]`` in evaluation mode.

    To be called whenever training resumes after an evaluation, because ``model.train()`` would wake the frozen stages'
    batch norm and dropout.
    """
    _check_cut(stages, cut)
    for index, stage in enumerate(stages):
        stage.train(index >= cut)


def recalibrate_norm(stages: Sequence[nn.Module], start: int, batches: Iterable[Tensor]) -> None:
    """Re-estimate the batch-norm statistics of ``stages[start:]`` on ``batches`` (AdaBN; Li et al., 2016).

    batches: inputs of ``stages[start]``, first dimension the batch; images from the domain the model is to be used in.
    Every statistic becomes the mean of the batches' own, weighted by their sizes. Dropout stays off, no gradient is
    taken, and each module's mode and momentum are as before afterwards. Batches of one image carry no variance and are
    passed over; where nothing else is given, the statistics stay as they were.
    """
    _check_cut(stages, start)
    norms = [norm for stage in stages[start:] for norm in batch_norms(stage) if norm.running_mean is not None]
    if not norms:
        return
    modes = [(module, module.training) for stage in stages[start:] for module in stage.modules()]
    momenta = [norm.momentum for norm in norms]
    try:
        for module, _ in modes:
            module.training = isinstance(module, _BatchNorm)
        seen = 0
        with torch.no_grad():
            for batch in batches:
                if len(batch) < 2:
                    continue
                seen += len(batch)
                for norm in norms:
                    # A momentum of n / (all so far) makes the running update an exact weighted mean; the first
                    # batch has momentum 1 and so overwrites what the source domain left there.
                    norm.momentum = len(batch) / seen
                for stage in stages[start:]:
                    batch = stage(batch)
    finally:
        for module, training in modes:
            module.training = training
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def batch_norms(module: nn.Module) -> Iterator[_BatchNorm]:
    """All batch-norm layers of ``module``, itself included."""
    return (layer for layer in module.modules() if isinstance(layer, _BatchNorm))


def _check_cut(stages: Sequence[nn.Module], cut: int) -> None:
    if not 0 <= cut <= len(stages):
        raise ValueError(f"cut {cut} is outside 0..{len(stages)}")
