"""From what a table says of its image files to the files: paths of this machine or another, names, ids, addresses."""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

from raytl.core.errors import UserError, cause
from raytl.core.names import printable, so_many
from raytl.tasks.formats import is_image
from raytl.tasks.items import FETCH, FileItem
from raytl.tasks.readers.archive import Archive
from raytl.tasks.readers.listing import Listing, Place, is_local, open_uri
from raytl.tasks.readers.masks import leave_masks_out
from raytl.tasks.readers.patience import enduring, impatient
from raytl.tasks.readers.split_names import split_of
from raytl.tasks.readers.tree import walk
from raytl.tasks.readers.web import WEB, Web, is_web

_ASKED, _SHOWN = 3, 160
_UPLOADED = re.compile(r"^[0-9a-f]{8}-(.+)$")  # as Label Studio renames what is uploaded
_SERVED = re.compile(r"^/?data/(?:local-files/\?d=|upload/(?:\d+/)?)(.+)$")  # what Label Studio calls its files
_DRIVE = re.compile(r"^[A-Za-z]:[\\/]")


@dataclass(frozen=True)
class _Moved:
    """A path that leads nowhere: parts of it to drop, and parts that lead to the file instead."""

    dropped: tuple[str, ...]
    added: tuple[str, ...]


class Resolver:
    """Finds the image files of a table.

    folder: what paths count from: the folder that the table lies in, or the one that ``--images`` names.
    split: what the table's name says of its images: of several files of one name that in the split's folder is meant.
    elsewhere: whether the folder is another than the table's; what has an address in the table may have been brought to
    it.
    """

    def __init__(self, folder: Place, split: str | None = None, *, elsewhere: bool = False) -> None:
        self.folder = folder
        self.split = split
        self.elsewhere = elsewhere

    def items(self, values: Sequence[str | None], column: str, listing: Listing) -> list[FileItem | None]:
        """A file for every value, None for no value; how they were found is said in the listing.

        A file that is not there keeps the path that the table gives, so that reading it says so.
        Raises UserError where none of several is there, a name stands for several files, or a storage does not answer.
        """
        cleaned = [None if value is None else clean(value) for value in values]
        far = {row: value for row, value in enumerate(cleaned) if value is not None and "://" in value}
        brought = self._moved(far, found_some=False) if self.elsewhere and far else {}
        for row, path in brought.items():
            cleaned[row] = path
        self._say_found(brought, values, column, listing)
        _check_reach([value for row, value in far.items() if row not in brought])
        items = [None if value is None else self._given(value) for value in cleaned]
        wanted = [row for row, value in enumerate(cleaned) if value is not None and "://" not in value]
        if self._far_away_and_there([items[row] for row in wanted[:_ASKED]]):
            return items
        missing = [row for row in wanted if not self._exists(str(cleaned[row]), items[row])]
        if not missing:
            return items
        found = self._moved({row: str(cleaned[row]) for row in missing}, found_some=len(missing) < len(wanted))
        for row, path in found.items():
            items[row] = self._item(path)
        left = [row for row in missing if row not in found]
        if len(left) == len(wanted) and len(left) > 1:
            raise UserError(
                f"{listing.name}: none of the {len(left)} files in column '{column}' is there (first: "
                f"{_short(str(values[left[0]]))}); paths count from {self.folder.shown}/; "
                "pass --images DIR for another folder"
            )
        self._say_found(found, values, column, listing)
        return items

    def _say_found(self, found: dict[int, str], values: Sequence[str | None], column: str, listing: Listing) -> None:
        """Say that files were found, by row, where the table does not say that they are."""
        if not found:
            return
        row, path = next(iter(found.items()))
        was, now = printable(str(values[row])), printable(path)
        files = so_many(len(found), "file is", "files are")
        listing.announce(f"{files} found by looking below {self.folder.shown}/: '{was}' in column '{column}' is {now}")

    def is_file(self, value: str, *, by_number: bool = False) -> bool:
        """Whether a value is the name of an image file in the folder, with or without its ending.

        by_number: also without the zeros that it begins with.
        """
        name = _parts(clean(value))[-1:]
        return bool(name) and bool(self._candidates(name[0], by_number=by_number))

    def _given(self, path: str) -> FileItem:
        if is_web(path):
            return FileItem(printable(path), path, WEB)
        if "://" in path:
            return FileItem(printable(path), *_open_uri(path))
        if self.folder.filesystem is WEB:
            address = f"{self.folder.path}/{path}"
            return FileItem(printable(address), address, WEB)
        return self._item(path)

    def _item(self, path: str) -> FileItem:
        path = _plain(path)
        shown = path if path.startswith("/") else posixpath.join(self.folder.shown, path)
        return FileItem(printable(shown), posixpath.join(self.folder.path, path), self.folder.filesystem)

    def _exists(self, path: str, item: FileItem | None) -> bool:
        if item is None or item.filesystem is WEB:
            return True
        if item.filesystem is None:
            return os.path.lexists(item.path)
        return _plain(path) in self._relative

    def _far_away_and_there(self, items: Sequence[FileItem | None]) -> bool:
        """Whether the first files are at a place where asking for each, or listing all, may take long."""
        from pyarrow import fs

        if self.folder.filesystem is None or isinstance(self.folder.filesystem, Web | Archive) or not items:
            return False
        infos = self.folder.filesystem.get_file_info([item.path for item in items if item is not None])
        return all(info.type != fs.FileType.NotFound for info in infos)

    @cached_property
    def _below(self) -> tuple[set[str], list[str]]:
        """Paths of all files below the folder, counted from it; and in order but for masks, which are named alike."""
        start, tree = len(self.folder.path.rstrip("/")) + 1, walk(self.folder).tree
        every = {path[start:] for path in tree.below()}
        leave_masks_out(tree)
        return every, sorted(path[start:] for path in tree.below())

    @property
    def _relative(self) -> set[str]:
        return self._below[0]

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        named = defaultdict(list)
        for path in self._below[1]:
            named[path.rpartition("/")[2]].append(path)
        return dict(named)

    @cached_property
    def _by_lower_stem(self) -> dict[str, list[str]]:
        named: dict[str, list[str]] = defaultdict(list)
        for stem, paths in self._by_stem.items():
            named[_composed(stem).lower()] += paths
        return dict(named)

    @cached_property
    def _by_number(self) -> dict[int, list[str]]:
        named: dict[int, list[str]] = defaultdict(list)
        for stem, paths in self._by_stem.items():
            if stem.isdecimal():
                named[int(stem)] += paths
        return dict(named)

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        named = defaultdict(list)
        for path in self._below[1]:
            if is_image(path):
                named[PurePosixPath(path).stem].append(path)
        return dict(named)

    def _candidates(self, name: str, *, by_number: bool = True) -> list[str]:
        """Files of a name, else of another ending or case."""
        stem = PurePosixPath(name).stem if is_image(name) else name
        found = (
            self._by_name.get(name) or self._by_stem.get(stem) or self._by_lower_stem.get(_composed(stem).lower(), [])
        )
        if not found and by_number and stem.isdecimal():
            found = self._by_number.get(int(stem), [])  # a spreadsheet takes the zeros from 0012
        if not found and "%" in name and unquote(name) != name:
            found = self._candidates(unquote(name))
        uploaded = _UPLOADED.match(name)
        return found or (self._candidates(uploaded[1]) if uploaded else [])

    def _moved(self, missing: dict[int, str], *, found_some: bool) -> dict[int, str]:
        """The files that paths which lead nowhere are likely to mean, by row.

        A bare name is looked up. Paths with folders are taken for those of another machine only where all have to lose
        the same folders, or the file of one class would stand for another's.
        """
        if self.folder.filesystem is WEB:
            return {}
        bare: dict[int, str] = {}
        moves: dict[_Moved, dict[int, str]] = defaultdict(dict)
        lost = self._lost(missing)
        for row, path in missing.items():
            parts = _parts(path)
            if not parts:
                continue
            # Where all begin with folders that are not here it takes no search for each: of one name there may be many.
            if lost and tuple(parts[: len(lost)]) == lost and (rest := "/".join(parts[len(lost) :])) in self._relative:
                moves[_Moved(lost, ())][row] = rest
                continue
            candidates = self._candidates(parts[-1])
            if not candidates:
                continue
            best = self._of_split(_closest(parts, candidates))
            if len(best) > 1:
                raise UserError(
                    f"{self.folder.shown}/: '{printable(path)}' may be {printable(best[0])} or {printable(best[1])}; "
                    "give paths in the table, or the folder with --images DIR"
                )
            if len(parts) == 1:
                bare[row] = best[0]
                continue
            shared = _shared(parts, best[0])
            there = best[0].split("/")
            if shared == 1 and _composed(there[-1]) != _composed(parts[-1]):
                continue  # neither its folder nor its name
            moves[_Moved(tuple(parts[:-shared]), tuple(there[:-shared]))][row] = best[0]
        bare |= moves.pop(_Moved((), ()), {})  # in the very same folder, with another ending or case
        if not moves or found_some:
            return bare
        counted = Counter({move: len(rows) for move, rows in moves.items()})
        move, count = counted.most_common(1)[0]
        total = sum(counted.values())
        return bare | moves[move] if 2 * count > total and 2 * count > len(missing) - len(bare) else bare

    def _lost(self, missing: dict[int, str]) -> tuple[str, ...]:
        """The folders that the first path that leads nowhere begins with, without which it leads to a file."""
        parts = next((parts for path in missing.values() if len(parts := _parts(path)) > 1), [])
        count = next((n for n in range(1, len(parts) - 1) if "/".join(parts[n:]) in self._relative), 0)
        return tuple(parts[:count])

    def _of_split(self, paths: list[str]) -> list[str]:
        """Of several files those in a folder of the table's split, where there are any."""
        if self.split is None or len(paths) < 2:
            return paths
        told = {path: [split_of(part) for part in path.split("/")[:-1]] for path in paths}
        return [
            path for path, found in told.items() if any(split and split[0] == self.split for split in found)
        ] or paths


