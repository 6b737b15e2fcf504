"""What a path holds before any image is decoded: one entry per image, with the label and group that stand beside it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from threading import Lock
from typing import Any, cast

from raytl.core.errors import UserError, cause
from raytl.core.names import printable
from raytl.tasks.items import EncodedItem, FileItem
from raytl.tasks.problems import Problem, Severity
from raytl.tasks.readers.archive import Archive, is_archive
from raytl.tasks.readers.patience import enduring, impatient
from raytl.tasks.readers.web import WEB, is_web
from raytl.tasks.rows import RowItem


@dataclass(frozen=True)
class Entry:
    """One image to be read.

    label, group: as text, None where there is none.
    certain: whether it is meant to be an image; a file with an unknown suffix is one only if its bytes say so.
    split: "train", "validation" or "test", None where the data is in one piece.
    """

    item: FileItem | EncodedItem | RowItem
    label: str | None = None
    group: str | None = None
    certain: bool = True
    split: str | None = None


@dataclass(frozen=True)
class Told:
    """What a table says an image shows of which no folder says it. by: the table, in words."""

    label: str
    by: str


@dataclass(frozen=True)
class Picture:
    """What several images are versions of by their names.

    images: how many. example: a name that says so. own: whether the name is one that no other picture would have.
    """

    images: int
    example: str
    own: bool


@dataclass
class Listing:
    """All entries of a path, in a fixed order.

    name: the path as messages show it. labelled: whether the path has labels at all. layout: what the path was taken
    for, in a few words. unlabelled_because: why there are no labels, or a single class, where that is known, as a
    sentence. split_names: what the folders or files of each split are called. useless: why tables beside the images are
    of no use, by name; unknown: likewise, of files that may be about something else. empty_because: what is there
    instead of images. beside: by path, groups and splits that a table says of images whose folders give the labels;
    heard: names of such tables, and of others that something was said of. told: by path, labels that a table gives to
    images of which no folder says any; read: paths of the tables that these are from. samples: by path, what several
    images with one file of their label are of. pictures: by group, where names of versions gave them.
    """

    name: str
    entries: list[Entry] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    labelled: bool = False
    layout: str = ""
    unlabelled_because: str = ""
    split_names: dict[str, list[str]] = field(default_factory=dict)
    useless: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    empty_because: str = ""
    beside: dict[str, Entry] = field(default_factory=dict)
    heard: set[str] = field(default_factory=set)
    told: dict[str, Told] = field(default_factory=dict)
    samples: dict[str, str] = field(default_factory=dict)
    pictures: dict[str, Picture] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)

    def note(self, message: str, severity: Severity = Severity.WARNING) -> None:
        """Add a problem about the path as a whole."""
        self.problems.append(Problem(severity, self.name, message))

    def announce(self, message: str, severity: Severity = Severity.INFO) -> None:
        """Say what something was taken for."""
        self.problems.append(Problem(severity, self.name, message, leading=True))

    def announce_warning(self, message: str) -> None:
        """Say what something was taken for and may not be."""
        self.announce(message, Severity.WARNING)

    def no_images(self) -> UserError:
        """The error for nothing to look at."""
        because = self.empty_because or "give a folder with one subfolder of images per class"
        return UserError(f"{self.name}: no images found; {because}")


@dataclass(frozen=True)
class Place:
    """Where a path points: a filesystem (None: the local disk), the path in it, and how to show it.

    path keeps file names that are no UTF-8 (surrogate escapes); shown does not.
    """

    filesystem: Any
    path: str
    shown: str

    @property
    def suffix(self) -> str:
        """Lower-case, with the dot."""
        return PurePosixPath(self.path.split("?")[0] if self.filesystem is WEB else self.path).suffix.lower()


@dataclass(frozen=True)
class TableOptions:
    """What a user says of the tables.

    images: the folder that paths count from, where that is not the table's own. label, image_column: names of columns.
    group_by: what ``--group-by`` says, which may be one.
    must: whether a table without these columns is an error; the tables of other roles may have others. lone: whether
    the options were said of this data, and not of another role's. labels: whether any are wanted.
    """

    images: Place | None = None
    label: str | None = None
    image_column: str | None = None
    must: bool = True
    lone: bool = True
    labels: bool = True
    group_by: str | None = None


NO_OPTIONS = TableOptions()


def locate(path: str | os.PathLike[str], filesystem: Any = None) -> Place:
    """Find the filesystem of a path or URI and check that something is there. Raises UserError otherwise."""
    text = os.path.expanduser(os.fspath(path))  # noqa: PTH111  # surrogate-escaped names, URIs
    shown = printable(text) if text.strip() else repr(text)
    if filesystem is None and is_web(text):
        return Place(WEB, text, shown)
    by_uri = filesystem is None and "://" in text
    if by_uri:
        filesystem, text = open_uri(text)
    if is_local(filesystem):
        if not os.path.lexists(text):
            raise UserError(f"{shown}: no such file or folder; check the path")
        # Lanes read the files too, and work in a folder of their own.
        if is_archive(text):
            return Place(Archive(_whole(text), shown), "/", shown)
        return Place(None, _whole(text), shown)
    if not exists(impatient(filesystem), text, shown):
        raise UserError(f"{shown}: no such file or folder there; check the address and your access to it")
    return Place(enduring(filesystem) if by_uri else filesystem, text, shown)


def _whole(path: str) -> str:
    """A local path from the root on, without dots in it unless they lead back out of a link."""
    plain, joined = os.path.abspath(path), os.path.join(os.getcwd(), path)  # noqa: PTH100, PTH109, PTH118  # surrogate-escaped names
    try:
        return plain if os.path.samefile(plain, joined) else joined  # noqa: PTH121
    except OSError:
        return joined


def exists(filesystem: Any, path: str, shown: str) -> bool:
    """Whether a filesystem that is not the local disk has something at ``path``. shown: in its place in messages."""
    from pyarrow import fs

    try:
        return bool(filesystem.get_file_info(path).type != fs.FileType.NotFound)
    except Exception as error:  # noqa: BLE001  # what fsspec's file systems raise is their own
        what = f"{shown}: cannot be reached ({cause(error)})"
        raise UserError(f"{what}; check the address and your access to it") from None


def is_folder(place: Place) -> bool:
    """Whether the place is a folder."""
    if isinstance(place.filesystem, Archive):
        return True
    if place.filesystem is WEB:
        return False
    if place.filesystem is None:
        return os.path.isdir(place.path)  # noqa: PTH112  # surrogate-escaped names
    from pyarrow import fs

    return bool(place.filesystem.get_file_info(place.path).type == fs.FileType.Directory)


def first_line(error: BaseException) -> str:
    """The first line of an error's text, short enough for a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def open_uri(uri: str) -> tuple[Any, str]:
    """The filesystem of a URI and the path in it. Raises UserError where neither pyarrow nor fsspec knows one."""
    from pyarrow import fs

    try:
        with _no_missing_command(uri):
            found, inner = fs.FileSystem.from_uri(_for_pyarrow(uri))
    except Exception as error:  # noqa: BLE001  # what fsspec's file systems raise is their own
        raise UserError(
            f"{printable(uri)}: cannot be opened ({cause(error)}); give a local path or a URI such as s3://bucket/folder"
        ) from None
    return _with_keys(found), str(inner)


