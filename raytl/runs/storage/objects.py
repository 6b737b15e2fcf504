"""A place on an object store: named pieces of content that are put as a whole, listed, read and deleted.

All that a run needs of a store, and all that S3, Google's and Azure's have in common: no appending, no renaming, and no
conditional writes. It must be strongly consistent, as those three are: what was put is read and listed at once.
pyarrow shows an object on Azure empty while it is written, and leaves it so where the writer dies: there it is put
under another name first, and copied.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow import fs

from raytl.core.errors import UserError, cause
from raytl.runs.files import writing
from raytl.tasks.readers.listing import open_uri
from raytl.tasks.readers.patience import impatient

CHUNK_BYTES = 8 * 2**20
ELSEWHERE = "let RAYTL_HOME name a folder elsewhere"
"""What to do where this machine's disk does not take a copy."""
PARTS = ".parts"
"""Folder of what is put under another name first."""
COPIED_BYTES = 200 * 2**20
"""What is larger is written at once: Azure copies 256 MiB in one step, and a model's document comes last anyhow."""


@dataclass(frozen=True)
class Seen:
    """An object as it is listed. mtime_ns: by the store's clock, None where it does not tell."""

    size: int
    mtime_ns: int | None


class Objects:
    """The objects below ``root`` of a pyarrow file system. shown: the same place as a URI.

    Every method raises OSError where the store does not answer or refuses, FileNotFoundError for an object that is
    not there.
    """

    def __init__(self, filesystem: Any, root: str, shown: str) -> None:
        self.shown = shown.rstrip("/")
        self._filesystem = filesystem
        self._root = root.strip("/") if not isinstance(filesystem, fs.LocalFileSystem) else root.rstrip("/")
        self._shows_halves = isinstance(filesystem, getattr(fs, "AzureFileSystem", ()))

    @classmethod
    def at(cls, uri: str) -> Objects:
        """The place that a URI names. Raises UserError for one that cannot be opened."""
        filesystem, root = open_uri(uri)
        if not root.strip("/"):
            raise UserError(f"{uri}: names no bucket; give a URI such as s3://bucket/runs")
        return cls(impatient(filesystem), root, uri.partition("?")[0])

    def below(self, name: str) -> Objects:
        """The objects whose keys begin with ``name/``."""
        return Objects(self._filesystem, self._path(name), f"{self.shown}/{name}")

    def put(self, key: str, content: bytes | Path) -> None:
        """Put an object, or another in its place; readers see one or the other, never half of it."""
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        if not self._shows_halves or not 0 < size <= COPIED_BYTES:
            self._write(key, content)
            return
        part = f"{PARTS}/{secrets.token_hex(8)}"
        self._write(part, content)
        with _os_errors():
            self._filesystem.copy_file(self._path(part), self._path(key))
            self._filesystem.delete_file(self._path(part))

    def _write(self, key: str, content: bytes | Path) -> None:
        try:
            stream = self._open(key)
        except FileNotFoundError as missing:  # file systems with real folders want them made first
            try:
                with _os_errors():
                    self._filesystem.create_dir(self._path(key).rpartition("/")[0], recursive=True)
            except OSError:
                raise missing from None  # which says of a bucket that there is none
            stream = self._open(key)
        with _os_errors():
            for chunk in _chunks(content):
                stream.write(chunk)
            stream.close()

    def get(self, key: str) -> bytes:
        """An object's content."""
        with self._reading(key) as stream:
            return bytes(stream.readall())

    def download(self, key: str, target: Path) -> None:
        """Write an object's content to a file, in one step. Raises NotWrittenError where the disk does not take it."""
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        with copying(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            file = temporary.open("wb")
        try:
            with self._reading(key) as stream:
                while chunk := stream.read(CHUNK_BYTES):
                    with copying(target):
                        file.write(chunk)
            with copying(target):
                file.close()
                temporary.replace(target)
        finally:
            for let_go in (file.close, temporary.unlink):
                with suppress(OSError):  # gone already, or on a disk that takes nothing: what it said first is told
                    let_go()

    def list(self, folder: str = "") -> dict[str, Seen]:
        """All objects, or those whose keys begin with ``folder/``, by key; nothing where there are none."""
        selector = fs.FileSelector(self._path(folder), recursive=True, allow_not_found=True)
        with _os_errors():
            found = self._filesystem.get_file_info(selector)
        start = len(self._root.strip("/")) + 1
        files = [info for info in found if info.type == fs.FileType.File and f"/{PARTS}/" not in info.path]
        return {info.path.strip("/")[start:]: Seen(info.size, info.mtime_ns) for info in files}

    def delete(self, key: str) -> None:
        """Delete an object; one that is gone already is fine."""
        with _os_errors():
            try:
                self._filesystem.delete_file(self._path(key))
            except FileNotFoundError:
                return

    def delete_all(self) -> None:
        """Delete all objects."""
        with _os_errors():
            try:
                self._filesystem.delete_dir_contents(self._root, missing_dir_ok=True)
                self._filesystem.delete_dir(self._root)
            except OSError:  # where folders are but the beginnings of names, there is none any more
                if self._filesystem.get_file_info(self._root).type != fs.FileType.NotFound:
                    raise

    @contextmanager
    def _reading(self, key: str) -> Iterator[Any]:
        path = self._path(key)
        with _os_errors():
            try:
                with self._filesystem.open_input_stream(path) as stream:
                    yield stream
            except FileNotFoundError:
                raise
            except OSError as error:  # pyarrow's S3 says something else where it went between being opened and read
                if self._filesystem.get_file_info(path).type == fs.FileType.NotFound:
                    raise FileNotFoundError(path) from error
                raise

    def _open(self, key: str) -> Any:
        with _os_errors():
            return self._filesystem.open_output_stream(self._path(key))

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}" if key else self._root


def copying(target: Path) -> AbstractContextManager[None]:
    """Turn an error of this machine's disk into a NotWrittenError: within :func:`reaching` it would be the store's."""
    return writing(target, ELSEWHERE)


@contextmanager
def reaching(shown: str, *, write: bool = False) -> Iterator[None]:
    """Turn a store's error into a UserError that names the place."""
    try:
        yield
    except OSError as error:
        what = "written" if write else "read"
        raise UserError(
            f"{shown}: cannot be {what} ({cause(error)}). Check that the bucket exists, that your credentials may "
            f"{'read and write' if write else 'read'} it, and the network."
        ) from error


@contextmanager
def _os_errors() -> Iterator[None]:
    try:
        yield
    except (OSError, UserError):
        raise
    except Exception as error:  # what fsspec's file systems raise is their own
        raise OSError(str(error)) from error


def _chunks(content: bytes | Path) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
