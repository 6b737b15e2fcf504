"""What a process that serves takes of its machine: as many threads as it was given CPUs, and memory that it keeps."""

from __future__ import annotations

import ctypes
import os
import sys

from raytl.core.machine import keep_freed

# As glibc comes to by itself once a block of this size was freed; then a network's intermediate results, which come and
# go with each batch, no longer come as new pages from the system: a third of a small network's time.
_KEPT_BLOCK_BYTES = 32 * 1024 * 1024
_KEPT_BYTES = 2 * _KEPT_BLOCK_BYTES


def limit_threads(cpus: float) -> int:
    """Have torch compute with a thread for each of so many CPUs in this process, at least one; returns how many.

    To be called before torch is loaded: its number of threads holds for the thread that sets it alone, and the others
    go by ``OMP_NUM_THREADS``. Ray sets that where nobody did. What an operator set for all processes of a node counts
    only where it is less.
    """
    threads = max(1, int(cpus))
    told = os.environ.get("OMP_NUM_THREADS", "")
    if told.isdigit() and int(told) > 0:
        threads = min(threads, int(told))
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    return threads


def keep_memory() -> None:
    """Have blocks that are freed kept for the next ones, up to :data:`_KEPT_BYTES`."""
    keep_freed(_KEPT_BLOCK_BYTES, _KEPT_BYTES)


def give_back_memory() -> None:
    """Return freed memory to the system: the C library would keep what a large image took, per thread."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)
