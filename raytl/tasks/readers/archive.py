"""Zip and tar files, read in place: a packed tar file is unpacked into memory, as nothing in it is found otherwise."""

from __future__ import annotations

import io
import os
import posixpath
import tarfile
import threading
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from raytl.core.errors import UserError

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MAX_BYTES = 4 << 30  # unpacked: of all that a packed tar file holds, which is held in memory, and of one other file
_BROKEN = (OSError, ValueError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError)
_ENCRYPTED, _UTF_8 = 1, 0x800  # flags of a member
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00")  # what gzip, bzip2 and xz begin with
_MOST_LINKS = 40  # that lead from one to another, as on a disk
_SMALL_BYTES, _MOST_TIMES = 1 << 24, 100  # images are packed already: what unpacks to more is meant to fill memory


@dataclass(frozen=True)
class Archive:
    """What the readers need of a filesystem, for the inside of a local archive. Its paths begin with ``/``."""

    path: str
    shown: str

    @property
    def unpacked(self) -> bool:
        """Whether each process that reads from it holds all of it in memory, or would if it had it."""
        try:
            return _is_packed(self.path)
        except OSError:
            return True

    def open_input_file(self, name: str) -> io.BytesIO:
        """The content of a member.

        Raises FileNotFoundError where there is none, OSError where it cannot be unpacked, UserError as :meth:`names`.
        """
        contents = self._contents()
        if name not in contents.names:
            raise FileNotFoundError(name)
        try:
            return io.BytesIO(contents.read(name))
        except _BROKEN as error:
            raise OSError(f"the archive does not give it: {_reason(error)}") from None

    def names(self) -> list[str]:
        """Paths of all files, sorted. Raises UserError where the archive cannot be read, is locked or too large."""
        return sorted(self._contents().names)

    def again(self) -> tuple[str, ...]:
        """Names of files that it holds more than once, one for each that is not taken. Raises as :meth:`names`."""
        return self._contents().again

    def _contents(self) -> _Contents:
        try:
            status = Path(self.path).stat()
            return _contents(self.path, status.st_mtime_ns, status.st_size)
        except (*_BROKEN, NotImplementedError) as error:
            what = f"{self.shown}: the archive cannot be read ({_reason(error)})"
            raise UserError(f"{what}; unpack it and give the folder") from None


@dataclass(frozen=True, slots=True)  # there may be millions
class _Place:
    """Where a file lies in a tar file: bytes from its beginning, and how many it has."""

    first: int
    size: int


@dataclass(frozen=True)
class _Contents:
    """What an archive holds.

    path: its own. names: paths in it, to what it calls them. held: of a tar file, where each file lies in it, or what
    is in it. again: names that it holds more than once; the last is taken, as by who unpacks it.
    """

    path: str
    names: Mapping[str, str]
    zipped: zipfile.ZipFile | None
    held: Mapping[str, bytes | _Place]
    lock: threading.Lock
    again: tuple[str, ...]

    def read(self, name: str) -> bytes:
        """A member, unpacked."""
        if self.zipped is None:
            held = self.held[name]
            return held if isinstance(held, bytes) else self._from_tar(held)
        with self.lock:  # one file descriptor
            info = self.zipped.getinfo(self.names[name])
            if info.file_size > MAX_BYTES:
                raise ValueError(_too_much())
            if info.file_size > _SMALL_BYTES and info.file_size > _MOST_TIMES * info.compress_size:
                raise ValueError(f"it unpacks to {info.file_size // max(1, info.compress_size)} times its size")
            return self.zipped.read(info)

    def _from_tar(self, place: _Place) -> bytes:
        if place.size > MAX_BYTES:
            raise ValueError(_too_much())
        with Path(self.path).open("rb") as file:
            file.seek(place.first)
            data = file.read(place.size)
        if len(data) < place.size:
            raise EOFError("it ends too early")
        return data


def is_archive(path: str) -> bool:
    """Whether a path of the local disk is an archive by its name."""
    return path.lower().endswith(ENDINGS) and os.path.isfile(path)  # noqa: PTH113  # surrogate-escaped names


