"""Tar files, and folders of them as WebDataset writes: where each file lies, so that it is read there."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import posixpath
import re
import shutil
import tarfile
from array import array
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

import pyarrow as pa

from raytl.core.hashing import hash_file
from raytl.tasks.formats import is_image
from raytl.tasks.readers.left_behind import is_visible
from raytl.tasks.readers.split_names import shard_split
from raytl.tasks.unpacked import CHUNK_BYTES, NoRoomError, renew, unpacked

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
_NOTES = frozenset({"", ".txt", ".md", ".rst", ".html", ".pdf"})
MAX_BYTES = 4 << 30  # of one file in it, and of what has to be put together of pieces
_KINDS = {  # by how they begin; a plain one begins with the name of a file in it
    "gzip": re.compile(rb"\x1f\x8b\x08"),
    "bzip2": re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"),
    "xz": re.compile(rb"\xfd7zXZ\x00"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd"),
}
_MOST_LINKS = 40  # that lead from one to another, as on a disk


class ChangedError(Exception):
    """A tar file is not the one that was looked through."""


class ShardError(Exception):
    """One of several tar files cannot be read. path: which."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


@dataclass(frozen=True, slots=True)  # there may be millions
class _Place:
    """Where a file lies in a tar file: bytes from its beginning, and how many it has."""

    first: int
    size: int


@dataclass(frozen=True)
class Tar:
    """What tar files hold. It travels to processes that read there, without looking the files through again.

    sources: as they were given; what is no tar file is itself what it holds. files: that are read from, which for
    packed ones are in the cache. states: age and size of each source. index: paths of what they hold, to numbers.
    shard, first, size: by number, which of the files it is in, the byte where it begins, and how many it has. pieces:
    by number, what had to be put together. again: names that it holds more than once; the last is taken.
    """

    sources: tuple[str, ...]
    files: tuple[str, ...]
    states: tuple[tuple[int, int], ...]
    index: dict[str, int]
    shard: array[int]
    first: array[int]
    size: array[int]
    pieces: dict[int, bytes] = field(default_factory=dict)
    again: tuple[str, ...] = ()

    @property
    def names(self) -> Collection[str]:
        """Paths of all files in it."""
        return self.index.keys()

    @property
    def copies(self) -> list[str]:
        """What is read from in place of files that are packed."""
        return [file for file, source in zip(self.files, self.sources, strict=True) if file != source]

    def is_here(self, name: str) -> bool:
        """Whether what a file in it is read from is on this machine."""
        number = self.index.get(name)
        return number is not None and os.path.exists(self.files[self.shard[number]])  # noqa: PTH110  # surrogate-escaped names

    def source_of(self, name: str) -> str:
        """The one of the sources that a file is in."""
        return self.sources[self.shard[self.index[name]]]

    def is_current(self) -> bool:
        """Whether the sources are what was looked through. Raises OSError where one is gone."""
        return all(map(_is_as, self.sources, self.states))

    def size_of(self, name: str) -> int:
        """Bytes of a file in it."""
        number = self.index[name]
        return len(self.pieces[number]) if number in self.pieces else self.size[number]

    @contextmanager
    def opened(self, name: str) -> Iterator[IO[bytes]]:
        """A file in it, to be read from its beginning, for as many bytes as :meth:`size_of` says.

        Raises ChangedError where the tar file is another by now, OSError where it cannot be read.
        """
        number = self.index[name]
        if number in self.pieces:
            yield io.BytesIO(self.pieces[number])
            return
        shard = self.shard[number]
        path = self.files[shard]
        renew(path)
        with Path(path).open("rb") as file:
            if path == self.sources[shard] and not _is_as(file.fileno(), self.states[shard]):
                raise ChangedError
            file.seek(self.first[number])
            yield file

    def read(self, name: str) -> bytes:
        """The content of a file in it. Raises as :meth:`opened`, EOFError where it ends too early."""
        size = self.size_of(name)
        if size > MAX_BYTES:
            raise ValueError(too_much())
        with self.opened(name) as file:
            data = file.read(size)
        if len(data) < size:
            raise EOFError("it ends too early")
        return data


