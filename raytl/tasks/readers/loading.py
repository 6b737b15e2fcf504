"""From the entries of a path to images that decode, and to what is to be said of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from raytl.core.errors import UserError
from raytl.core.hashing import hash_bytes
from raytl.core.names import so_many
from raytl.tasks import icons
from raytl.tasks.decoding import decode_with_facts
from raytl.tasks.formats import KNOWN, is_dicom
from raytl.tasks.items import EncodedItem, FileItem
from raytl.tasks.problems import Problem, Severity
from raytl.tasks.readers.hints import MEDIA, describe_suffixes
from raytl.tasks.readers.listing import Entry, Listing
from raytl.tasks.readers.web import WEB
from raytl.tasks.rows import RowItem
from raytl.tasks.survey import Facts, facts_of, threaded
from raytl.tasks.waiting import is_silent

_MAGIC = (
    b"\xff\xd8\xff",
    b"\x89PNG",
    b"GIF8",
    b"BM",
    b"II*\x00",
    b"MM\x00*",
    b"RIFF",
    b"\x00\x00\x00\x0cjP",
    icons.MAGIC,
)
_FEW = 3  # files of one fault that are named one by one


def load(listing: Listing) -> tuple[list[Entry], list[FileItem | EncodedItem | RowItem], list[Facts]]:
    """Decode every entry once: what decodes, as items with digests, and facts; problems go to the listing.

    Raises UserError where nothing decodes.
    """
    entries, items, facts, bad = decode_all(listing)
    if not items and not bad:
        raise UserError(f"{listing.name}: no images found; {listing.empty_because or f'{KNOWN} files'}")
    if not items:
        files = "the only image cannot" if len(bad) == 1 else f"none of the {len(bad)} images can"
        first = next(entry for entry in listing.entries if entry.item.name == bad[0].where)
        reason, _, remedy = str(_load_one(first)).rpartition("; ")
        raise UserError(f"{listing.name}: {files} be read (first: {reason}); {remedy}")
    return entries, items, facts


def decode_all(
    listing: Listing,
) -> tuple[list[Entry], list[FileItem | EncodedItem | RowItem], list[Facts], list[Problem]]:
    """Like :func:`load`, with the damaged images as a list of their own and no error where there are no others."""
    entries, items, facts, foreign = [], [], [], []
    bad: list[Problem] = []
    doubtful: list[int] = []
    in_order = any(isinstance(entry.item, RowItem) for entry in listing.entries)
    for entry, outcome in zip(listing.entries, threaded(_load_one, listing.entries, in_order=in_order), strict=True):
        if isinstance(outcome, UserError) and is_silent(entry.item.name):
            raise outcome  # what is left out there is as good as the rest
        if outcome is None:
            foreign.append(entry)
        elif isinstance(outcome, UserError):
            reason = str(outcome).removeprefix(f"{entry.item.name}: ").rpartition(";")[0]
            doubtful += [id(entry)] if not entry.certain else []
            bad.append(Problem(Severity.WARNING, entry.item.name, f"{reason}; left out"))
        else:
            entries.append(entry)
            items.append(outcome[0])
            facts.append(outcome[1])
    _note_foreign(listing, foreign)
    labels = {id(entry): entry.label for entry in listing.entries}
    meant = {entry.label for entry in listing.entries if entry.certain} | {entry.label for entry in entries}
    for label, count in Counter(labels[key] for key in doubtful).items():
        if label is not None and label not in meant:  # files without ending that turned out to be images of some kind
            listing.note(vanished(listing, label, count), Severity.ERROR)
    listing.problems += _summed(listing.name, bad)
    return entries, items, facts, bad


def _note_foreign(listing: Listing, foreign: Sequence[Entry]) -> None:
    """Say which files are no images, and which folders hold nothing else and so are no classes."""
    if not foreign:
        return
    suffixes = describe_suffixes(entry.item.name for entry in foreign)
    files = so_many(len(foreign), "file is not an image", "files are not images")
    listing.note(f"{files} ({suffixes}); left out", Severity.INFO)
    left_out = set(map(id, foreign))
    others = {entry.label for entry in listing.entries if id(entry) not in left_out}
    for label in sorted({entry.label for entry in foreign if entry.label is not None} - others):
        names = [entry.item.name for entry in foreign if entry.label == label]
        if any(PurePosixPath(name).suffix.lower() in MEDIA for name in names):
            what = f"class '{label}' would vanish: its files are no images ({describe_suffixes(names)})"
            listing.note(f"{what}; put pictures in their place, or move the folder away", Severity.ERROR)
            continue
        kinds = describe_suffixes(names)
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


def vanished(listing: Listing, label: str, count: int) -> str:
    """The sentence for a class of which no image can be read."""
    own = [entry for entry in listing.entries if entry.label == label]
    own = [entry for entry in own if entry.certain] or own
    outcome = _load_one(own[0])
    fault = str(outcome).removeprefix(f"{own[0].item.name}: ") if isinstance(outcome, UserError) else "unreadable"
    images = "its only image" if count == 1 else f"none of its {count} images"
    return (
        f"class '{label}' would vanish: {images} can{'not' if count == 1 else ''} be read; {own[0].item.name}: {fault}"
    )


def _load_one(entry: Entry) -> tuple[FileItem | EncodedItem | RowItem, Facts] | UserError | None:
    """Item and facts, what is wrong, or None for a file that is no image and did not claim to be."""
    try:
        if not entry.certain:
            head = entry.item.read(132)
            if not head.startswith(_MAGIC) and not is_dicom(head):
                return None
        data = entry.item.read()
        decoded = decode_with_facts(data, entry.item.name)
    except UserError as error:
        return error
    facts = facts_of(
        decoded.image,
        width=decoded.width,
        height=decoded.height,
        mode=decoded.mode,
        kind=decoded.kind,
        several=decoded.several,
    )
    if isinstance(entry.item, FileItem) and entry.item.filesystem is WEB:
        return EncodedItem(entry.item.name, data, hash_bytes(data)), facts  # fetched once
    return replace(entry.item, digest=hash_bytes(data)), facts
