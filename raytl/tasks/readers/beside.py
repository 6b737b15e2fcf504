"""Folders of images with tables beside them that say what the images are, or which split each is in."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from raytl.core.errors import UserError
from raytl.core.names import printable, so_many
from raytl.tasks.formats import is_image
from raytl.tasks.items import FileItem
from raytl.tasks.problems import Severity
from raytl.tasks.readers.annotations import ANNOTATIONS, NoLabelsError
from raytl.tasks.readers.blanks import labels_of_blanks
from raytl.tasks.readers.hints import reason, say_lists
from raytl.tasks.readers.layouts import Layout, recognise
from raytl.tasks.readers.listing import Entry, Listing, Place, TableOptions
from raytl.tasks.readers.names import are_parts
from raytl.tasks.readers.split_names import NONE, TEST, TRAIN, VALIDATION, SplitsOrClassesError, shard_split
from raytl.tasks.readers.table import TABLES, list_table
from raytl.tasks.readers.tree import Tree, name_of


@dataclass(frozen=True)
class _Beside:
    """A table that names images of the folder it lies in. labels: by the images' paths."""

    path: str
    listing: Listing
    labels: dict[str, str | None]


def inside(place: Place, path: str) -> Place:
    """A path below a folder, as messages show it."""
    start = len(place.path.rstrip("/")) + 1
    return Place(place.filesystem, path, place.shown.rstrip("/") + "/" + printable(path[start:]))


def list_with_tables(
    place: Place, tree: Tree, listing: Listing, options: TableOptions, split: str | None
) -> Listing | None:
    """What the tables in a folder say of its images; None where there are none, or the folders are to be believed.

    listing: what was noticed so far, and is from here on. Raises UserError where the tables contradict each other or
    the class folders.
    """
    every = _tables(place, tree, options, listing)
    beside = {name: table for name, table in every.items() if table.listing.labelled}
    folders = _class_folders(tree, listing.name, split)
    by_folder = {} if folders is None else {f.path: f.label for f in folders.files if f.label is not None}
    if options.label is not None and not (beside and _are_of_others(beside.values(), by_folder)):
        folders, by_folder = None, {}
    if not beside:
        if folders is not None:
            if every and split != NONE and are_parts(folders.classes):
                name = next(iter(every))
                raise SplitsOrClassesError(
                    f"{listing.name}: its folders have names of parts, not of classes, and of its table {name} "
                    f"{listing.useless.get(name, 'no row has a label')}; or pass --split none to take the folders"
                )
            told = {name for name, table in every.items() if _keep(table, listing)}
            for name in sorted(told):
                listing.announce(f"labels are taken from its folders, and groups or splits from its table {name}")
            for name, why in listing.useless.items():
                if name in told:
                    continue
                grade = Severity.INFO if why.startswith("no column with images") else Severity.WARNING
                listing.announce(f"labels are taken from its folders; its table {name} is not used: {why}", grade)
        return None
    chosen = _chosen(beside, by_folder, listing, split)
    if not chosen:
        if folders is not None and split != NONE:
            tables = {name: table.listing for name, table in sorted(beside.items())}
            listing.read |= {beside[name].path for name in labels_of_blanks(folders, tables, listing)}
        return None
    unread = [name for name in listing.useless if shard_split(name) == TRAIN]
    if unread and options.lone and split is None and {shard_split(name) for name in chosen} <= {VALIDATION, TEST}:
        # Or the test would be learned from.
        advice = f"; or give {listing.name}{chosen[0]} to learn from that"
        raise UserError(f"{listing.name}{unread[0]}: {listing.useless[unread[0]]}{advice}")
    result = Listing(listing.name, layout="images with a table beside them", labelled=True)
    result.problems += listing.problems
    what = "the split of each image is" if by_folder and len(chosen) > 1 else "labels are"
    result.announce(f"{what} taken from its table{'s' if len(chosen) > 1 else ''} {' and '.join(chosen)}")
    for name in chosen:
        part = shard_split(name) if len(chosen) > 1 else None
        result.problems += beside[name].listing.problems
        for entry in beside[name].listing.entries:
            path = entry.item.path if isinstance(entry.item, FileItem) else ""
            more = listing.beside.get(path)
            group = entry.group if more is None or entry.group is not None else more.group
            label = by_folder.get(path, entry.label)
            result.entries.append(replace(entry, label=label, group=group, split=part or entry.split))
    for entry in result.entries:
        if entry.split is not None:
            result.split_names.setdefault(entry.split, [entry.split])
    named = set().union(*(beside[name].labels for name in chosen))
    named |= {path for name in chosen for path in beside[name].listing.beside}  # rows without a label, which is said
    left = [path for path in tree.below() if is_image(path) and path not in named]
    if left:
        files = so_many(len(left), "image is", "images are")
        first = inside(place, left[0]).shown
        result.announce(f"{files} not named in the table (first: {first}); left out", Severity.WARNING)
    say_lists(tree, result, used=chosen)
    return result


