"""Which images belong together, as the user says it: by a column of tables, or by what their paths say.

What a user knows of it is a column, or how files and folders were named. So a name is that of a column, as other tools
for tables have it (``groups='patient'``); with round brackets it is a regular expression, of which they say what tells,
as in ``--label filename:REGEX``; and two words stand for what needs no expression.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from raytl.core.errors import UserError
from raytl.core.names import few, printable, so_many
from raytl.tasks.items import FileItem
from raytl.tasks.problems import Severity
from raytl.tasks.readers.belonging import below
from raytl.tasks.readers.listing import Entry, Listing, Place
from raytl.tasks.task import Role

FOLDER, NOBODY = "folder", "none"
"""By the folder that each image lies in; and every image is its own, whatever names and columns say."""
_NAMED = 4


@dataclass(frozen=True)
class GroupBy:
    """What ``--group-by`` says.

    wish: as it was given. pattern: finds the group in a path, None where no expression was given.
    """

    wish: str
    pattern: re.Pattern[str] | None = None

    @property
    def option(self) -> str:
        """As it is typed."""
        return f"--group-by {shlex.quote(printable(self.wish))}"

    @property
    def is_column(self) -> bool:
        """Whether nothing but a column can be meant."""
        return self.pattern is None and self.wish not in (FOLDER, NOBODY)

    def told(self, path: PurePosixPath) -> str | None:
        """The group by a path from the folder that was given on, None where it says nothing."""
        if self.wish == FOLDER:
            return path.parent.name or None
        found = None if self.pattern is None else self.pattern.search(str(path))
        parts = [] if found is None else [part or "" for part in found.groups()]
        return "/".join(parts) if any(parts) else None


def read_group_by(wish: str | None) -> GroupBy | None:
    """What is meant. Raises UserError for brackets that are no regular expression, or that find nothing."""
    if wish is None or "(" not in wish:
        return None if wish is None else GroupBy(wish)
    try:
        pattern = re.compile(wish)
    except re.error as error:
        raise UserError(f"--group-by {printable(wish)}: not a regular expression ({error})") from None
    if not pattern.groups:
        raise UserError(
            f"--group-by {printable(wish)}: put the part of a path that tells the group in round brackets, as in "
            r"--group-by 'patient(\d+)'"
        )
    return GroupBy(wish, pattern)


def group_as_told(listing: Listing, told: GroupBy, images: Place | None = None) -> None:
    """Give entries the groups that were asked for; those by a column of its tables they have.

    images: the folder that paths in tables count from, where that is not the table's own.
    """
    if told.is_column or any(entry.group is not None for entry in listing.entries):
        return
    roots = [listing.name] if images is None else [images.shown.rstrip("/") + "/", listing.name]
    listing.entries = [
        replace(entry, group=told.told(_inner(entry, roots))) if isinstance(entry.item, FileItem) else entry
        for entry in listing.entries
    ]


def judge_told(listing: Listing, told: GroupBy, entries: Sequence[Entry], role: str) -> None:
    """Say what groups the images of a role have. Raises UserError where these allow no search, if it is the target.

    entries: of the role, some of the listing's. In other roles groups that would leave nothing to hold out are taken
    back, which is said.
    """
    meant = [entry for entry in entries if entry.certain] or list(entries)
    if told.wish == NOBODY or not meant:
        return
    fault = _fault(told, meant, role)
    if fault is not None and role == Role.TARGET:
        raise UserError(f"{listing.name}: {told.option}: {fault[0]}; {fault[1]}")
    if fault is not None:
        own = set(map(id, entries))
        listing.entries = [replace(entry, group=None) if id(entry) in own else entry for entry in listing.entries]
        what = f"{told.option} is not heard here: {fault[0]}"
        listing.announce(what, Severity.WARNING if role == "test" else Severity.INFO)
        return
    alone = [entry for entry in meant if entry.group is None]
    names = sorted({entry.group for entry in meant if entry.group is not None})
    groups = so_many(len(names), "group", "groups")
    what = f"{told.option} finds {groups} ({few(names, _NAMED)})"
    if role != Role.UNLABELLED:
        what = f"{what}; images of one stay on one side of every split"
    if alone:
        some = so_many(len(alone), "image, of which it says nothing, is", "images, of which it says nothing, are")
        what = f"{what}, and {some} alone (first: {alone[0].item.name})"
    listing.announce(what, Severity.WARNING if alone and role == Role.TARGET else Severity.INFO)
    found = None if told.pattern is None else _in_its_name(meant)
    if found is not None:
        what = f"all of class '{found[0]}' is group {found[1]}, and nothing else is; if {told.option} finds that in the"
        listing.announce_warning(f"{what} name of its folder, begin the pattern with / for what comes after it")


def _in_its_name(entries: Sequence[Entry]) -> tuple[str, str] | None:
    """The first class with a group of its own that is found in its name, and that group."""
    groups: dict[str, set[str | None]] = {}
    classes: dict[str | None, set[str | None]] = {}
    for entry in entries:
        groups.setdefault(str(entry.label), set()).add(entry.group)
        classes.setdefault(entry.group, set()).add(entry.label)
    for label, found in sorted(groups.items()):
        group = next(iter(found))
        if len(found) == 1 and group is not None and len(classes[group]) == 1 and group in label:
            return label, group
    return None


def _fault(told: GroupBy, entries: Sequence[Entry], role: str) -> tuple[str, str] | None:
    """Why groups are of no use, and what to do; None where they are."""
    count, first = len(entries), entries[0].item.name
    groups = Counter(entry.group for entry in entries if entry.group is not None)
    if not groups and told.is_column:
        how = r"name one, or put what tells in the paths in round brackets, as in --group-by '(.+)_\d+'"
        return "there is no table with a column of that name that says something", how
    if not groups and not any(isinstance(entry.item, FileItem) for entry in entries):
        return "its images lie in a table and have no paths", "name a column of the table"
    if not groups:
        where = "it finds nothing in the path of its image" if count == 1 else f"it finds nothing in {count} paths"
        return f"{where} (first: {first})", "correct it, or leave it out"
    if role == Role.UNLABELLED:
        return None
    if len(groups) == 1 and groups.total() == count > 1 and role != "test":
        return f"all {count} images are one group ({next(iter(groups))}), so none could be held out", "correct it"
    if len(groups) == groups.total():
        what = f"every image is a group of its own (the first {next(iter(groups))}), so it keeps nothing together"
        return what, f"correct it, or if that is meant pass --group-by {NOBODY}"
    of_class: dict[str | None, set[object]] = {}
    for entry in entries:
        of_class.setdefault(entry.label, set()).add(id(entry) if entry.group is None else entry.group)
    if max(map(len, of_class.values())) == 1 < len(of_class):
        return (
            f"every class is one group alone ({few(sorted(groups), _NAMED)}), so none could be held out",
            "correct it",
        )
    return None


def _inner(entry: Entry, roots: Sequence[str]) -> PurePosixPath:
    """An image's path from the first of the places that it lies in."""
    paths = [below(entry.item.name, root) for root in roots]
    return min(paths, key=lambda path: len(path.parts))
