"""Ray's object store when it takes no more.

Ray spills to disk what the store has no room for, so that both are full where it says so; and what it says then speaks
of memory, though no process has too little of it.
"""

from __future__ import annotations

from typing import Any

import ray
from ray import cloudpickle
from ray.exceptions import ObjectStoreFullError, OutOfDiskError, RayError

from raytl.core.errors import UserError

FULL = (ObjectStoreFullError, OutOfDiskError)


def is_full(error: BaseException) -> bool:
    """Whether Ray says that it could not keep something; what failed in a worker group is only named in the text."""
    named = isinstance(error, RayError) and any(kind.__name__ in str(error) for kind in FULL)
    return named or isinstance(error, FULL)


def put(value: Any, what: str) -> Any:
    """A reference to a value in the store. what: it is.

    Raises UserError where the store and the disk beside it have no room for it.
    """
    try:
        return ray.put(value)
    except FULL:
        raise UserError(f"{what} ({_mebibytes(_size(value))}) has no room in {_full()}") from None


def get(reference: Any, what: str) -> Any:
    """The value. Raises UserError where this node's store has no room for it."""
    try:
        return ray.get(reference)
    except FULL:
        raise UserError(f"{what} has no room in {_full()}") from None


def _full() -> str:
    here = ray.get_runtime_context().get_node_id()
    holds = next(node["Resources"].get("object_store_memory", 0.0) for node in ray.nodes() if node["NodeID"] == here)
    return (
        f"Ray's object store (it holds {_mebibytes(holds)}), and the disk that it spills to is full as well: make room "
        "where Ray has its files (RAY_TMPDIR, else /tmp/ray), use a Ray with a larger store (ray start --head "
        "--object-store-memory BYTES), or give fewer data"
    )


def _size(value: Any) -> float:
    """Bytes that a value takes in the store."""
    buffers: list[int] = []

    def beside(buffer: Any) -> None:
        buffers.append(buffer.raw().nbytes)

    return float(len(cloudpickle.dumps(value, protocol=5, buffer_callback=beside)) + sum(buffers))


def _mebibytes(size_bytes: float) -> str:
    return f"{size_bytes / 2**20:,.0f} MiB"