@lru_cache(maxsize=4)
def _contents(path: str, modified_ns: int, size_bytes: int) -> _Contents:
    """A packed tar file is unpacked once by each process that reads it; of others each image when it is wanted."""
    if not path.lower().endswith(".zip"):
        held, again = _unpacked(path) if _is_packed(path) else _places(path)
        return _Contents(path, {name: name for name in held}, None, held, threading.Lock(), again)
    archive = zipfile.ZipFile(path)
    members = [info for info in archive.infolist() if not info.is_dir()]
    if any(info.flag_bits & _ENCRYPTED for info in members):
        raise ValueError("it is locked with a password")
    names = {_inner(_meant(info)): info.filename for info in members}
    kept = Counter(_inner(_meant(info)) for info in members)
    twice = tuple(name for name, count in kept.items() for _ in range(count - 1))
    return _Contents(path, names, archive, {}, threading.Lock(), twice)


def _is_packed(path: str) -> bool:
    """Whether a tar file is packed, whatever its ending. Raises OSError where it cannot be read."""
    if path.lower().endswith(".zip"):
        return False
    with Path(path).open("rb") as file:
        return file.read(6).startswith(_PACKED)


def _places(path: str) -> tuple[dict[str, bytes | _Place], tuple[str, ...]]:
    """Where its files lie, and the names that it holds again. What lies there in pieces is read; links are followed."""
    found: dict[str, bytes | _Place | str] = {}  # of links, what they lead to
    named: dict[str, bytes | _Place | str] = {}  # the same by the archive's own names
    again: list[str] = []
    total = 0
    with tarfile.open(path, "r:") as archive:
        while (info := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
            own, inner = posixpath.normpath(info.name), _inner(info.name)
            if not (info.isfile() or info.islnk() or info.issym()):
                named.pop(own, None)
                continue
            place: bytes | _Place | str = _Place(info.offset_data, max(0, info.size))
            if info.issparse():
                total += info.size
                if total > MAX_BYTES:
                    raise ValueError(_too_much())
                file = archive.extractfile(info)
                place = b"" if file is None else file.read()
            elif info.islnk():
                place = named.get(posixpath.normpath(info.linkname), b"")  # as it is until here
            elif info.issym():
                place = posixpath.normpath("/".join(filter(None, (posixpath.dirname(info.name), info.linkname))))
            again += [info.name] if inner in found else []
            found[inner] = named[own] = place
    return {name: _followed(place, named) for name, place in found.items()}, tuple(again)


def _followed(place: bytes | _Place | str, named: Mapping[str, bytes | _Place | str]) -> bytes | _Place:
    """What links lead to: nothing, out of the archive or in a circle, which is named like any other damaged image."""
    for _ in range(_MOST_LINKS):
        if not isinstance(place, str):
            return place
        place = named.get(place, b"")
    return b""


def _unpacked(path: str) -> tuple[dict[str, bytes | _Place], tuple[str, ...]]:
    """What it holds, and the names that it holds again."""
    held: dict[str, bytes | _Place] = {}
    again: list[str] = []
    total = 0
    with tarfile.open(path) as archive:
        for info in archive:
            if not (info.isfile() or info.islnk() or info.issym()):
                continue
            try:
                file = archive.extractfile(info)  # of a link, what it leads to
            except (KeyError, RecursionError):
                file = None  # out of the archive, or in a circle: empty, and named like any other damaged image
            total += 0 if file is None else file.seek(0, io.SEEK_END)
            if total > MAX_BYTES:
                raise ValueError(_too_much())
            if file is not None:
                file.seek(0)
            again += [info.name] if _inner(info.name) in held else []
            held[_inner(info.name)] = b"" if file is None else file.read()
    return held, tuple(again)


def _meant(info: zipfile.ZipInfo) -> str:
    """A member's name. macOS and many tools write UTF-8 without the flag that says so, which is read as cp437."""
    if info.flag_bits & _UTF_8:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def _inner(name: str) -> str:
    """A member's path: of one that points out of the archive, what is left within it."""
    return "/" + "/".join(part for part in name.replace("\\", "/").split("/") if part not in {"", ".", ".."})


def _too_much() -> str:
    return f"it holds more than {MAX_BYTES >> 30} GB"


def _reason(error: BaseException) -> str:
    return str(error).strip().rstrip(".") or type(error).__name__
