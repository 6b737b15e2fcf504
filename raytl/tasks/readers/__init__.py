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
from raytl.tasks.decoding import decode_with_facts
from raytl.tasks.images import Images, LabelledImages
from raytl.tasks.items import EncodedItem, FileItem
from raytl.tasks.problems import Problem, Severity
from raytl.tasks.readers.folder import describe_suffixes, empty_note, list_folder
from raytl.tasks.readers.listing import Entry, Listing, Place, is_folder, locate
from raytl.tasks.readers.table import list_table
from raytl.tasks.survey import Facts, facts_of, threaded
from raytl.tasks.task import Role

__all__ = ["ReadResult", "list_path", "load", "read_labelled", "read_unlabelled"]

I_co = TypeVar("I_co", bound=Images, covariant=True)

_TABLES = frozenset({".parquet", ".pq", ".csv", ".tsv"})
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\x00", b"MM\x00*", b"RIFF")
_SPLIT_NAMES = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})


@dataclass(frozen=True)
class ReadResult(Generic[I_co]):
    """Images that all decode, and what was noticed on the way.

    facts: one per image, same order. channels: 1 where every image is greyscale, else 3.
    group_names: what the group column says of each image, None where it says nothing; empty without such a column.
    """

    images: I_co
    problems: list[Problem]
    facts: list[Facts]
    group_names: list[str | None] = field(default_factory=list)

    @property
    def channels(self) -> int:
        """1 where every image is greyscale (by its content), else 3."""
        return 1 if all(facts.greyscale for facts in self.facts) else 3


def read_labelled(
    path: str | os.PathLike[str], *, role: str = Role.TARGET, filesystem: Any = None
) -> ReadResult[LabelledImages]:
    """Read labelled images; classes are sorted by name. Files that do not decode are named in problems and left out.

    path: a folder with one subfolder per class, or a Parquet or CSV file; local, or any URI that ``pyarrow.fs`` knows.
    role: what the images are for ("target", "source_domain", "test"), to word the errors.
    filesystem: a ``pyarrow.fs.FileSystem`` that ``path`` lies in, where the path alone does not tell.
    Raises UserError where nothing is there, there are no labels, or no image can be read.
    """
    listing = list_path(path, filesystem)
    option = f"--{role.replace('_', '-')}"
    if not listing.entries:
        raise UserError(f"{listing.name}: no images found; give a folder with one subfolder of images per class")
    if not listing.labelled:
        raise UserError(
            f"{listing.name}: no labels for {option}; put each class into a folder of its own, or add a 'label' column"
        )
    if {entry.label for entry in listing.entries} <= _SPLIT_NAMES and len(
        {entry.label for entry in listing.entries}
    ) > 1:
        raise UserError(
            f"{listing.name}: its folders are splits, not classes; give one, as in {option} {listing.name}train"
        )
    note_strays(listing)
    listing.entries = [entry for entry in listing.entries if entry.label is not None]
    named = {entry.label for entry in listing.entries if entry.certain}
    entries, items, facts = load(listing)
    found = [str(entry.label) for entry in entries]
    classes = tuple(sorted(set(found)))
    for lost in sorted(str(label) for label in named - set(found)):
        listing.note(f"class '{lost}' has no image that can be read; the class is left out")
    labels = np.array([classes.index(label) for label in found], dtype=np.int64)
    images = LabelledImages(listing.name, items, _groups(entries), classes, labels)
    return ReadResult(images, listing.problems, facts, _group_names(entries))


def read_unlabelled(path: str | os.PathLike[str], *, filesystem: Any = None) -> ReadResult[Images]:
    """Read images without labels; labels that are there (class folders, a label column) are not looked at.

    path, filesystem, errors: as for :func:`read_labelled`.
    """
    listing = list_path(path, filesystem)
    if not listing.entries:
        raise UserError(f"{listing.name}: no images found; give a folder, Parquet or CSV file with images")
    entries, items, facts = load(listing)
    images = Images(listing.name, items, _groups(entries))
    return ReadResult(images, listing.problems, facts, _group_names(entries))


def note_strays(listing: Listing) -> None:
    """Note images without a label among labelled ones."""
    strays = sum(entry.label is None and entry.certain for entry in listing.entries)
    if strays:
        files = "1 image lies" if strays == 1 else f"{strays} images lie"
        listing.note(f"{files} outside the class folders; left out")


def list_path(path: str | os.PathLike[str], filesystem: Any = None) -> Listing:
    """All entries of a path, nothing decoded yet. Raises UserError for what is neither folder, Parquet nor CSV."""
    place = locate(path, filesystem)
    if is_folder(place):
        listing = list_folder(place)
        return _shards(place, listing) or listing
    if place.suffix in _TABLES:
        return list_table(place)
    raise UserError(f"{place.shown}: neither a folder nor a Parquet or CSV file; give one of these")


def load(listing: Listing) -> tuple[list[Entry], list[FileItem | EncodedItem], list[Facts]]:
    """Decode every entry once: what decodes, as items with digests, and facts; problems go to the listing.

    Raises UserError where nothing decodes.
    """
    entries, items, facts, bad = decode_all(listing)
    if not items and not bad:
        raise UserError(f"{listing.name}: no images found; give JPEG, PNG, WebP, BMP, TIFF or GIF files")
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
            foreign.append(entry.item.name)
        elif isinstance(outcome, UserError):
            reason = str(outcome).removeprefix(f"{entry.item.name}: ").rpartition(";")[0]
            bad.append(Problem(Severity.WARNING, entry.item.name, f"{reason}; left out"))
        else:
            entries.append(entry)
            items.append(outcome[0])
            facts.append(outcome[1])
    if foreign:
        empty_note(listing, len(foreign), describe_suffixes(foreign))
    listing.problems += bad
    return entries, items, facts, bad


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


def _shards(place: Place, listing: Listing) -> Listing | None:
    """A folder of Parquet files and no images, as data sets are often published: their rows, file after file."""
    suffixes = Counter(name.rsplit(".", 1)[-1].lower() for name in (entry.item.name for entry in listing.entries))
    if any(entry.certain for entry in listing.entries) or not suffixes["parquet"]:
        return None
    joined = Listing(listing.name)
    for entry in listing.entries:
        if isinstance(entry.item, FileItem) and entry.item.name.lower().endswith(".parquet"):
            shard = list_table(Place(place.filesystem, entry.item.path, entry.item.name))
            joined.entries += shard.entries
            joined.problems += shard.problems
            joined.labelled = joined.labelled or shard.labelled
    return joined
