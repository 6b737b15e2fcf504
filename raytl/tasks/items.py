"""The images of a task, one class per place they come from: a file, encoded bytes, or pixels in memory.

All are plain frozen dataclasses, so that they travel to other processes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from pickle import PickleBuffer
from typing import Any

import numpy as np
from PIL import Image

from raytl.core.errors import UserError, cause
from raytl.core.hashing import hash_bytes
from raytl.tasks.decoding import decode
from raytl.tasks.waiting import waiting

FETCH = "sign in to where it is, or download the images and pass --images DIR"
"""What to do where images lie at an address that does not give them."""
MAX_IMAGE_BYTES, MAX_TABLE_BYTES = 1 << 30, 8 << 30
"""Of files that are read at once. An image of as many pixels as are let in is smaller, even without compression."""


@dataclass(frozen=True)
class FileItem:
    """An image in a file, read anew each time.

    path: on the local disk (file names that are no UTF-8 included), or within ``filesystem``.
    filesystem: a ``pyarrow.fs.FileSystem``, None for the local disk.
    """

    name: str
    path: str
    filesystem: Any = None
    digest: str = ""

    def read(self, size_bytes: int = -1, *, most_bytes: int = MAX_IMAGE_BYTES) -> bytes:
        """The encoded bytes, or the first ``size_bytes`` of them.

        Raises UserError where the file cannot be read, or all of it is wanted and it has more than ``most_bytes``.
        """
        try:
            if self.filesystem is None:
                with Path(self.path).open("rb") as local:
                    if size_bytes < 0:
                        self._check_size(os.fstat(local.fileno()).st_size, most_bytes)
                    return local.read(size_bytes)
            with waiting(self.name, self.filesystem), self.filesystem.open_input_file(self.path) as remote:
                if size_bytes < 0 and hasattr(remote, "size"):
                    self._check_size(remote.size(), most_bytes)
                return bytes(remote.read(None if size_bytes < 0 else size_bytes))
        except FileNotFoundError:
            raise UserError(f"{self.name}: {self._what_is_missing()}") from None
        except OSError as error:
            if self._is_far_away():
                raise UserError(f"{self.name}: cannot be read ({cause(error)}); {FETCH}") from None
            raise UserError(
                f"{self.name}: cannot be read ({error.strerror or error}); check it or leave it out"
            ) from None

    def _is_far_away(self) -> bool:
        if self.filesystem is None:
            return False
        from pyarrow import fs

        return isinstance(self.filesystem, fs.FileSystem)  # and no archive, nor the web

    def _what_is_missing(self) -> str:
        if self.filesystem is not None or not os.path.islink(self.path):  # noqa: PTH114  # surrogate-escaped names
            return "no such file; correct the path or leave it out"
        if ".git/annex/" in os.readlink(self.path):  # noqa: PTH115
            return "a link of git-annex to what is not here; fetch it with git annex get"
        return "a link to what is not there; mend it or leave it out"  # the same for all, so that they are counted

    def _check_size(self, held_bytes: int, most_bytes: int) -> None:
        if held_bytes > most_bytes:
            what = f"the file has {held_bytes / 2**30:.1f} GiB, and no more than {most_bytes / 2**30:g} are read"
            raise UserError(f"{self.name}: {what}; make it smaller or leave it out")

    def open(self) -> Image.Image:
        """The decoded image."""
        return decode(self.read(), self.name)


@dataclass(frozen=True)
class EncodedItem:
    """An image whose encoded bytes came out of a table."""

    name: str
    data: bytes | memoryview = field(repr=False)
    digest: str = ""

    def read(self, size_bytes: int = -1) -> bytes:
        """The encoded bytes, or the first ``size_bytes`` of them."""
        return bytes(self.data if size_bytes < 0 else self.data[:size_bytes])

    def open(self) -> Image.Image:
        """The decoded image."""
        return decode(self.read(), self.name)

    def __reduce_ex__(self, protocol: Any) -> str | tuple[Any, ...]:
        """With the bytes beside the pickle where there is a place for them: Ray's readers map them, without a copy."""
        if protocol < 5:
            return super().__reduce_ex__(protocol)
        return _encoded_item, (self.name, PickleBuffer(self.data), self.digest)


def _encoded_item(name: str, data: Any, digest: str) -> EncodedItem:
    return EncodedItem(name, data if isinstance(data, bytes) else memoryview(data), digest)


@dataclass(frozen=True)
class PixelsItem:
    """An image in memory. pixels: uint8, (height, width) for greyscale or (height, width, 3) for RGB."""

    name: str
    pixels: np.ndarray = field(repr=False)

    @property
    def digest(self) -> str:
        """Hash of shape and pixels."""
        return hash_bytes(str(self.pixels.shape).encode(), self.pixels.tobytes())

    def open(self) -> Image.Image:
        """The pixels as an image."""
        return Image.fromarray(self.pixels)
