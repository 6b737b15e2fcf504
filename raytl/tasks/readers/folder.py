"""Folders: of images in class folders, in splits or in a heap with a table beside them; of Parquet shards."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePosixPath

from raytl.core.errors import UserError
from raytl.tasks.items import FileItem
from raytl.tasks.problems import Severity
from raytl.tasks.readers.beside import inside, list_with_tables
from raytl.tasks.readers.layouts import Found, Layout, recognise
from raytl.tasks.readers.listing import Entry, Listing, Place, printable
from raytl.tasks.readers.shards import list_tables
from raytl.tasks.readers.split_names import split_of
from raytl.tasks.readers.table import ARROW, PARQUET, TABLES, list_table
from raytl.tasks.readers.tree import Tree, Walk, is_image, name_of, walk

_NAMED = 4
_MOST_WORDS = 1000
_NUMBERED = re.compile(r"(\w*[^\W\d_])[\W_]*\d+[^/]*$")  # cat.17.jpg


def list_folder(place: Place, *, images: Place | None = None, split: str | None = None, labels: bool = True) -> Listing:
    """Entries for all files below a folder, with the labels and splits that its layout gives them.

    images: the folder that paths in its tables count from. split: "none" takes names of splits for names of classes.
    labels: whether any are wanted; if not, every image counts, wherever it lies.
    Raises UserError where the folder may be meant in several ways. Hidden files are passed over; symbolic links are
    followed, cycles not.
    """
    name = place.shown.rstrip("/") + "/"
    found = walk(place)
    listing = Listing(name)
    _say_passed_over(found, listing)
    tables = [path for path in found.tree.below() if PurePosixPath(path).suffix.lower() in TABLES]
    if not found.tree.images() and tables:
        shards = list_tables(place, tables, images, split)
        shards.problems[:0] = listing.problems
        return shards
    columnar = [path for path in tables if PurePosixPath(path).suffix.lower() in PARQUET | ARROW]
    if not labels:
        layout = Layout("images", [Found(path) for path in found.tree.below()])
        if columnar:
            listing.announce(
                f"its {len(columnar)} Parquet or Arrow files are not read, its images are", Severity.WARNING
            )
    else:
        taken = list_with_tables(place, found.tree, listing, images, split)
        if taken is not None:
            return taken
        layout = recognise(found.tree, name, split=split)
        further = _tables_further_down(place, found.tree, layout, images, split)
        if further is not None:
            further.problems[:0] = listing.problems
            return further
        if columnar and len(layout.classes) < 2:
            shards = list_tables(place, columnar, images, split)
            shards.problems[:0] = listing.problems
            what = "1 image" if found.tree.images() == 1 else f"{found.tree.images()} images"
            shards.announce(f"its tables are read, and {what} beside them left out", Severity.WARNING)
            return shards
    _fill(listing, layout, place)
    if labels and not listing.labelled:
        listing.unlabelled_because = _why_unlabelled(place, found.tree, images)
    return listing


def describe_suffixes(paths: Iterable[str]) -> str:
    """``.txt (3), .db``: which kinds of files, the most frequent first."""
    counts = Counter(PurePosixPath(path).suffix.lower() or "no suffix" for path in paths)
    return ", ".join(suffix if count == 1 else f"{suffix} ({count})" for suffix, count in counts.most_common(4))


def _say_passed_over(found: Walk, listing: Listing) -> None:
    count = sum(found.passed_over.values())
    if not count:
        return
    places = list(found.passed_over)
    named = ", ".join(places[:_NAMED]) + (", …" if len(places) > _NAMED else "")
    files = "1 image lies" if count == 1 else f"{count} images lie"
    listing.note(f"{files} in hidden places or ones that systems leave behind ({named}); passed over", Severity.INFO)


def _fill(listing: Listing, layout: Layout, place: Place) -> None:
    start = len(place.path.rstrip("/")) + 1
    listing.layout = layout.kind
    for found in layout.files:
        item = FileItem(listing.name + printable(found.path[start:]), found.path, place.filesystem)
        listing.entries.append(Entry(item, found.label, certain=is_image(found.path), split=found.split))
    listing.labelled = any(entry.label is not None for entry in listing.entries)
    listing.split_names = layout.splits
    for label in layout.empty:
        listing.note(f"folder '{label}' is empty; left out")
    for message in layout.said:
        listing.announce(message)


def _tables_further_down(
    place: Place, tree: Tree, layout: Layout, images: Place | None, split: str | None
) -> Listing | None:
    """Images with a table beside them in the only folder, or in the split folders; None where that is not so."""

    def has_table(folder: Tree) -> bool:
        return any(PurePosixPath(path).suffix.lower() in TABLES for path in folder.files)

    if layout.kind == "splits without classes":
        parts = {name: split_of(name) for name, folder in tree.folders.items() if has_table(folder)}
    elif len(layout.classes) == 1 and len(tree.folders) == 1:
        parts = {name: None for name, folder in tree.folders.items() if has_table(folder)}
    else:
        return None
    result = Listing(place.shown.rstrip("/") + "/", layout="images with a table beside them", labelled=True)
    for name, found in parts.items():
        part = list_folder(inside(place, tree.folders[name].path), images=images, split=split)
        if not part.labelled:
            continue
        result.problems += part.problems
        result.entries += [replace(entry, split=found[0] if found else entry.split) for entry in part.entries]
        if found:
            result.split_names.setdefault(found[0], []).append(name)
        else:
            result.split_names |= part.split_names
    if not result.entries:
        return None
    named = {entry.item.path for entry in result.entries if isinstance(entry.item, FileItem)}
    for found_file in layout.files:
        if found_file.path not in named and is_image(found_file.path):
            item = FileItem(inside(place, found_file.path).shown, found_file.path, place.filesystem)
            if not any(found_file.path.startswith(tree.folders[name].path + "/") for name in parts):
                result.entries.append(Entry(item, None, split=found_file.split))
    return result


def _why_unlabelled(place: Place, tree: Tree, images: Place | None) -> str:
    """What keeps the one table in a folder from giving labels, or where else labels seem to be."""
    tables = [path for path in tree.files if PurePosixPath(path).suffix.lower() in TABLES]
    if not tables:
        begin = Counter(
            spoken[1] for path in tree.files if is_image(path) and (spoken := _NUMBERED.match(name_of(path)))
        )
        words = sorted(word for word, count in begin.items() if count > 1)
        if 1 < len(words) <= _MOST_WORDS and 2 * sum(begin[word] for word in words) > tree.images():
            listed = ", ".join(f"'{word}'" for word in words[:_NAMED])
            return f"the files' names begin with {listed}; if these are the labels move each into a folder of its own"
    if len(tables) != 1:
        return ""
    try:
        found = list_table(inside(place, tables[0]), images)
    except UserError as error:
        return f"its table cannot be used ({error})"
    return f"its table {name_of(tables[0])}: {found.unlabelled_because}" if found.unlabelled_because else ""
