"""Folders: of images in class folders, in splits or in a heap with a table beside them; of Parquet shards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath

from raytl.core.errors import UserError
from raytl.core.names import few, printable, so_many
from raytl.tasks.formats import is_image
from raytl.tasks.items import FileItem
from raytl.tasks.problems import Severity
from raytl.tasks.readers.archive import Archive
from raytl.tasks.readers.beside import inside, is_about_one, list_with_tables
from raytl.tasks.readers.blanks import labels_of_blanks
from raytl.tasks.readers.file_names import BY_NAMES, FILENAME, asked_for, crossed, read_by, say_crossed
from raytl.tasks.readers.hints import say_unpacked, say_what_else, why_no_images, why_unlabelled
from raytl.tasks.readers.layouts import Found, Layout, may_be_table, recognise
from raytl.tasks.readers.listing import NO_OPTIONS, Entry, Listing, Place, TableOptions
from raytl.tasks.readers.masks import leave_masks_out
from raytl.tasks.readers.samples import BY_FILES, Beside, as_one, holds_images, labels_beside, say_shards
from raytl.tasks.readers.shards import list_tables
from raytl.tasks.readers.split_names import NONE, TRAIN, SplitsOrClassesError, split_of
from raytl.tasks.readers.table import ARROW, PARQUET, TABLES
from raytl.tasks.readers.tree import Tree, Walk, walk
from raytl.tasks.readers.web import Web

_NAMED = 4


def list_folder(
    place: Place, *, options: TableOptions = NO_OPTIONS, split: str | None = None, labels: bool = True
) -> Listing:
    """Entries for all files below a folder, with the labels and splits that its layout gives them.

    options: for its tables. split: "none" takes names of splits, and of masks, for names of classes.
    labels: whether any are wanted; if not, every image counts, wherever it lies, but no mask.
    Raises UserError where the folder may be meant in several ways. Hidden files are passed over; symbolic links are
    followed, cycles not.
    """
    found = walk(place)
    shards = as_one(place, found.tree)
    if shards is None:
        return _list_walked(place, found, options, split, labels=labels)
    if any(map(may_be_table, found.tree.below())):  # which may be of images that are in no tar file
        try:
            listing = _list_walked(place, found, options, split, labels=labels)
        except SplitsOrClassesError:
            raise
        except UserError:
            listing = None
        if listing is not None and (listing.labelled or not labels) and not _is_of_the_web(listing):
            return listing
    if not holds_images(shards):
        return _list_walked(place, found, options, split, labels=labels)
    return _list_walked(shards, walk(shards), options, split, labels=labels)


def _is_of_the_web(listing: Listing) -> bool:
    """Whether all its images are addresses, as in tables of what was fetched into tar files; also if there are none."""
    return all(isinstance(entry.item, FileItem) and isinstance(entry.item.filesystem, Web) for entry in listing.entries)


def _list_walked(place: Place, found: Walk, options: TableOptions, split: str | None, *, labels: bool) -> Listing:
    """As :func:`list_folder`, of a folder that was looked through, or of the inside of its tar files."""
    said = Listing(place.shown.rstrip("/") + "/")
    if isinstance(place.filesystem, Archive) and place.filesystem.shards:
        say_shards(place, said)
    say_unpacked(place, said)
    tree = found.tree
    _say_passed_over(found, said, labels=labels)
    if split != NONE:
        leave_masks_out(tree, said)
    around, within, at = Tree(tree.path), tree, place
    while labels and (only := _wrapped(within)) is not None:
        around.files += within.files
        around.folders |= {name: folder for name, folder in within.folders.items() if folder is not only}
        at, within = inside(place, only.path), only
    if within is not tree:
        listing = Listing(at.shown.rstrip("/") + "/", problems=list(said.problems))
        listing.announce(f"its images lie in {listing.name}; they are taken from there")
        listing = _listed(at, within, listing, options, split, labels=labels)
        if listing.labelled:
            say_what_else(around, listing)
            return listing
    return _listed(place, tree, said, options, split, labels=labels)  # where the tables say no labels the folder may


def _listed(
    place: Place, tree: Tree, listing: Listing, options: TableOptions, split: str | None, *, labels: bool
) -> Listing:
    """The entries for the files of a tree. listing: what was noticed so far."""
    name = listing.name
    if "_delta_log" in tree.folders:
        what = f"{name}: a Delta table, whose files are of several versions"
        raise UserError(f"{what}; write the one that is meant to Parquet, in a folder of its own")
    tables = [path for path in tree.below() if PurePosixPath(path).suffix.lower() in TABLES]
    if not tree.images() and tables:
        shards = list_tables(place, tables, options, split)
        shards.problems[:0] = listing.problems
        return shards
    columnar = [path for path in tables if PurePosixPath(path).suffix.lower() in PARQUET | ARROW]
    if not labels:
        layout = Layout("images", [Found(path) for path in tree.below()])
        if columnar:
            listing.announce(
                f"its {len(columnar)} Parquet or Arrow files are not read, its images are", Severity.WARNING
            )
    elif (named := _by_names(tree, listing, options, split)) is not None:
        layout = named
    else:
        if asked_for(options.label):  # of which its names say nothing: its folders may, or its tables
            options = replace(options, label=None)
        taken = list_with_tables(place, tree, listing, options, split)
        if taken is not None:
            return taken
        layout = recognise(tree, name, split=split)
        further = _tables_further_down(place, tree, layout, options, split, listing.useless)
        if further is not None:
            further.problems[:0] = listing.problems
            return further
        if split != NONE:
            _hear_tables_in_blank_splits(place, tree, layout, options, listing)
        if len(layout.classes) < 2 and (beside := labels_beside(place, tree)) is not None:
            listing.announce(f"labels are taken from {beside.where}")
            listing.read |= {*beside.read, *beside.parts}
            _hear_samples(beside, listing)
            files = [Found(found.path, beside.labels.get(found.path), found.split) for found in layout.files]
            layout = Layout(BY_FILES, files, splits=layout.splits)
        if columnar and len(layout.classes) < 2:
            shards = list_tables(place, columnar, options, split)
            shards.problems[:0] = listing.problems
            what = so_many(tree.images(), "image", "images")
            shards.announce(f"its tables are read, and {what} beside them left out", Severity.WARNING)
            return shards
    _fill(listing, layout, place, asked=options.lone and split is None, grouped=options.group_by is not None)
    if not tree.images():
        listing.empty_because = listing.empty_because or why_no_images(tree, name)
    elif labels:
        if len(layout.classes) < 2 and layout.kind not in {BY_NAMES, BY_FILES}:
            listing.unlabelled_because = why_unlabelled(tree, listing.useless | listing.unknown)
        say_what_else(tree, listing)
    return listing


def _hear_samples(beside: Beside, listing: Listing) -> None:
    """Note which images are of one sample, and say which of its parts are none."""
    listing.samples |= beside.groups
    if beside.parts:
        some = so_many(len(beside.parts), "image is named", "images are named")
        first = printable(beside.parts[0].rpartition("/")[2])
        listing.announce_warning(f"{some} like a mask or the like of the same sample (first: {first}); left out")


def _wrapped(tree: Tree) -> Tree | None:
    """The one folder that holds all images and tables of them, as in most archives; None where that is not so.

    A file about each image, beside it, is no table of them.
    """
    full = [folder for folder in tree.folders.values() if folder.images()]
    if len(full) != 1 or any(map(_is_data, tree.files)):
        return None
    (only,) = full
    beside = [path for folder in tree.folders.values() if folder is not only for path in folder.below()]
    stems = {PurePosixPath(path).stem for path in only.below() if is_image(path)}
    tables = (path for path in only.below() if may_be_table(path) and not is_about_one(path, stems))
    return None if any(map(_is_data, beside)) or next(tables, None) is None else only


def _is_data(path: str) -> bool:
    return is_image(path) or may_be_table(path)


def _by_names(tree: Tree, listing: Listing, options: TableOptions, split: str | None) -> Layout | None:
    """The layout with labels out of the files' names; None where that is not asked for, or these say nothing.

    It was asked of the target: the class folders of another role are believed before the names in them.
    """
    if options.label is None or not asked_for(options.label):
        return None
    layout = recognise(tree, listing.name, split=split)
    if not options.lone and len(layout.classes) > 1:
        return None
    images = [path for path in tree.below() if is_image(path)]
    spoken = read_by(options.label, images)
    if spoken is None:
        return None
    known = few(spoken.words, _NAMED, quoted=True)
    listing.announce(f"labels are taken from the files' names, which {spoken.where} {known}")
    parts = crossed(images) if options.label == FILENAME else []
    if parts:
        what = "its classes are of parts that come again with each other, which may not be meant"
        listing.announce_warning(f"{what}: {say_crossed(parts)}")
    files = [Found(found.path, spoken.label(found.path), found.split) for found in layout.files]
    return Layout(BY_NAMES, files, splits=layout.splits)


def _last(link: str) -> str:
    """The name of a link, of ``path to target``."""
    return link.partition(" to ")[0].rpartition("/")[2]


def _say_passed_over(found: Walk, listing: Listing, *, labels: bool) -> None:
    if found.odd:
        some = so_many(len(found.odd), "thing is", "things are")
        listing.note(f"{some} no file: a pipe, socket, device or circle of links (first: {found.odd[0]}); left out")
    root = printable(found.tree.path).rstrip("/")
    beside = [link for link in found.lost if link.partition(" to ")[0].rpartition("/")[0] == root]
    gone = [link for link in beside if labels and found.tree.folders and "." not in _last(link)]
    for link in gone[:_NAMED]:
        # Among folders of classes it is one: whoever starts a search would miss the class without a word at its end.
        what = f"class '{_last(link)}' would vanish: {link} is a link to what is not there"
        listing.note(f"{what}; bring that back, or remove the link", Severity.ERROR)
    if found.lost and not gone:
        some = so_many(len(found.lost), "link leads", "links lead")
        what = f"{some} to what is not there (first: {found.lost[0]})"
        listing.announce_warning(f"{what}; whatever class or images it stands for are missing")
    if found.again:
        some = so_many(len(found.again), "image is", "images are")
        listing.note(f"{some} in the archive again under the same name (first: {found.again[0]}); the last is taken")
    count = sum(found.passed_over.values())
    if not count:
        return
    files = so_many(count, "image lies", "images lie")
    where = f"{files} in hidden places or ones that systems leave behind ({few(found.passed_over, _NAMED)})"
    listing.note(f"{where}; passed over", Severity.INFO)
    if not found.tree.images():
        listing.empty_because = f"{where}: rename what holds the data"


def _fill(listing: Listing, layout: Layout, place: Place, *, asked: bool, grouped: bool) -> None:
    start = len(place.path.rstrip("/")) + 1
    listing.layout = layout.kind
    for found in layout.files:
        if found.path in listing.read:
            continue
        item = FileItem(listing.name + printable(found.path[start:]), found.path, place.filesystem)
        told = listing.told.get(found.path)
        label = found.label if told is None else told.label
        listing.entries.append(Entry(item, label, certain=is_image(found.path), split=found.split))
    listing.labelled = any(entry.label is not None for entry in listing.entries)
    listing.split_names = layout.splits
    if listing.beside:
        _hear(listing, asked=asked, grouped=grouped)
    for label in layout.empty:
        listing.note(f"folder '{label}' is empty; left out")
    for message in layout.said:
        listing.announce(message)


def _hear(listing: Listing, *, asked: bool, grouped: bool) -> None:
    """Give entries the groups and splits that a table beside the class folders says of them.

    Images that it does not name are for training. asked: whether the listing is of the target, of which no split was
    named: there it is not heard in what would leave nothing to validate on, or to train on. grouped: whether the user
    said that these are the groups.
    """
    told = [
        listing.beside.get(entry.item.path) if isinstance(entry.item, FileItem) else None for entry in listing.entries
    ]
    groups: dict[str, set[object]] = {}
    for number, (entry, more) in enumerate(zip(listing.entries, told, strict=True)):
        if entry.label is not None and entry.certain:
            own = number if more is None or more.group is None else more.group
            groups.setdefault(entry.label, set()).add(own)
    if grouped or not asked or sum(len(of_class) > 1 for of_class in groups.values()) > 1:
        listing.entries = [
            entry if more is None else replace(entry, group=more.group)
            for entry, more in zip(listing.entries, told, strict=True)
        ]
    elif any(more is not None and more.group is not None for more in told):
        what = "images are not kept together as its table says: classes would have one group alone"
        listing.announce_warning(f"{what}; validation may flatter")
    said = {more.split for more in told if more is not None} - {None}
    if listing.split_names or not said:
        return
    if asked and TRAIN not in said:
        listing.announce_warning("the splits that its table says are not heard: no image would be for training")
        return
    listing.entries = [
        entry if entry.label is None else replace(entry, split=TRAIN if more is None else more.split)
        for entry, more in zip(listing.entries, told, strict=True)
    ]
    listing.split_names = {e.split: [e.split] for e in listing.entries if e.split is not None}


def _hear_tables_in_blank_splits(
    place: Place, tree: Tree, layout: Layout, options: TableOptions, listing: Listing
) -> None:
    """Have the listing know what tables in folders of splits say of the images there, where others have class folders.

    Also of images that another table labels, for the two may differ: errors as of :func:`labels_of_blanks`.
    """
    if not layout.classes:
        return
    labelled = {found.path for found in layout.files if found.label is not None}
    images = {found.path for found in layout.files if found.split is not None and is_image(found.path)}
    blank = images - labelled
    tables = {}
    for name, folder in tree.folders.items():
        files = set(folder.below())
        if not files & blank or files & labelled or not any(map(may_be_table, files)):
            continue
        try:
            part = list_folder(inside(place, folder.path), options=options)
        except UserError as error:
            listing.announce_warning(f"its table in {printable(name)}/ is not used: {error}")
            continue
        for table, why in part.useless.items():
            listing.announce_warning(f"its table {printable(name)}/{table} is not used: {why}")
        if part.labelled:
            tables[f"{printable(name)}/"] = part
            listing.read |= {path for path in files if may_be_table(path)}
    labels_of_blanks(layout, tables, listing)


def _tables_further_down(
    place: Place, tree: Tree, layout: Layout, options: TableOptions, split: str | None, useless: dict[str, str]
) -> Listing | None:
    """Images with a table beside them in the split folders; None where that is not so.

    useless: gets why tables there are of no use, by name.
    """
    if layout.kind != "splits without classes":
        return None
    parts = {name: split_of(name) for name, folder in tree.folders.items() if any(map(may_be_table, folder.files))}
    result = Listing(place.shown.rstrip("/") + "/", layout="images with a table beside them", labelled=True)
    unread = ""  # why training images have no labels
    read = []  # what a table gives labels of; the images of other splits are counted as they are
    for name, found in parts.items():
        part = list_folder(inside(place, tree.folders[name].path), options=options, split=split)
        if not part.labelled or part.unlabelled_because:
            useless |= {f"{name}/{table}": why for table, why in part.useless.items()}
            if found and found[0] == TRAIN and split is None and options.lone:
                why = next(iter(part.useless.items()), ("", part.unlabelled_because or "there are no labels"))
                unread = f"{name}/{why[0]}: {why[1]}"
            continue
        read.append(tree.folders[name].path + "/")
        result.problems += part.problems
        result.entries += [replace(entry, split=found[0] if found else entry.split) for entry in part.entries]
        if found:
            result.split_names.setdefault(found[0], []).append(name)
    if not result.entries:
        return None
    if unread:  # or the test would be learned from
        raise UserError(f"{result.name}{unread}")
    named = {entry.item.path for entry in result.entries if isinstance(entry.item, FileItem)}
    for found_file in layout.files:
        if found_file.path not in named and is_image(found_file.path):
            item = FileItem(inside(place, found_file.path).shown, found_file.path, place.filesystem)
            if not found_file.path.startswith(tuple(read)):
                result.entries.append(Entry(item, None, split=found_file.split))
    return result
