"""What Ray is told this process was called with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import ray

from raytl.core.names import printable


@contextmanager
def entrypoint_as_text() -> Iterator[None]:
    r"""While Ray starts or is joined, tell it the command line with bytes that are no UTF-8 as ``\xff``.

    It notes the command line with the job and takes nothing but text: one folder of such a name among the arguments,
    and it does not start. There is no setting for what it notes.
    """
    told = ray._private.utils.get_entrypoint_name
    ray._private.utils.get_entrypoint_name = lambda: printable(told())
    try:
        yield
    finally:
        ray._private.utils.get_entrypoint_name = told
