"""Zip and tar files, read in place; packed tar files where they were unpacked, as nothing is found in them."""

from __future__ import annotations

import io
import os
import tarfile
import threading
import weakref
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from raytl.core.errors import UserError
from raytl.core.hashing import hash_file, hash_strings
from raytl.core.names import printable
from raytl.tasks.readers.tars import ENDINGS as TARS
from raytl.tasks.readers.tars import MAX_BYTES, ChangedError, ShardError, Tar, inner, look_through, too_much
from raytl.tasks.unpacked import CHUNK_BYTES, NoRoomError, unpacked

ENDINGS = (".zip", *TARS)
_BROKEN = (
    *(OSError, ValueError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError, ChangedError),
    *(pa.ArrowException,),
)
_ENCRYPTED, _UTF_8 = 1, 0x800  # flags of a member
_SMALL_BYTES, _MOST_TIMES = 1 << 24, 100  # images are packed already: what unpacks to more is meant to fill memory


class _Known:
    """What is known of the inside of an archive, by all that read from it in a process."""

    def __init__(self, tar: Tar | None = None) -> None:
        self.contents: _Zip | Tar | None = tar
        self.hashes: dict[tuple[str, tuple[int, int]], str] = {}  # of files, as they were
        self.lock = threading.RLock()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Known, (self.contents if isinstance(self.contents, Tar) else None,)


_opened: weakref.WeakValueDictionary[tuple[str, tuple[str, ...]], _Known] = weakref.WeakValueDictionary()


@dataclass(frozen=True)
class Archive:
    """What the readers need of a filesystem, for the inside of a local archive. Its paths begin with ``/``.

    shards: tar files below ``path``, a folder then, that are one archive together, and tables beside them. Where
    the files in tar files lie travels with it, once that is known.
    """

    path: str
    shown: str
    shards: tuple[str, ...] = ()
    _known: _Known = field(default_factory=_Known, repr=False, compare=False)

    def __post_init__(self) -> None:
        mine = self._known
        known = _opened.setdefault((self.path, self.shards), mine)
        if mine.contents is not None:  # as who sent it has just found it
            known.contents = mine.contents
        object.__setattr__(self, "_known", known)

    def __reduce__(self) -> tuple[Any, ...]:
        return Archive, (self.path, self.shown, self.shards, self._known)

    def at_hand(self, name: str) -> bool:
        """Whether a file in it can be read here, without anything to be unpacked on disk before."""
        contents = self._known.contents
        if isinstance(contents, Tar):
            return contents.is_here(name)
        return os.path.exists(self.path)  # noqa: PTH110  # surrogate-escaped names

    @property
    def copies(self) -> list[str]:
        """What was unpacked in the cache to be read from there. Raises as :meth:`names`."""
        contents = self._contents()
        return contents.copies if isinstance(contents, Tar) else []

    def open_input_file(self, name: str) -> io.BytesIO:
        """The content of a member.

        Raises FileNotFoundError where there is none, OSError where it cannot be unpacked, UserError as :meth:`names`.
        """
        try:
            try:
                return io.BytesIO(self._member(name))
            except (ChangedError, FileNotFoundError):
                self._begin_anew()  # another archive in its place, or what was unpacked went
                return io.BytesIO(self._member(name))
        except KeyError:
            raise FileNotFoundError(name) from None
        except _BROKEN as error:
            raise OSError(f"the archive does not give it: {_reason(error)}") from None

    def names(self) -> list[str]:
        """Paths of all files, sorted. Raises UserError where the archive cannot be read, is locked or too large."""
        return sorted(self._contents(anew=True).names)

    def size_of(self, name: str) -> int:
        """Bytes of a member, unpacked. Raises as :meth:`open_input_file`."""
        try:
            return self._contents().size_of(name)
        except KeyError:
            raise FileNotFoundError(name) from None

    def again(self) -> tuple[str, ...]:
        """Names of files that it holds more than once, one for each that is not taken. Raises as :meth:`names`."""
        return self._contents().again

    def copy_of(self, name: str) -> Path:
        """A member as a file of its own in the cache, to be read in place. Raises as :meth:`open_input_file`."""
        contents = self._contents()

        def unpack(target: IO[bytes]) -> None:
            with contents.opened(name) as file:
                left = contents.size_of(name)
                while left and (data := file.read(min(left, CHUNK_BYTES))):
                    target.write(data)
                    left -= len(data)
            if left:
                raise EOFError("it ends too early")

        try:
            source = contents.source_of(name) if isinstance(contents, Tar) else self.path
            return unpacked(hash_strings([self._hash_of(source), name]), unpack)
        except KeyError:
            raise FileNotFoundError(name) from None
        except _BROKEN as error:
            raise OSError(f"the archive does not give it: {_reason(error)}") from None

    def beside(self, name: str) -> Path | None:
        """The file on disk that a table beside the tar files is; None for what is in them. Raises as :meth:`names`."""
        contents = self._contents()
        if not self.shards or not isinstance(contents, Tar) or name not in contents.index:
            return None
        source = contents.source_of(name)
        return None if source.lower().endswith(TARS) else Path(source)

    def _hash_of(self, source: str) -> str:
        key = source, _state(source)
        with self._known.lock:
            if key not in self._known.hashes:
                self._known.hashes[key] = hash_file(Path(source))
            return self._known.hashes[key]

    def _member(self, name: str) -> bytes:
        return self._contents().read(name)

    def _begin_anew(self) -> None:
        with self._known.lock:
            self._known.contents = None

    def _contents(self, *, anew: bool = False) -> _Zip | Tar:
        """anew: whether to look at a tar file again that is another by now, which reading from it sees for itself."""
        try:
            with self._known.lock:
                contents = self._known.contents
                if contents is None or ((anew or isinstance(contents, _Zip)) and not contents.is_current()):
                    contents = self._known.contents = self._look()
                return contents
        except NoRoomError as error:
            raise UserError(f"{self.shown}: {_reason(error)}") from None
        except ShardError as error:
            which = f"{self.shown.rstrip('/')}/{printable(error.path[len(self.path.rstrip('/')) + 1 :])}"
            what = f"{which}: the tar file cannot be read ({_reason(error.__cause__ or error)})"
            raise UserError(f"{what}; fetch or write it again, or move it out of the folder") from None
        except (*_BROKEN, NotImplementedError) as error:
            what = f"{self.shown}: the archive cannot be read ({_reason(error)})"
            raise UserError(f"{what}; unpack it and give the folder") from None

    def _look(self) -> _Zip | Tar:
        if self.shards:
            return look_through(self.shards, self.path)
        return _Zip(self.path) if self.path.lower().endswith(".zip") else look_through([self.path])