def _tables(place: Place, tree: Tree, options: TableOptions, result: Listing) -> dict[str, _Beside]:
    """Tables in the folder most of whose files are there, by name; without what is to be handed in.

    Why others are of no use goes to the result.
    """
    found = {}
    there, told_here = set(tree.below()), _told_here(place)
    for path, told in _candidates(place, tree, options):
        at = inside(place, path)
        try:
            listing = list_table(at, told)
        except NoLabelsError as error:
            result.unknown[name_of(path)] = reason(error, at.shown)
            continue
        except UserError as error:
            result.useless[name_of(path)] = reason(error, at.shown)
            continue
        if listing.empty_because:
            result.useless[name_of(path)] = listing.empty_because
        listing.entries = [told_here(entry, there) for entry in listing.entries]
        blank = (told_here(entry, there) for entry in listing.beside.values())
        listing.beside = {entry.item.path: entry for entry in blank if isinstance(entry.item, FileItem)}
        labels = {entry.item.path: entry.label for entry in listing.entries if isinstance(entry.item, FileItem)}
        if labels and (told.images is not None or 2 * len(labels.keys() & there) > len(labels)):
            found[name_of(path)] = _Beside(path, listing, labels)
            if not listing.labelled and listing.unlabelled_because:
                result.useless[name_of(path)] = listing.unlabelled_because
        elif labels:
            files = (entry.item for entry in listing.entries if isinstance(entry.item, FileItem))
            first = next(item.name for item in files if item.path not in there)
            result.useless[name_of(path)] = f"most files that it names lie elsewhere (first: {first})"
    return found


def _told_here(place: Place) -> Callable[[Entry, Collection[str]], Entry]:
    """What gives the file of an entry the path that it has in the folder: a table may lead to it by another way."""
    if place.filesystem is not None:
        return lambda entry, there: entry
    root, real = place.path.rstrip("/"), os.path.realpath(place.path)

    def told(entry: Entry, there: Collection[str]) -> Entry:
        if not isinstance(entry.item, FileItem) or entry.item.path in there:
            return entry
        end = os.path.realpath(entry.item.path).removeprefix(real)
        if root + end not in there:
            return entry
        return replace(entry, item=FileItem(inside(place, root + end).shown, root + end, None))

    return told


def _candidates(place: Place, tree: Tree, options: TableOptions) -> Iterator[tuple[str, TableOptions]]:
    """Files that may be tables of the images, and how to read them: beside these, or in a folder of annotations."""
    stems = {PurePosixPath(path).stem for path in tree.below() if is_image(path)}
    folders = [folder for folder in tree.folders.values() if not folder.images()]
    for files, told in [(tree.files, options)] + [
        (folder.files, replace(options, images=options.images or place)) for folder in folders
    ]:
        for path in files:
            suffix = PurePosixPath(path).suffix.lower()
            handed_in = "submission" in name_of(path).lower()
            if suffix in TABLES | ANNOTATIONS and not is_about_one(path, stems) and not handed_in:
                yield path, told


def is_about_one(path: str, stems: Collection[str]) -> bool:
    """Whether a file is about a single image, by its name. stems: of all images."""
    found = PurePosixPath(path)
    return found.suffix.lower() in ANNOTATIONS and (found.stem in stems or is_image(found.stem))


