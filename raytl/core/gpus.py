"""The GPUs that torch can compute on, which may be fewer than the driver counts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_VISIBLE = "CUDA_VISIBLE_DEVICES"


@cache
def usable_gpus() -> tuple[str, ...]:
    """Their names; of a process, which sees the same ones to its end."""
    import torch

    return tuple(torch.cuda.get_device_name(index) for index in usable_indices())


def usable_indices() -> tuple[int, ...]:
    """Their numbers, as torch counts what this process sees.

    None where CUDA cannot start, though the driver counts some (it is older than the CUDA that torch brings, or the
    container may not compute), and none that torch has no code for.
    """
    import torch

    if not torch.cuda.is_available():
        return ()
    return tuple(index for index in range(torch.cuda.device_count()) if _has_code_for(index))


@contextmanager
def usable_alone_visible() -> Iterator[None]:
    """Have the processes that are started meanwhile see these GPUs alone, where torch has no code for others.

    Whoever counts GPUs hands out the first of those that the processes see. This process has looked already and sees
    what it saw.
    """
    import torch

    usable, listed = usable_indices(), os.environ.get(_VISIBLE)
    if not usable or len(usable) == torch.cuda.device_count():
        yield
        return
    names = None if listed is None else listed.split(",")  # numbers of the driver's, or what GPUs are called
    os.environ[_VISIBLE] = ",".join(str(index) if names is None else names[index].strip() for index in usable)
    try:
        yield
    finally:
        if listed is None:
            del os.environ[_VISIBLE]
        else:
            os.environ[_VISIBLE] = listed


def unusable_gpus() -> tuple[str, ...]:
    """Names, with their architecture, of those that torch has no code for."""
    import torch

    if not torch.cuda.is_available():
        return ()
    left_out = [index for index in range(torch.cuda.device_count()) if not _has_code_for(index)]
    return tuple(f"{torch.cuda.get_device_name(index)} (sm_{_architecture(index)})" for index in left_out)


def _has_code_for(index: int) -> bool:
    """Code runs on its own architecture and on later ones of the same generation."""
    import torch

    digits = ("".join(filter(str.isdigit, arch)) for arch in torch.cuda.get_arch_list() if arch.startswith("sm_"))
    built_for, own = [int(found) for found in digits], _architecture(index)
    # Of ROCm's architectures nothing follows from a number.
    if torch.version.cuda is None or not built_for:
        return True
    return any(built // 10 == own // 10 and built <= own for built in built_for)


def _architecture(index: int) -> int:
    import torch

    major, minor = torch.cuda.get_device_capability(index)
    return major * 10 + minor