@contextmanager
def _no_missing_command(uri: str) -> Iterator[None]:
    """Keep Azure's client from running the ``az`` command for a token where there is none: a shell would say so.

    Which credentials it looks for it reads of the environment as it is made. ``prod`` are all but that command's.
    """
    if uri.partition("://")[0] not in _AZURE or shutil.which("az") is not None:
        yield
        return
    with _MAKING:
        own = _CREDENTIALS not in os.environ
        os.environ.setdefault(_CREDENTIALS, "prod")
        try:
            yield
        finally:
            if own:
                del os.environ[_CREDENTIALS]


def _with_keys(filesystem: Any) -> Any:
    """Azure's with the key or token that the environment names, as the ``az`` command reads it; pyarrow does not."""
    from pyarrow import fs

    names = {"account_key": "AZURE_STORAGE_KEY", "sas_token": "AZURE_STORAGE_SAS_TOKEN"}
    given = {name: os.environ[variable] for name, variable in names.items() if os.environ.get(variable)}
    if not given or not isinstance(filesystem, getattr(fs, "AzureFileSystem", ())):
        return filesystem
    settings = cast("dict[str, Any]", filesystem.__reduce__()[1][0])
    return fs.AzureFileSystem(**{name: value for name, value in settings.items() if value} | given)


def _for_pyarrow(uri: str) -> str:
    """What pyarrow has no file system of its own for, it takes from fsspec."""
    from fsspec.registry import known_implementations

    scheme = uri.partition("://")[0]
    own = scheme in _PYARROW or scheme not in known_implementations
    return uri if own else f"fsspec+{uri}"


_AZURE = ("abfs", "abfss")
_PYARROW = ("file", "s3", "gs", "gcs", *_AZURE, "hdfs", "viewfs", "mock")
_CREDENTIALS = "AZURE_TOKEN_CREDENTIALS"
_MAKING = Lock()
"""While the environment says something for the while in which a client is made."""


def is_local(filesystem: Any) -> bool:
    """Whether a filesystem is the local disk, where Python's own functions take more names than pyarrow's."""
    if filesystem is None:
        return True
    from pyarrow import fs

    return isinstance(filesystem, fs.LocalFileSystem)
