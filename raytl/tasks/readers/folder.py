"""Image folders: ``class/…`` subfolders with labels, a flat or nested folder without."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath

from raytl.tasks.decoding import SUFFIXES
from raytl.tasks.items import FileItem
from raytl.tasks.problems import Severity
from raytl.tasks.readers.listing import Entry, Listing, Place, printable

# Left behind by operating systems and archives; nobody means them as data.
_LITTER = frozenset({"__macosx", "thumbs.db", "desktop.ini", "@eadir"})


def list_folder(place: Place) -> Listing:
    """Entries for all files below a folder; the top-level folder that a file is in is its label.

    Files directly in the folder have no label. Hidden files are skipped; symbolic links are followed, cycles not.
    """
    name = place.shown.rstrip("/") + "/"
    listing = Listing(name)
    walk = _walk_local(place.path) if place.filesystem is None else _walk_remote(place)
    empty = []
    for top, paths in walk:
        label = None if top is None else unicodedata.normalize("NFC", printable(top))
        if label is not None and not paths:
            empty.append(label)
        for path in paths:
            relative = path[len(place.path.rstrip("/")) + 1 :]
            item = FileItem(name + printable(relative), path, place.filesystem)
            listing.entries.append(Entry(item, label, certain=PurePosixPath(path).suffix.lower() in SUFFIXES))
    listing.labelled = any(entry.label is not None for entry in listing.entries)
    for label in empty:
        listing.note(f"folder '{label}' is empty; left out")
    return listing


def describe_suffixes(paths: list[str]) -> str:
    """``.txt (3), .db``: which kinds of files, the most frequent first."""
    counts = Counter(PurePosixPath(path).suffix.lower() or "no suffix" for path in paths)
    return ", ".join(suffix if count == 1 else f"{suffix} ({count})" for suffix, count in counts.most_common(4))


def _visible(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in _LITTER


def _walk_local(root: str) -> Iterator[tuple[str | None, list[str]]]:
    """(top-level folder or None, files below it), in the order of their names."""
    with os.scandir(root) as scan:
        children = sorted((child for child in scan if _visible(child.name)), key=lambda child: child.name)
    yield None, [child.path for child in children if not child.is_dir()]
    for child in children:
        if child.is_dir():
            yield child.name, sorted(_files_below(child.path, frozenset({os.path.realpath(root)})))


def _files_below(folder: str, above: frozenset[str]) -> Iterator[str]:
    real = os.path.realpath(folder)
    if real in above:
        return  # a link to a folder that contains it
    with os.scandir(folder) as scan:
        for child in scan:
            if not _visible(child.name):
                continue
            if child.is_dir():
                yield from _files_below(child.path, above | {real})
            else:
                yield child.path


def _walk_remote(place: Place) -> Iterator[tuple[str | None, list[str]]]:
    from pyarrow import fs

    root = place.path.rstrip("/")
    folders: dict[str, list[str]] = {}
    direct = []
    for info in place.filesystem.get_file_info(fs.FileSelector(place.path, recursive=True)):
        parts = info.path[len(root) :].strip("/").split("/")
        if not all(map(_visible, parts)):
            continue
        if info.type == fs.FileType.Directory:
            folders.setdefault(parts[0], [])
        elif len(parts) == 1:
            direct.append(info.path)
        else:
            folders.setdefault(parts[0], []).append(info.path)
    yield None, sorted(direct)
    for top in sorted(folders):
        yield top, sorted(folders[top])


def empty_note(listing: Listing, count: int, suffixes: str) -> None:
    """Say that files which are no images were left out."""
    files = "1 file is not an image" if count == 1 else f"{count} files are not images"
    listing.note(f"{files} ({suffixes}); left out", Severity.INFO)
