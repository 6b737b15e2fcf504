"""Labels that tables give to images of which no folder says any: the test's, where the training has class folders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from raytl.core.errors import UserError
from raytl.core.names import few, so_many
from raytl.tasks.formats import is_image
from raytl.tasks.items import FileItem
from raytl.tasks.readers.layouts import Layout
from raytl.tasks.readers.listing import Entry, Listing, Told
from raytl.tasks.readers.split_names import TRAIN, SplitsOrClassesError, shard_split


def labels_of_blanks(layout: Layout, tables: Mapping[str, Listing], listing: Listing) -> set[str]:
    """Have the listing know labels of images in splits without class folders; without splits, beside the class folders.

    layout: with several classes. tables: what each says, by its name, or by the folder that it lies in (``test/``). A
    table that names images of class folders too may call the classes otherwise; one that does not has to call them by
    the folders' names.
    The groups of these images, what was taken from where, and why a table is of no use, go to the listing too; what it
    was told before holds.
    Returns names of the tables that labels are from. Raises UserError where two tables give an image different labels,
    or one beside class folders has other classes.
    """
    blank = {
        found.path: found.split
        for found in layout.files
        if found.label is None and is_image(found.path) and (found.split is not None or not layout.splits)
    }
    by_folder = {found.path: found.label for found in layout.files if found.label is not None}
    told = listing.told
    used: set[str] = set()
    for name, table in tables.items():
        shown = f"its table in {name}" if name.endswith("/") else f"its table {name}"
        entries = {entry.item.path: entry for entry in table.entries if isinstance(entry.item, FileItem)}
        labels = {path: entry.label for path, entry in entries.items() if entry.label is not None}
        names = {labels[path]: by_folder[path] for path in labels.keys() & by_folder.keys()}
        its = {path: names.get(label, label) for path, label in labels.items() if path in blank}
        if not its:
            if not names and layout.splits:
                listing.announce(f"{shown} is not used: it is of images outside the splits")
            continue
        listing.heard.add(name)
        if _are_others(its.values(), layout.classes):
            found, meant = (few(sorted(set(names)), quoted=True) for names in (its.values(), layout.classes))
            if not layout.splits:
                raise SplitsOrClassesError(
                    f"{listing.name}: its folders ({meant}) and {shown} ({found}) are of different images and classes; "
                    f"pass {listing.name}{name} to take the table's, or --split none to take the folders'"
                )
            what = f"{shown} is not used: its labels ({found}) are not those of the class folders ({meant})"
            listing.announce_warning(f"{what}; give them the same names")
            continue
        if not layout.splits and not _may_be_learned(name, table):
            what = f"{shown} is not used: it says labels of a split, and no folder does"
            listing.announce_warning(f"{what}; pass it with --test if it is the test's")
            continue
        other = next((told[path].by for path in its if path in told and told[path].label != its[path]), None)
        if other is not None:
            raise UserError(f"{listing.name}: {other} and {shown} give different labels; keep one of them")
        used.add(name)
        _keep_groups((entries[path] for path in its), listing)
        new = {path: Told(label, shown) for path, label in its.items() if path not in told}
        count = len(new or its)
        images = so_many(count, "image", "images")
        where = "beside the class folders"
        if layout.splits:
            folders = dict.fromkeys(folder for path in new or its for folder in layout.splits.get(str(blank[path]), []))
            where = f"of {' and '.join(folders)}"
        if new:
            listing.problems += [problem for problem in table.problems if problem not in listing.problems]
            listing.announce(f"the labels of {images} {where} are taken from {shown}")
        else:
            listing.announce(f"{shown} says the same of {images} {where}")
        told |= new
    return used


def _keep_groups(entries: Iterable[Entry], listing: Listing) -> None:
    """Have the listing know the groups of images that a table labels, but for what another table says of them."""
    for entry in entries:
        if not isinstance(entry.item, FileItem) or entry.group is None:
            continue
        known = listing.beside.get(entry.item.path, Entry(entry.item))
        if known.group is None:
            listing.beside[entry.item.path] = replace(known, group=entry.group)


def _may_be_learned(name: str, table: Listing) -> bool:
    """Whether what a table is called, and says of splits, leaves its images for the training."""
    return shard_split(name) in {None, TRAIN} and all(entry.split in {None, TRAIN} for entry in table.entries)


def _are_others(labels: Iterable[str], classes: Iterable[str]) -> bool:
    """Whether most names are of no class; a few may be classes that only the test has, of which the task tells."""
    different = set(labels)
    return 2 * len(different - set(classes)) > len(different)
