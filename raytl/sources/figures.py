"""What checkpoints hold of a training beside its weights, its options and figures, unpickled without NumPy.

NumPy's own classes build whatever a pickle asks of them: numbers of any size, and states that end the process.
Stand-ins in their place take what NumPy writes for a number and make a Python number of it.
"""

from __future__ import annotations

import argparse
import re
import struct
from pickle import UnpicklingError
from typing import Any

_CODES = {
    "b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q",
    "f2": "e", "f4": "f", "f8": "d",
}  # fmt: skip
"""What NumPy calls the kinds of its plain numbers -> what ``struct`` calls them."""
_ORDERS = {"": "=", "=": "=", "|": "=", "<": "<", ">": ">"}
"""NumPy's byte orders, of which ``|`` is that of single bytes -> those of ``struct``."""


class _Kind:
    """Stands for ``numpy.dtype``: a kind of plain number, such as ``f8`` or ``<i4``, and its byte order."""

    __slots__ = ("_code", "_order")  # no __dict__ for a pickle to fill

    def __init__(self, name: str, *_: object) -> None:
        parts = re.fullmatch(r"([<>=|]?)(\w\d)", name)
        if parts is None or parts[2] not in _CODES:
            raise UnpicklingError(f"{name[:20]!r} is no kind of plain number")
        self._order, self._code = _ORDERS[parts[1]], _CODES[parts[2]]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Of NumPy's state (version, byte order, ...) only the byte order: the rest is of records and objects."""
        self._order = _ORDERS[state[1]]

    def number(self, data: bytes) -> bool | int | float:
        """The number in exactly as many bytes as the kind has. Raises struct.error for more or fewer."""
        value: bool | int | float
        (value,) = struct.unpack(self._order + self._code, data)
        return value


def _number(kind: _Kind, data: bytes) -> bool | int | float:
    """Stands for ``numpy.core.multiarray.scalar``."""
    if type(kind) is not _Kind or type(data) is not bytes:
        raise UnpicklingError("a number needs its kind and its bytes")
    return kind.number(data)


HARMLESS: list[Any] = [
    argparse.Namespace,
    (_Kind, "numpy.dtype"),
    *((_number, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]
"""What torch may call as well while it unpickles, as ``torch.serialization.safe_globals`` takes it."""