def _short(text: str) -> str:
    plain = printable(text)
    return plain if len(plain) <= _SHOWN else f"{plain[:_SHOWN]}…"


def _plain(path: str) -> str:
    """Without the dots and slashes that mean nothing: ``find`` writes ./img/a.png."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return "/" * path.startswith("/") + "/".join(parts)


def _composed(text: str) -> str:
    """As most systems write names; those of a Mac have accents as characters of their own."""
    return unicodedata.normalize("NFC", text)


def clean(value: str) -> str:
    """A cell without the quotes around it, and with a home folder in place of ``~``."""
    text = value.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1].strip()
    served = _SERVED.match(text)
    if served:
        text = unquote(served[1])
    if text.startswith("~"):
        text = os.path.expanduser(text)  # noqa: PTH111  # no error where there is no home
    # A name may hold a backslash, but hardly ever does; a path that Windows wrote always does.
    return text.replace("\\", "/") if "\\" in text and "://" not in text else text


def _parts(path: str) -> list[str]:
    if _DRIVE.match(path):
        path = path[2:]
    return [part for part in path.split("/") if part not in {"", "."}]


def _shared(parts: Sequence[str], path: str) -> int:
    """How many parts at the end two paths have in common; the last counts even without its ending."""
    shared = 1
    for mine, other in zip(reversed(parts[:-1]), reversed(path.split("/")[:-1]), strict=False):
        if _composed(mine) != _composed(other):
            break
        shared += 1
    return shared


def _closest(parts: Sequence[str], candidates: Sequence[str]) -> list[str]:
    most = max(_shared(parts, path) for path in candidates)
    return [path for path in candidates if _shared(parts, path) == most]


def _check_reach(uris: Sequence[str]) -> None:
    """Raise UserError for the first storage that refuses its first file: it would do so with each, in its time."""
    first: dict[str, str] = {}
    for uri in uris:
        if not is_web(uri):
            first.setdefault("/".join(uri.split("/")[:3]), uri)
    for uri in first.values():
        filesystem, path = open_uri(uri)
        try:
            impatient(filesystem).get_file_info(path)
        except Exception as error:  # noqa: BLE001  # what fsspec's file systems raise is their own
            raise UserError(f"{_short(uri)}: cannot be reached ({cause(error)}); {FETCH}") from None


def _open_uri(uri: str) -> tuple[str, Any]:
    """Path and filesystem. The filesystem is found once per host or bucket: that can take a request each time."""
    scheme, rest = uri.split("://", 1)
    host, _, inner = rest.partition("/")
    filesystem, prefix = _bucket(f"{scheme}://{host}/")
    return prefix + inner, filesystem


@lru_cache
def _bucket(uri: str) -> tuple[Any, str]:
    filesystem, path = open_uri(uri)
    return (None if is_local(filesystem) else enduring(filesystem)), path.rstrip("/") + "/"
