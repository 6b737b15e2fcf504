"""The images of a task, one class per place they come from: a file, encoded bytes, or pixels in memory.

All are plain frozen dataclasses, so that they travel to other processes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from raytl.core.errors import UserError
from raytl.core.hashing import hash_bytes
from raytl.tasks.decoding import decode


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

    def read(self, size_bytes: int = -1) -> bytes:
        """The encoded bytes, or the first ``size_bytes`` of them. Raises UserError where the file cannot be read."""
        try:
            if self.filesystem is None:
                with Path(self.path).open("rb") as local:
                    return local.read(size_bytes)
            with self.filesystem.open_input_file(self.path) as remote:
                return bytes(remote.read(None if size_bytes < 0 else size_bytes))
        except FileNotFoundError:
            raise UserError(f"{self.name}: no such file; correct the path or leave it out") from None
        except OSError as error:
            raise UserError(
                f"{self.name}: cannot be read ({error.strerror or error}); check it or leave it out"
            ) from None

    def open(self) -> Image.Image:
        """The decoded image."""
        return decode(self.read(), self.name)

    def portable(self) -> EncodedItem:
        """The same image with its bytes, for machines that do not have the file. Raises UserError as :meth:`read`."""
        return EncodedItem(self.name, self.read(), self.digest)


@dataclass(frozen=True)
class EncodedItem:
    """An image whose encoded bytes came out of a table."""

    name: str
    data: bytes = field(repr=False)
    digest: str = ""

    def read(self, size_bytes: int = -1) -> bytes:
        """The encoded bytes, or the first ``size_bytes`` of them."""
        return self.data if size_bytes < 0 else self.data[:size_bytes]

    def open(self) -> Image.Image:
        """The decoded image."""
        return decode(self.data, self.name)

    def portable(self) -> EncodedItem:
        """Itself: it holds its bytes."""
        return self


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

    def portable(self) -> PixelsItem:
        """Itself: it holds its pixels."""
        return self