class _Zip:
    """What a zip file holds. again: names that it holds more than once; the last is taken, as by who unpacks it."""

    def __init__(self, path: str) -> None:
        self._path, self._state = path, _state(path)
        self._zipped = zipfile.ZipFile(path)
        members = [info for info in self._zipped.infolist() if not info.is_dir()]
        if any(info.flag_bits & _ENCRYPTED for info in members):
            raise ValueError("it is locked with a password")
        self._infos = {inner(_meant(info)): info for info in members}
        kept = Counter(inner(_meant(info)) for info in members)
        self.again = tuple(name for name, count in kept.items() for _ in range(count - 1))
        self._lock = threading.Lock()

    @property
    def names(self) -> Collection[str]:
        """Paths of all files in it."""
        return self._infos.keys()

    def is_current(self) -> bool:
        """Whether it is the file that was looked through. Raises OSError where it is gone."""
        return self._state == _state(self._path)

    def size_of(self, name: str) -> int:
        """Bytes of a file in it, unpacked."""
        return self._infos[name].file_size

    @contextmanager
    def opened(self, name: str) -> Iterator[IO[bytes]]:
        """A file in it, to be read from its beginning. Raises what Python does where it cannot be unpacked."""
        info = self._infos[name]
        if info.file_size > _SMALL_BYTES and info.file_size > _MOST_TIMES * info.compress_size:
            raise ValueError(f"it unpacks to {info.file_size // max(1, info.compress_size)} times its size")
        with self._zipped.open(info) as file:
            yield file

    def read(self, name: str) -> bytes:
        """The content of a file in it. Raises as :meth:`opened`."""
        if self.size_of(name) > MAX_BYTES:
            raise ValueError(too_much())
        with self._lock, self.opened(name) as file:  # one file descriptor
            return file.read()


def is_archive(path: str) -> bool:
    """Whether a path of the local disk is an archive by its name."""
    return path.lower().endswith(ENDINGS) and os.path.isfile(path)  # noqa: PTH113  # surrogate-escaped names


def _state(path: str) -> tuple[int, int]:
    status = Path(path).stat()
    return status.st_mtime_ns, status.st_size


def _meant(info: zipfile.ZipInfo) -> str:
    """A member's name. macOS and many tools write UTF-8 without the flag that says so, which is read as cp437."""
    if info.flag_bits & _UTF_8:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def _reason(error: BaseException) -> str:
    return str(error).strip().rstrip(".") or type(error).__name__
