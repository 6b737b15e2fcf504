"""Readers: from an image folder, a Parquet or a CSV file, local or at a URI, to images that are known to decode."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import numpy as np

from raytl.core.errors import UserError
from raytl.core.hashing import hash_bytes
from raytl.tasks.decoding import KNOWN, decode_with_facts
from raytl.tasks.images import Images, LabelledImages
from raytl.tasks.items import EncodedItem, FileItem
from raytl.tasks.problems import Problem, Severity
from raytl.tasks.readers.choosing import choose_split
from raytl.tasks.readers.folder import describe_suffixes, list_folder
from raytl.tasks.readers.listing import Entry, Listing, is_folder, locate
from raytl.tasks.readers.names import judge_names
from raytl.tasks.readers.split_names import NONE
from raytl.tasks.readers.table import TABLES, list_table
from raytl.tasks.readers.web import WEB
from raytl.tasks.survey import Facts, facts_of, threaded
from raytl.tasks.task import Role

__all__ = ["ReadResult", "list_path", "load", "read_labelled", "read_unlabelled"]

Pathlike = str | os.PathLike[str]
I_co = TypeVar("I_co", bound=Images, covariant=True)

_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\x00", b"MM\x00*", b"RIFF", b"\x00\x00\x00\x0cjP")
_FEW = 3  # files of one fault that are named one by one


@dataclass(frozen=True)
class ReadResult(Generic[I_co]):
    """Images that all decode, and what was noticed on the way.

    facts: one per image, same order. channels: 1 where every image is greyscale, else 3. has_test: whether the data's
    own splits hold labelled images for the test, which are not among these.
    group_names: what the group column says of each image, None where it says nothing; empty without such a column.
    """

    images: I_co
    problems: list[Problem]
    facts: list[Facts]
    has_test: bool = False
    group_names: list[str | None] = field(default_factory=list)

    @property
    def channels(self) -> int:
        """1 where every image is greyscale (by its content), else 3."""
        return 1 if all(facts.greyscale for facts in self.facts) else 3


def read_labelled(
    path: Pathlike,
    *,
    role: str = Role.TARGET,
    filesystem: Any = None,
    split: str | None = None,
    images: Pathlike | None = None,
) -> ReadResult[LabelledImages]:
    """Read labelled images; classes are sorted by name. Files that do not decode are named in problems and left out.

    path: a folder with one subfolder per class, or a Parquet, CSV or JSON-lines file; local, or any URI that
        ``pyarrow.fs`` knows, or a table at an http address.
    role: what the images are for ("target", "source_domain", "test"), to word the errors and to choose among splits:
        the target is what the data's splits have for training and validation, the test what they have for testing, and
        a source domain all of it.
    filesystem: a ``pyarrow.fs.FileSystem`` that ``path`` lies in, where the path alone does not tell.
    split: the one split to read; "none" where folders with names of splits are classes.
    images: the folder that a table's paths count from, where that is not the table's own.
    Raises UserError where nothing is there, there are no labels, it may be meant in several ways, no image can be read,
    or none of a class.
    """
    listing = list_path(path, filesystem, split=split, images=images)
    option = f"--{role.replace('_', '-')}"
    if not listing.entries:
        raise UserError(f"{listing.name}: no images found; give a folder with one subfolder of images per class")
    if not listing.labelled:
        raise UserError(no_labels(listing, option))
    has_test = choose_split(listing, role, split)
    note_strays(listing)
    listing.entries = [entry for entry in listing.entries if entry.label is not None]
    lost, (entries, items, facts) = _lost(listing), load(listing)
    found = [str(entry.label) for entry in entries]
    classes = tuple(sorted(set(found)))
    for label in sorted(set(lost) - set(classes)):
        raise UserError(f"{listing.name}: {vanished(listing, label, lost[label])}")
    listing.problems += judge_names(listing.name, classes)
    labels = np.array([classes.index(label) for label in found], dtype=np.int64)
    read = LabelledImages(listing.name, items, _groups(entries), classes, labels)
    return ReadResult(read, listing.problems, facts, has_test, _group_names(entries))


def read_unlabelled(path: Pathlike, *, filesystem: Any = None, images: Pathlike | None = None) -> ReadResult[Images]:
    """Read images without labels; labels that are there (class folders, a label column) are not looked at.

    path, filesystem, images, errors: as for :func:`read_labelled`. All splits are read.
    """
    listing = list_path(path, filesystem, images=images, labels=False)
    if not listing.entries:
        raise UserError(f"{listing.name}: no images found; give a folder, Parquet or CSV file with images")
    entries, items, facts = load(listing)
    read = Images(listing.name, items, _groups(entries))
    return ReadResult(read, listing.problems, facts, group_names=_group_names(entries))


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
        files = "1 image lies" if len(strays) == 1 else f"{len(strays)} images lie"
        listing.note(f"{files} outside the class folders (first: {strays[0]}); left out")


def list_path(
    path: Pathlike,
    filesystem: Any = None,
    *,
    split: str | None = None,
    images: Pathlike | None = None,
    labels: bool = True,
) -> Listing:
    """All entries of a path, nothing decoded yet. Raises UserError for what is neither folder nor table.

    labels: whether any are wanted; if not, every image counts, wherever it lies.
    """
    place = locate(path, filesystem)
    folder = None if images is None else locate(images)
    if folder is not None and not is_folder(folder):
        raise UserError(f"{folder.shown}: --images needs a folder")
    if is_folder(place):
        listing = list_folder(place, images=folder, split=split, labels=labels)
    elif place.suffix in TABLES:
        listing = list_table(place, folder)
        for entry in listing.entries:
            if entry.split is not None:
                listing.split_names.setdefault(entry.split, [entry.split])
    else:
        raise UserError(f"{place.shown}: neither a folder nor a Parquet or CSV file; give one of these")
    if split == NONE or not labels:
        listing.entries = [replace(entry, split=None) for entry in listing.entries]
        if not labels and listing.split_names:
            listing.announce("the images of all its splits are read")
        listing.split_names = {}
    return listing


def load(listing: Listing) -> tuple[list[Entry], list[FileItem | EncodedItem], list[Facts]]:
    """Decode every entry once: what decodes, as items with digests, and facts; problems go to the listing.

    Raises UserError where nothing decodes.
    """
    entries, items, facts, bad = decode_all(listing)
    if not items and not bad:
        raise UserError(f"{listing.name}: no images found; {KNOWN} files")
    if not items:
        files = "the only image cannot" if len(bad) == 1 else f"none of the {len(bad)} images can"
        first = f"{bad[0].where}: {bad[0].message.removesuffix('; left out')}"
        raise UserError(f"{listing.name}: {files} be read (first: {first}); replace them")
    return entries, items, facts


def decode_all(
    listing: Listing,
) -> tuple[list[Entry], list[FileItem | EncodedItem], list[Facts], list[Problem]]:
    """Like :func:`load`, with the damaged images as a list of their own and no error where there are no others."""
    entries, items, facts, foreign = [], [], [], []
    bad: list[Problem] = []
    for entry, outcome in zip(listing.entries, threaded(_load_one, listing.entries), strict=True):
        if outcome is None:
            foreign.append(entry)
        elif isinstance(outcome, UserError):
            reason = str(outcome).removeprefix(f"{entry.item.name}: ").rpartition(";")[0]
            bad.append(Problem(Severity.WARNING, entry.item.name, f"{reason}; left out"))
        else:
            entries.append(entry)
            items.append(outcome[0])
            facts.append(outcome[1])
    _note_foreign(listing, foreign)
    listing.problems += _summed(listing.name, bad)
    return entries, items, facts, bad


def _note_foreign(listing: Listing, foreign: Sequence[Entry]) -> None:
    """Say which files are no images, and which folders hold nothing else and so are no classes."""
    if not foreign:
        return
    suffixes = describe_suffixes(entry.item.name for entry in foreign)
    files = "1 file is not an image" if len(foreign) == 1 else f"{len(foreign)} files are not images"
    listing.note(f"{files} ({suffixes}); left out", Severity.INFO)
    left_out = set(map(id, foreign))
    others = {entry.label for entry in listing.entries if id(entry) not in left_out}
    for label in sorted({entry.label for entry in foreign if entry.label is not None} - others):
        kinds = describe_suffixes(entry.item.name for entry in foreign if entry.label == label)
        listing.note(f"folder '{label}' holds no images ({kinds}); it is not taken for a class")


def _summed(where: str, bad: Sequence[Problem]) -> list[Problem]:
    """Files with one fault as one problem, where there are many."""
    by_fault: dict[str, list[Problem]] = {}
    for problem in bad:
        by_fault.setdefault(problem.message, []).append(problem)
    summed = []
    for message, problems in by_fault.items():
        if len(problems) <= _FEW:
            summed += problems
            continue
        named = ", ".join(problem.where for problem in problems[:_FEW])
        fault = message.removesuffix("; left out")
        summed.append(Problem(Severity.WARNING, where, f"{len(problems)} images left out: {fault} (such as {named})"))
    return summed


def _lost(listing: Listing) -> dict[str, int]:
    """How many images each class is meant to have."""
    return dict(Counter(entry.label for entry in listing.entries if entry.certain and entry.label is not None))


def vanished(listing: Listing, label: str, count: int) -> str:
    """The sentence for a class of which no image can be read."""
    own = [entry for entry in listing.entries if entry.label == label and entry.certain]
    outcome = _load_one(own[0])
    fault = str(outcome).removeprefix(f"{own[0].item.name}: ") if isinstance(outcome, UserError) else "unreadable"
    images = "its only image" if count == 1 else f"none of its {count} images"
    return (
        f"class '{label}' would vanish: {images} can{'not' if count == 1 else ''} be read; {own[0].item.name}: {fault}"
    )


def _load_one(entry: Entry) -> tuple[FileItem | EncodedItem, Facts] | UserError | None:
    """Item and facts, what is wrong, or None for a file that is no image and did not claim to be."""
    try:
        if not entry.certain and not entry.item.read(8).startswith(_MAGIC):
            return None
        data = entry.item.read()
        decoded = decode_with_facts(data, entry.item.name)
    except UserError as error:
        return error
    facts = facts_of(decoded.image, width=decoded.width, height=decoded.height, mode=decoded.mode)
    if isinstance(entry.item, FileItem) and entry.item.filesystem is WEB:
        return EncodedItem(entry.item.name, data, hash_bytes(data)), facts  # fetched once
    return replace(entry.item, digest=hash_bytes(data)), facts


def _groups(entries: Sequence[Entry]) -> np.ndarray | None:
    """Group numbers; an image without a group is its own. None where no image has one."""
    if all(entry.group is None for entry in entries):
        return None
    numbers: dict[object, int] = {}
    keys = [row if entry.group is None else entry.group for row, entry in enumerate(entries)]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def _group_names(entries: Sequence[Entry]) -> list[str | None]:
    names = [entry.group for entry in entries]
    return [] if all(name is None for name in names) else names