def look_through(sources: Sequence[str], below: str = "") -> Tar:
    """What tar files hold, packed ones unpacked into the cache.

    below: the folder that several lie in, as shards of one data set: what they hold goes together, under folders that
    they lie in themselves, or of the splits that their names speak of; of files that two hold by one name but for the
    ending, the names begin with the shard's. Tables among them are files beside what the tar files hold.
    Raises what Python does where one cannot be read, as the cause of a ShardError if it is one of several, and
    NoRoomError where the cache cannot take it.
    """
    files, states = [], []
    found: list[dict[str, bytes | _Place]] = []
    again: list[str] = []
    held: dict[str, bytes | _Place]
    twice: tuple[str, ...]
    for source in sources:
        status = os.stat(source)  # noqa: PTH116  # surrogate-escaped names
        states.append((status.st_mtime_ns, status.st_size))
        if below and not source.lower().endswith(ENDINGS):
            path, held, twice = source, {f"/{posixpath.basename(source)}": _Place(0, status.st_size)}, ()
        else:
            path, held, twice = _inside(source, one_of_several=bool(below))
        files.append(path)
        found.append(held)
        again += twice
    index: dict[str, int] = {}
    shard, first, size = array("i"), array("q"), array("q")
    pieces: dict[int, bytes] = {}
    names = _together(sources, below, found) if below else found
    for number, (held, called) in enumerate(zip(found, names, strict=True)):
        for place, name in zip(held.values(), called, strict=True):
            if isinstance(place, bytes):
                pieces[len(shard)] = place
                place = _Place(0, len(place))
            index[name] = len(shard)
            shard.append(number)
            first.append(place.first)
            size.append(place.size)
    return Tar(tuple(sources), tuple(files), tuple(states), index, shard, first, size, pieces, tuple(again))


def _inside(source: str, *, one_of_several: bool) -> tuple[str, dict[str, bytes | _Place], tuple[str, ...]]:
    """What a tar file is read from, and what :func:`places` says of that."""
    try:
        path = str(_plain(source)) if is_packed(source) else source
        return (path, *places(path))
    except NoRoomError:
        raise
    except Exception as error:
        if one_of_several:
            raise ShardError(source) from error
        raise


def _together(sources: Sequence[str], below: str, found: Sequence[Collection[str]]) -> list[list[str]]:
    """What the files of each shard are called in the folder that all are read as."""
    inside = [PurePosixPath(source[len(below.rstrip("/")) + 1 :]) for source in sources]
    splits = [shard_split(path.name) if path.name.lower().endswith(ENDINGS) else None for path in inside]
    spoken = [split for path, split in zip(inside, splits, strict=True) if path.name.lower().endswith(ENDINGS)]
    by_names = None not in spoken and len(set(spoken)) > 1
    above = [
        posixpath.join("/", *path.parts[:-1], split if by_names and split else "")
        for path, split in zip(inside, splits, strict=True)
    ]
    joined = [[posixpath.join(top, name[1:]) for name in held] for top, held in zip(above, found, strict=True)]
    keys = Counter(key for names in joined for key in _keys(names))
    twice = {key for key, count in keys.items() if count > 1}
    return [[_told_apart(name, path.name, twice) for name in names] for path, names in zip(inside, joined, strict=True)]


def _keys(names: Sequence[str]) -> set[str]:
    """What files must not share with those of another shard: their names without endings, but of notes on the data."""
    images = {key for name in names if is_image(name) for key in _stems(name)}
    keys = ((name, posixpath.splitext(name)[0]) for name in names if _counts(name))
    return {key for name, key in keys if key in images or posixpath.splitext(name)[1].lower() not in _NOTES}


def _counts(name: str) -> bool:
    return all(map(is_visible, name.strip("/").split("/")))


