"""Whether images that are named as versions of one picture are: phones and forms call every photograph ``image.jpg``.

Of such Roboflow makes ``image_jpg.rf.….jpg``, any number of different ones. A name with a number is a picture's own.
One without is believed of a few images, and of more where they look more alike than others of their class: versions
do, unless they were changed beyond recognition. Photographs are called alike in a few ways: many such names are own.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np

from raytl.core.names import few
from raytl.tasks.looks import look_alike
from raytl.tasks.readers.listing import Entry, Listing, Picture
from raytl.tasks.survey import Facts

OF_ONE = "those of one picture"
_ENDING = re.compile(r"[_.-](jpe?g|jfif|jp2|png|bmp|gif|tiff?|webp|heic|heif|avif)$", re.IGNORECASE)
_MOST = 10
"""Images of which a name without a number is believed whatever they look like: tools make three versions or so."""
_KINDS = 5
"""Names of so many images in a class that may be any photograph's: more are pictures' own, and folds can be made."""
_NAMES = 50
"""Names that are told of one by one; of more all at once: each is asked of some images, and they take time."""


def calls_any(picture: str) -> bool:
    """Whether pictures of that name may be any number of different ones. picture: a path without ending."""
    return not any(map(str.isdigit, called(picture)))


def called(picture: str) -> str:
    """``image`` for ``photos/cat/image_jpg``: what the tool was given was ``image.jpg``."""
    return _ENDING.sub("", PurePosixPath(picture).name)


def named_like(pictures: Mapping[str, Picture]) -> str:
    """How many images are named like versions, and one of them."""
    count, first = sum(picture.images for picture in pictures.values()), next(iter(pictures.values())).example
    return f"{count} images are named like versions or parts of others ({first}, …)"


def kept(what: str, whose: str) -> str:
    """What is said of images that are kept together."""
    return f"{what}; {whose} stay on one side of every split"


def judge_versions(listing: Listing, entries: Sequence[Entry], facts: Sequence[Facts]) -> list[Entry]:
    """The entries, without a group where that is a name that says no more of its images than that they are some.

    That is said, and taken from what was announced. facts: of the entries, which are those of one use of the data.
    """
    rows: dict[str, list[int]] = defaultdict(list)  # by group
    of_class: dict[str | None, set[object]] = defaultdict(set)
    for row, entry in enumerate(entries):
        of_class[entry.label].add(row if entry.group is None else entry.group)
        if entry.group in listing.pictures and not listing.pictures[entry.group].own:
            rows[entry.group].append(row)
    single = {next(iter(groups)) for groups in of_class.values() if len(groups) == 1}
    alone = {group for group, found in rows.items() if group in single and len(found) > 1}
    of_many = {group for group, found in rows.items() if len(found) > _MOST and group not in alone}
    many = _not_own(of_many, of_class.values())
    unlike = many - _alike({group: found for group, found in rows.items() if called(group) in many}, entries, facts)
    without = {group for group in rows if group in alone or called(group) in unlike}
    if not without:
        return list(entries)
    reasons = ["do not look it"] * bool(unlike) + ["are all that a class has"] * bool(alone)
    _say(listing, without, sum(len(rows[group]) for group in without), " or ".join(reasons))
    return [replace(entry, group=None) if entry.group in without else entry for entry in entries]


def _not_own(groups: Set[object], of_classes: Collection[Set[object]]) -> set[str]:
    """What groups of many images are called that may be any photograph's name; not those of a class with several."""
    names = [{called(str(group)) for group in groups & found} for found in of_classes]
    own = {name for found in names if len(found) > _KINDS for name in found}
    return {name for found in names for name in found} - own


def _alike(rows: Mapping[str, Sequence[int]], entries: Sequence[Entry], facts: Sequence[Facts]) -> set[str]:
    """Names whose images look like one picture's. rows: by group, the entries of pictures of these names."""
    if not rows:
        return set()
    names = sorted({called(group) for group in rows})
    numbers = {name: number for number, name in enumerate(names)}
    groups = len(names) + np.arange(len(entries))
    for group, found in rows.items():
        groups[found] = numbers[called(group)]
    labels = np.unique([str(entry.label) for entry in entries], return_inverse=True)[1]
    asked = groups < len(names)
    told = look_alike(groups, labels, asked, facts, groups if len(names) <= _NAMES else None)
    return {name for name, alike in zip(names, np.broadcast_to(told, len(names)), strict=True) if alike}


def _say(listing: Listing, without: Collection[str], images: int, why: str) -> None:
    """Say of how many images the names of versions are not believed, and why; take it from what was announced."""
    names = sorted({called(group) for group in without})
    of = "one picture" if len(names) == 1 else f"{len(names)} pictures"
    listing.announce_warning(
        f"{images} images are named like versions of {of} ({few(names, quoted=True)}) and {why}: each counts as "
        "its own; if they are versions, validation flatters, and --group-by keeps together what it finds in their names"
    )
    left = {group: picture for group, picture in listing.pictures.items() if called(group) not in names}
    said = kept(named_like(listing.pictures), OF_ONE)
    listing.problems = [
        replace(problem, message=kept(named_like(left), OF_ONE)) if problem.message == said else problem
        for problem in listing.problems
        if left or problem.message != said
    ]