def _class_folders(tree: Tree, shown: str, split: str | None) -> Layout | None:
    """The layout without the tables where it has several classes."""
    with suppress(UserError):  # what the folders leave open the table may answer
        layout = recognise(tree, shown, split=split)
        return layout if len(layout.classes) > 1 else None
    return None


def _chosen(
    beside: Mapping[str, _Beside], by_folder: Mapping[str, str | None], listing: Listing, split: str | None
) -> list[str]:
    """The tables to believe; none where the class folders are."""
    spoken = {name: found for name in beside if (found := shard_split(name)) is not None}
    by_splits = len(spoken) > 1 and len(set(spoken.values())) == len(spoken) and split != NONE
    by_splits = by_splits and _apart([beside[name].labels for name in spoken])
    # The one that names most images: a table of what codes mean may name a few by chance.
    order = {n: (not n.lower().startswith("metadata."), -len(table.labels), len(n), n) for n, table in beside.items()}
    names = sorted(beside, key=order.__getitem__)
    if by_folder:
        about = [name for name in names if by_folder.keys() & beside[name].labels.keys()]
        by_splits = by_splits and spoken.keys() <= set(about)
        other = next((name for name in about if not _agree(by_folder, beside[name].labels)), None)
        if other is not None and split != NONE:
            raise SplitsOrClassesError(
                f"{listing.name}: its folders and its table {other} give the images different labels; pass "
                f"{listing.name}{other} to take the table's, or --split none to take the folders'"
            )
        if not by_splits:
            if about:
                told = "and groups or splits" if _keep(beside[about[0]], listing) else "not"
                listing.announce(f"labels are taken from its folders, {told} from its table {about[0]}")
            return []
    first = names[0]
    if by_splits:
        odd = next((n for n in names if n not in spoken and not _fits(beside[n], spoken, beside)), None)
        if odd is None:
            for name in names:
                if name not in spoken:
                    _keep(beside[name], listing)
            return sorted(spoken)
        first, names = odd, [odd, *(name for name in names if name != odd)]
    if first.lower().startswith("metadata.") or all(
        _agree(beside[first].labels, beside[name].labels) for name in names[1:]
    ):
        return [first]
    other = next(name for name in names[1:] if not _agree(beside[first].labels, beside[name].labels))
    shared = beside[first].labels.keys() & beside[other].labels.keys()
    what = "give different labels" if shared else "are of different images"
    train = next((name for name in (first, other) if spoken.get(name) == TRAIN), first)
    raise UserError(f"{listing.name}: its tables {first} and {other} {what}; pass one, as in {listing.name}{train}")


def _are_of_others(tables: Iterable[_Beside], by_folder: Mapping[str, str | None]) -> bool:
    """Whether tables name none of the images that class folders label."""
    return bool(by_folder) and all(not table.labels.keys() & by_folder.keys() for table in tables)


def _apart(labels: Sequence[Mapping[str, str | None]]) -> bool:
    """Whether no table is most of another: a few files in two splits are a leak, which is found later."""
    pairs = itertools.combinations(labels, 2)
    return all(2 * len(one.keys() & other.keys()) <= min(len(one), len(other)) for one, other in pairs)


def _fits(table: _Beside, spoken: Collection[str], beside: Mapping[str, _Beside]) -> bool:
    """Whether a table of all images says the same as those of the splits."""
    shared = [beside[name].labels for name in spoken if beside[name].labels.keys() & table.labels.keys()]
    return bool(shared) and all(_agree(table.labels, labels) for labels in shared)


def _keep(table: _Beside, listing: Listing) -> bool:
    """Have the listing know what a table says of images besides their labels; whether it does."""
    said = {entry.item.path: entry for entry in table.listing.entries if isinstance(entry.item, FileItem)}
    said |= table.listing.beside
    if not any(entry.group is not None or entry.split is not None for entry in said.values()):
        said = {}
    listing.beside |= said
    if said:
        listing.heard.add(name_of(table.listing.name))
        listing.problems += [problem for problem in table.listing.problems if "no label" not in problem.message]
    return bool(said)


def _agree(one: Mapping[str, str | None], other: Mapping[str, str | None]) -> bool:
    """Whether two labellings say the same of the files that both name, whatever they call the classes."""
    pairs = {(one[path], other[path]) for path in one.keys() & other.keys()}
    return bool(pairs) and len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)
