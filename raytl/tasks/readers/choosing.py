"""Which of a data set's own splits is read for what."""

from __future__ import annotations

from collections.abc import Sequence

from raytl.core.errors import UserError, nearest
from raytl.core.names import so_many
from raytl.tasks.problems import Severity
from raytl.tasks.readers.listing import Entry, Listing
from raytl.tasks.readers.split_names import NONE, SPLITS, TEST, TRAIN, VALIDATION, split_of
from raytl.tasks.task import Role

_LEARNED = (TRAIN, VALIDATION)
_NAMED = 4


def choose_split(listing: Listing, role: str, split: str | None, *, alone: bool = False) -> bool:
    """Keep the entries of a listing that a role reads, and announce it; nothing where the data is in one piece.

    split: the one to read, whatever the role. alone: whether there is no task, of whose other roles to speak.
    Returns whether labelled images for a test are left for the test. Raises UserError where there is no such split.
    """
    labelled = {
        name: [entry for entry in listing.entries if entry.split == name and entry.label is not None] for name in SPLITS
    }
    present = [name for name in SPLITS if labelled[name]]
    if split not in {None, NONE}:
        _only(listing, str(split), present)
        return False
    if not listing.split_names or (len(present) == 1 and all(entry.split in present for entry in listing.entries)):
        return False  # in one piece, whatever it is called
    if role == Role.SOURCE_DOMAIN:
        chosen = present
    elif role == TEST:
        chosen = [TEST] if labelled[TEST] else present
    else:
        chosen = [name for name in _LEARNED if labelled[name]] or present
    has_test = bool(labelled[TEST]) and TEST not in chosen
    words = {"source_domain": "the source domain", TEST: "the test"}.get(role, "the target")
    words = "what is learned from" if alone else words
    parts = [f"{_counted(listing, chosen, labelled)} {'is' if len(chosen) == 1 else 'are'} {words}"]
    others = [name for name in present if name not in chosen]
    if has_test and role == Role.TARGET and not alone:
        parts.append(f"{_counted(listing, [TEST], labelled)} the test unless --test is given")
    elif others:
        parts.append(f"{_counted(listing, others, labelled)} not read")
    hint = "; --split NAME takes one alone" if role == Role.TARGET else ""
    if VALIDATION in chosen and TRAIN in chosen:
        classes = {name: {str(entry.label) for entry in labelled[name]} for name in _LEARNED}
        for new in sorted(classes[VALIDATION] - classes[TRAIN])[:1]:
            where = _folders(listing, VALIDATION)
            listing.announce(f"class '{new}' is in {where} only{nearest(new, classes[TRAIN])}", Severity.WARNING)
    listing.announce(f"it is in splits: {', '.join(parts)}{hint}")
    _say_left_out(listing, "" if alone else ", pass them with --unlabelled to adapt to them")
    kept = {name: {id(entry) for entry in labelled[name]} for name in chosen}
    listing.entries = [entry for entry in listing.entries if any(id(entry) in ids for ids in kept.values())]
    return has_test


def _only(listing: Listing, split: str, present: Sequence[str]) -> None:
    """Keep one split. Its own folder names count as well as "train", "validation" and "test"."""
    own = {name.lower(): key for key, names in listing.split_names.items() for name in names}
    found = own.get(split.lower()) or (spoken[0] if (spoken := split_of(split)) else None)
    if found not in present:
        raise UserError(f"{listing.name}: has no labelled split '{split}'{nearest(split, [*present, *own])}")
    before = sum(entry.certain for entry in listing.entries)
    folder = split.lower() if split.lower() in own and len(listing.split_names.get(str(found), [])) > 1 else None
    listing.entries = [
        entry
        for entry in listing.entries
        if entry.split == found
        and entry.label is not None
        and (folder is None or f"/{folder}/" in entry.item.name.lower())
    ]
    left = before - sum(entry.certain for entry in listing.entries)
    listing.announce(f"only its split '{split}' is read ({len(listing.entries)} images), {left} others are not")


def _counted(listing: Listing, names: Sequence[str], labelled: dict[str, list[Entry]]) -> str:
    shown = [f"{_folders(listing, name)} ({_count(labelled[name])})" for name in names]
    return " and ".join(shown)


def _folders(listing: Listing, split: str) -> str:
    names = listing.split_names.get(split) or [split]
    return "/".join(names[:_NAMED]) + ("/…" if len(names) > _NAMED else "")


def _count(entries: Sequence[Entry]) -> str:
    number = sum(entry.certain for entry in entries)
    return so_many(number, "image", "images")


def _say_left_out(listing: Listing, advice: str) -> None:
    """Say which images have no label: those of a split without labels, and what lies in no split."""
    for name in SPLITS:
        blank = [entry for entry in listing.entries if entry.split == name and entry.label is None and entry.certain]
        if blank:
            where = _folders(listing, name)
            listing.announce(f"{where} has {_count(blank)} without labels; left out{advice}", Severity.WARNING)
    outside = [entry for entry in listing.entries if entry.split is None and entry.certain]
    if outside:
        listing.announce(
            f"{_count(outside)} outside the splits (first: {outside[0].item.name}); left out", Severity.WARNING
        )
