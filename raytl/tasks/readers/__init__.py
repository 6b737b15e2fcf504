"""Readers: from an image folder, a Parquet or a CSV file, local or at a URI, to images that are known to decode."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, Generic, TypeVar

import numpy as np

from raytl.core.errors import UserError
from raytl.core.names import so_many
from raytl.tasks.formats import why_unread
from raytl.tasks.images import Images, LabelledImages
from raytl.tasks.items import FileItem
from raytl.tasks.problems import Problem, Severity
from raytl.tasks.readers.annotations import ANNOTATIONS
from raytl.tasks.readers.belonging import group_by_names, owner_names, say_misnamed
from raytl.tasks.readers.choosing import choose_split
from raytl.tasks.readers.file_names import BY_NAMES, advice, asked_for
from raytl.tasks.readers.folder import list_folder
from raytl.tasks.readers.group_by import group_as_told, judge_told, read_group_by
from raytl.tasks.readers.hints import not_a_data_set
from raytl.tasks.readers.listing import Entry, Listing, TableOptions, is_folder, locate
from raytl.tasks.readers.loading import load, vanished
from raytl.tasks.readers.names import judge_names
from raytl.tasks.readers.samples import BY_FILES
from raytl.tasks.readers.split_names import NONE
from raytl.tasks.readers.table import TABLES, list_table
from raytl.tasks.readers.versions import judge_versions
from raytl.tasks.survey import Facts
from raytl.tasks.task import Role

__all__ = ["ReadResult", "groups_of", "list_path", "read_labelled", "read_unlabelled"]

Pathlike = str | os.PathLike[str]
I_co = TypeVar("I_co", bound=Images, covariant=True)


@dataclass(frozen=True)
class ReadResult(Generic[I_co]):
    """Images that all decode, and what was noticed on the way.

    facts: one per image, same order. channels: 1 where every image is greyscale, else 3. has_test: whether the data's
    own splits hold labelled images for the test, which are not among these.
    group_names: what the group column says of each image, or its name, None where that says nothing; empty without any.
    told_by: of images whose label is a table's where others' are from folders, by their names: that table, in words.
    grouped: whether it was asked for by name what belongs together, and names are not to be asked.
    """

    images: I_co
    problems: list[Problem]
    facts: list[Facts]
    has_test: bool = False
    group_names: list[str | None] = field(default_factory=list)
    told_by: dict[str, str] = field(default_factory=dict)
    grouped: bool = False

    @property
    def channels(self) -> int:
        """1 where every image is greyscale (by its content), else 3."""
        return 1 if all(facts.greyscale for facts in self.facts) else 3


def read_labelled(
    path: Pathlike,
    *,
    role: str = Role.TARGET,
    asked: str = "",
    filesystem: Any = None,
    split: str | None = None,
    images: Pathlike | None = None,
    label: str | None = None,
    image_column: str | None = None,
    group_by: str | None = None,
) -> ReadResult[LabelledImages]:
    """Read labelled images; classes are sorted by name. Files that do not decode are named in problems and left out.

    path: a folder with one subfolder per class, or a Parquet, CSV or JSON-lines file; local, or any URI that
        ``pyarrow.fs`` knows, or a table at an http address.
    role: what the images are for ("target", "source_domain", "test"), to word the errors and to choose among splits:
        the target is what the data's splits have for training and validation, the test what they have for testing, and
        a source domain all of it.
    asked: the option that names the data where it is in none of a task's roles, and so there are no others.
    filesystem: a ``pyarrow.fs.FileSystem`` that ``path`` lies in, where the path alone does not tell.
    split: the one split to read; "none" where folders with names of splits are classes.
    images: the folder that a table's paths count from, where that is not the table's own. label, image_column: the
        columns of a table that hold labels and images, where their names do not say so; label "filename" takes what
        the files' names begin or end with beside a number, "filename:REGEX" what a regular expression's group finds.
    group_by: what images belong together: the name of a column, a regular expression that finds it in an image's path
        from ``path`` on, "folder" for the folder that each lies in, or "none"; by default what columns and names say.
    Raises UserError where nothing is there, there are no labels, it may be meant in several ways, no image can be read,
    or none of a class.
    """
    must = role != Role.SOURCE_DOMAIN
    listing = list_path(
        path, filesystem, split=split, images=images, label=label, image_column=image_column, group_by=group_by,
        must=must, lone=role == Role.TARGET,
    )  # fmt: skip
    option = asked or f"--{role.replace('_', '-')}"
    if not listing.entries:
        raise listing.no_images()
    if not listing.labelled:
        if listing.empty_because or _none_is_read(listing):
            load(listing)  # which says so where nothing decodes
        raise UserError(no_labels(listing, option))
    has_test = choose_split(listing, role, split, alone=bool(asked))
    note_strays(listing)
    listing.entries = [entry for entry in listing.entries if entry.label is not None]
    told = read_group_by(group_by)
    if told is not None:
        judge_told(listing, told, listing.entries, role)
    lost, (entries, items, facts) = _lost(listing), load(listing)
    entries = judge_versions(listing, entries, facts)
    found = [str(entry.label) for entry in entries]
    classes = tuple(sorted(set(found)))
    for name in sorted(set(lost) - set(classes)):
        raise UserError(f"{listing.name}: {vanished(listing, name, lost[name])}")
    for problem in listing.problems:
        if problem.severity is Severity.ERROR:
            raise UserError(str(problem))
    if len(classes) < 2 and listing.unlabelled_because and role != "test":
        raise UserError(no_labels(listing, option))
    listing.problems += judge_names(listing.name, classes)
    labels = np.array([classes.index(label) for label in found], dtype=np.int64)
    read = LabelledImages(listing.name, items, groups_of(entries), classes, labels)
    names = _group_names(entries)
    if (
        not names and told is None and role in (Role.TARGET, "test")
    ):  # too few owners to be kept apart, and the same ones nevertheless
        names = owner_names(listing.name, entries, labelled=True)
    files = [entry.item for entry in entries if isinstance(entry.item, FileItem)]
    told_by = {file.name: listing.told[file.path].by for file in files if file.path in listing.told}
    names = names if any(names) else []
    return ReadResult(read, listing.problems, facts, has_test, names, told_by, grouped=told is not None)


def read_unlabelled(
    path: Pathlike,
    *,
    filesystem: Any = None,
    images: Pathlike | None = None,
    image_column: str | None = None,
    group_by: str | None = None,
) -> ReadResult[Images]:
    """Read images without labels; labels that are there (class folders, a label column) are not looked at.

    path, filesystem, images, image_column, group_by, errors: as for :func:`read_labelled`. All splits are read.
    """
    listing = list_path(
        path, filesystem, images=images, image_column=image_column, group_by=group_by, must=False, lone=False,
        labels=False,
    )  # fmt: skip
    if not listing.entries:
        raise listing.no_images()
    told = read_group_by(group_by)
    if told is not None and not (told.is_column and _has_no_table(listing)):  # a column of the target's table
        judge_told(listing, told, listing.entries, Role.UNLABELLED)
    entries, items, facts = load(listing)
    read = Images(listing.name, items, groups_of(entries))
    names = _group_names(entries) or ([] if told is not None else owner_names(listing.name, entries))
    names = names if any(names) else []
    return ReadResult(read, listing.problems, facts, group_names=names, grouped=told is not None)


def no_labels(listing: Listing, option: str) -> str:
    """What is missing where labelled images are wanted and there are none."""
    if listing.unlabelled_because:
        return f"{listing.name}: no labels for {option}: {listing.unlabelled_because}"
    if listing.split_names:
        return (
            f"{listing.name}: no labels for {option}: its folders are splits, not classes, and hold neither class "
            "folders nor a table; put each class into a folder of its own"
        )
    return f"{listing.name}: no labels for {option}; put each class into a folder of its own, or add a 'label' column"


def note_strays(listing: Listing) -> None:
    """Note images without a label among labelled ones."""
    strays = [entry.item.name for entry in listing.entries if entry.label is None and entry.certain]
    if strays:
        one, several = "lies outside the class folders", "lie outside the class folders"
        if listing.layout == BY_NAMES:
            one, several = "has a name without a label", "have names without a label"
        if listing.layout == BY_FILES:
            one, several = "has no label in a file beside it", "have no label in a file beside them"
        files = so_many(len(strays), f"image {one}", f"images {several}")
        listing.note(f"{files} (first: {strays[0]}); left out")


def list_path(
    path: Pathlike,
    filesystem: Any = None,
    *,
    split: str | None = None,
    images: Pathlike | None = None,
    label: str | None = None,
    image_column: str | None = None,
    group_by: str | None = None,
    must: bool = True,
    lone: bool = True,
    labels: bool = True,
) -> Listing:
    """All entries of a path, nothing decoded yet. Raises UserError for what is neither folder nor table.

    labels: whether any are wanted; if not, every image counts, wherever it lies. must: whether a table has to have
    the columns that are asked for. lone: whether a folder without a table is an error where a column is asked for.
    """
    told = read_group_by(group_by)
    place = locate(path, filesystem)
    folder = None if images is None else locate(images)
    if folder is not None and not is_folder(folder):
        raise UserError(f"{folder.shown}: --images needs a folder")
    options = TableOptions(folder, label, image_column, must, lone, labels, group_by)
    if is_folder(place):
        listing = list_folder(place, options=options, split=split, labels=labels)
        unread = label is not None and lone and "table" not in listing.layout and not listing.told
        if unread and asked_for(label) and listing.layout != BY_NAMES:
            names = [entry.item.name for entry in listing.entries if entry.certain]
            raise UserError(
                f"{listing.name}: --label {label}: the names of its images do not say several labels; {advice(names)}"
            )
        if unread and not asked_for(label):
            because = listing.unlabelled_because or "there is no table beside its images"
            raise UserError(f"{listing.name}: --label {label}: {because.removeprefix('--label: ')}")
    elif place.suffix in TABLES | ANNOTATIONS:
        listing = list_table(place, options)
        for entry in listing.entries:
            if entry.split is not None:
                listing.split_names.setdefault(entry.split, [entry.split])
    else:
        raise UserError(not_a_data_set(place.path, place.shown))
    if told is not None:
        group_as_told(listing, told, folder)
    elif labels:
        group_by_names(listing)
    if labels:
        say_misnamed(listing)
    if split == NONE or not labels:
        listing.entries = [replace(entry, split=None) for entry in listing.entries]
        if not labels and listing.split_names:
            listing.announce("the images of all its splits are read")
        listing.split_names = {}
    return listing


def groups_of(entries: Sequence[Entry]) -> np.ndarray | None:
    """Group numbers; an image without a group is its own. None where no image has one."""
    if all(entry.group is None for entry in entries):
        return None
    numbers: dict[object, int] = {}
    keys = [row if entry.group is None else entry.group for row, entry in enumerate(entries)]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def _group_names(entries: Sequence[Entry]) -> list[str | None]:
    names = [entry.group for entry in entries]
    return [] if all(name is None for name in names) else names


def _has_no_table(listing: Listing) -> bool:
    """Whether images lie in a folder without any table, be it one that is not asked."""
    endings = {PurePosixPath(entry.item.name).suffix.lower() for entry in listing.entries}
    return "table" not in listing.layout and not endings & (TABLES | ANNOTATIONS)


def _none_is_read(listing: Listing) -> bool:
    """Whether all images are of kinds that cannot be read, by their endings."""
    meant = [entry.item.name for entry in listing.entries if entry.certain]
    return bool(meant) and all(map(why_unread, meant))


def _lost(listing: Listing) -> dict[str, int]:
    """How many images each class is meant to have."""
    return dict(Counter(entry.label for entry in listing.entries if entry.certain and entry.label is not None))
