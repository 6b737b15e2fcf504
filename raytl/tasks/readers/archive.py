"""Zip and tar files, read in place."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from raytl.core.errors import UserError

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MAX_BYTES = 4 << 30  # unpacked: it is held in memory
Member = tuple[str, int, Callable[[], bytes]]  # name, unpacked bytes, content


@dataclass(frozen=True)
class Archive:
    """What the readers need of a filesystem, for the inside of a local archive. Its paths begin with ``/``."""

    path: str
    shown: str

    def open_input_file(self, name: str) -> io.BytesIO:
        """The content of a member. Raises FileNotFoundError where there is none, UserError as :meth:`names`."""
        try:
            return io.BytesIO(self._contents()[name])
        except KeyError:
            raise FileNotFoundError(name) from None

    def names(self) -> list[str]:
        """Paths of all files, sorted. Raises UserError where the archive cannot be read or is too large."""
        return sorted(self._contents())

    def _contents(self) -> dict[str, bytes]:
        try:
            status = Path(self.path).stat()
            return _contents(self.path, status.st_mtime_ns, status.st_size)
        except (OSError, ValueError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError) as error:
            reason = str(error).strip().rstrip(".") or type(error).__name__
            raise UserError(
                f"{self.shown}: the archive cannot be read ({reason}); unpack it and give the folder"
            ) from None


def is_archive(path: str) -> bool:
    """Whether a path of the local disk is an archive by its name."""
    return path.lower().endswith(ENDINGS) and os.path.isfile(path)  # noqa: PTH113  # surrogate-escaped names


@lru_cache(maxsize=4)
def _contents(path: str, modified_ns: int, size_bytes: int) -> dict[str, bytes]:
    """All files by their path; an archive is unpacked once by each process that reads it."""
    members = _zip(path) if path.lower().endswith(".zip") else _tar(path)
    found: dict[str, bytes] = {}
    total = 0
    for name, unpacked_bytes, content in members:
        total += unpacked_bytes
        if total > MAX_BYTES:
            raise ValueError(f"it holds more than {MAX_BYTES >> 30} GB")
        found["/" + name.replace("\\", "/").removeprefix("./").lstrip("/")] = content()
    return found


def _zip(path: str) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                yield info.filename, info.file_size, partial(archive.read, info)


def _tar(path: str) -> Iterator[Member]:
    def content(info: tarfile.TarInfo) -> bytes:
        file = archive.extractfile(info)
        return b"" if file is None else file.read()

    with tarfile.open(path) as archive:
        for info in archive:
            if info.isfile():
                yield info.name, info.size, partial(content, info)