def _stems(name: str) -> set[str]:
    """A file's name up to the ending, and up to the first dot, where a sample's ends."""
    folder, own = posixpath.split(name)
    return {posixpath.splitext(name)[0], posixpath.join(folder, own.partition(".")[0])}


def _told_apart(name: str, shard: str, twice: Collection[str]) -> str:
    """A file's name, with the shard's where its own up to the ending, or to the first dot, comes in another one too."""
    if not twice or _stems(name).isdisjoint(twice) or not _counts(name):
        return name
    folder, own = posixpath.split(name)
    return posixpath.join(folder, f"{bare(shard)}@{own}")


def bare(name: str) -> str:
    """A tar file's name without its ending."""
    ending = max((ending for ending in ENDINGS if name.lower().endswith(ending)), key=len, default="")
    return name[: len(name) - len(ending)]


def is_packed(path: str) -> bool:
    """Whether a tar file is packed, whatever its ending. Raises OSError where it cannot be read."""
    return _kind(path) is not None


def _kind(path: str) -> str | None:
    with Path(path).open("rb") as file:
        begin = file.read(10)
    return next((kind for kind, mark in _KINDS.items() if mark.match(begin)), None)


def _plain(path: str) -> Path:
    """A packed tar file as one that is not, in the cache."""

    def unpack(target: IO[bytes]) -> None:
        with _unpacking(path) as file:
            shutil.copyfileobj(file, target, CHUNK_BYTES)

    return unpacked(f"{hash_file(Path(path))}.tar", unpack)


def _unpacking(path: str) -> Any:
    openers: dict[str | None, Any] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}
    kind = _kind(path)
    if kind in openers:
        return openers[kind](path, "rb")
    return pa.CompressedInputStream(pa.PythonFile(Path(path).open("rb"), "r"), "zstd")  # closed with it


def _is_as(file: int | str, state: tuple[int, int]) -> bool:
    status = os.stat(file)  # noqa: PTH116  # surrogate-escaped names
    return (status.st_mtime_ns, status.st_size) == state


def places(path: str) -> tuple[dict[str, bytes | _Place], tuple[str, ...]]:
    """Where its files lie, and the names that it holds again. What lies there in pieces is read; links are followed."""
    found: dict[str, bytes | _Place | str] = {}  # of links, what they lead to
    named: dict[str, bytes | _Place | str] = {}  # the same by the archive's own names
    again: list[str] = []
    total = 0
    with tarfile.open(path, "r:") as archive:
        while (info := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
            own, name = posixpath.normpath(info.name), inner(info.name)
            if not (info.isfile() or info.islnk() or info.issym()):
                named.pop(own, None)
                continue
            place: bytes | _Place | str = _Place(info.offset_data, max(0, info.size))
            if info.issparse():
                total += info.size
                if total > MAX_BYTES:
                    raise ValueError(too_much())
                file = archive.extractfile(info)
                place = b"" if file is None else file.read()
            elif info.islnk():
                place = named.get(posixpath.normpath(info.linkname), b"")  # as it is until here
            elif info.issym():
                place = posixpath.normpath("/".join(filter(None, (posixpath.dirname(info.name), info.linkname))))
            again += [info.name] if name in found else []
            found[name] = named[own] = place
    return {name: _followed(place, named) for name, place in found.items()}, tuple(again)


def _followed(place: bytes | _Place | str, named: Mapping[str, bytes | _Place | str]) -> bytes | _Place:
    """What links lead to: nothing, out of the archive or in a circle, which is named like any other damaged image."""
    for _ in range(_MOST_LINKS):
        if not isinstance(place, str):
            return place
        place = named.get(place, b"")
    return b""


def inner(name: str) -> str:
    """A member's path: of one that points out of the archive, what is left within it."""
    return "/" + "/".join(part for part in name.replace("\\", "/").split("/") if part not in {"", ".", ".."})


def too_much() -> str:
    """Why a file in an archive is not read."""
    return f"it holds more than {MAX_BYTES >> 30} GB"
