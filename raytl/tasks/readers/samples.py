"""Images with a file of each one's label beside them, and folders of tar files of such, as WebDataset writes both."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from raytl.core.errors import UserError
from raytl.core.names import few, printable
from raytl.tasks.formats import is_image
from raytl.tasks.items import FileItem
from raytl.tasks.readers.archive import Archive
from raytl.tasks.readers.columns import LABEL_COLUMNS
from raytl.tasks.readers.listing import Listing, Place
from raytl.tasks.readers.split_names import shard_split
from raytl.tasks.readers.tars import ENDINGS, bare
from raytl.tasks.readers.tree import Tree

BY_FILES = "images with a file of each one's label"
_KINDS = (".cls", ".txt", ".json")
_NUMBER = re.compile(r"\d+")
_NUMBERS = re.compile(r"[-+.\deE]+([ ,;\t]+[-+.\deE]+)+")  # a box, or several labels
_MOST_BYTES, _LONGEST, _MOST_WORDS = 64 * 2**10, 200, 5  # of such a file; characters and words of a label
_TRIED = 20  # files after which it is plain that they hold something else
_NAMED = 4


@dataclass(frozen=True)
class Beside:
    """labels: by the images' paths. where: in which files, in words. read: paths of these."""

    labels: dict[str, str]
    where: str
    read: set[str]


def labels_beside(place: Place, tree: Tree) -> Beside | None:
    """What files named like the images say of them; None where they are not there for most, or hold no labels.

    Not of what is far away, where each would take a request.
    """
    if place.filesystem is not None and not isinstance(place.filesystem, Archive):
        return None
    files = set(tree.below())
    images = [path for path in files if is_image(path)]
    for kind in _KINDS:
        named = {image: path for image in sorted(images) if (path := _named_like(image, kind, files)) is not None}
        if named and 2 * len(named) > len(images):
            found = _labels(place, named, kind)
            if found is not None:
                return found
    return None


def _named_like(image: str, kind: str, files: set[str]) -> str | None:
    """``7.cls`` for ``7.jpg``, and for ``7.rgb.jpg``: a sample's name ends at its first dot."""
    folder, _, name = image.rpartition("/")
    stems = (posixpath.splitext(name)[0], name.partition(".")[0])
    return next((path for stem in stems if (path := f"{folder}/{stem}{kind}") in files), None)


def _labels(place: Place, named: dict[str, str], kind: str) -> Beside | None:
    labels: dict[str, str] = {}
    key: str | None = None
    for number, (image, path) in enumerate(named.items()):
        try:
            text = FileItem(path, path, place.filesystem).read(_MOST_BYTES).decode("utf-8-sig").strip()
            told = json.loads(text) if kind == ".json" else text
        except (UserError, ValueError):
            if number < _TRIED:
                return None
            continue
        if isinstance(told, dict):
            key = key or next((name for word in LABEL_COLUMNS for name in told if name.lower() == word), None)
            told = told.get(key)
        label = _label(told)
        if label is not None:
            labels[image] = label
        elif number < _TRIED and told not in ("", None):
            return None
    again = 2 * len(set(labels.values())) <= len(labels)  # or they are captions
    if not labels or not (again or kind == ".cls"):
        return None
    where = f"the {kind} file beside each image"
    return Beside(labels, where if key is None else f"'{printable(key)}' in {where}", set(named.values()))


def _label(told: Any) -> str | None:
    if isinstance(told, bool | float) or not isinstance(told, str | int):
        return None
    text = str(told).strip()
    plain = text and "\n" not in text and len(text) <= _LONGEST and len(text.split()) <= _MOST_WORDS
    return printable(text) if plain and not _NUMBERS.fullmatch(text) else None


def as_one(place: Place, tree: Tree) -> Place | None:
    """The inside of a folder's numbered tar files, ``data-000000.tar`` and so on; None where it holds anything else.

    tree: the folder's. They may be several sets where their names, or folders, speak of splits.
    """
    files = list(tree.below())
    tars = [path for path in files if path.lower().endswith(ENDINGS)]
    if place.filesystem is not None or len(tars) < 2 or tree.images():
        return None
    sets: dict[str, list[str]] = {}
    for path in tars:
        name = path[len(place.path) :].lstrip("/")
        sets.setdefault(_NUMBER.sub("#", name), []).append(name)
    if not all(map(_follow_each_other, sets.values())):
        return None
    if len(sets) > 1 and not all(shard_split(name.replace("/", " ")) for name in sets):
        return None
    return Place(Archive(place.path, place.shown, tuple(tars)), "/", place.shown)


def say_shards(place: Place, listing: Listing) -> None:
    """Say that tar files are read as one, and which are missing between them."""
    assert isinstance(place.filesystem, Archive)
    shards = place.filesystem.shards
    listing.announce(f"its {len(shards)} tar files are read as one")
    names = [path.rpartition("/")[2] for path in shards]
    lost = _missing(names) if len({_NUMBER.sub("#", path) for path in shards}) == 1 else []
    if lost:
        parts = "1 is" if len(lost) == 1 else f"{len(lost)} are"
        between = f"between {printable(bare(min(names)))} and {printable(bare(max(names)))}"
        listing.announce_warning(f"of the tar files {between} {parts} not there ({few(map(str, lost), _NAMED)})")


def _numbers(names: Iterable[str]) -> list[int]:
    """What numbers files of one name: the last of its numbers that is not the same in all."""
    rows = [[int(number) for number in _NUMBER.findall(name)] for name in names]
    columns = list(zip(*rows, strict=True))
    return sorted(
        next((column for column in reversed(columns) if len(set(column)) > 1), columns[-1] if columns else ())
    )


def _follow_each_other(paths: list[str]) -> bool:
    """Whether files of one name are numbered as parts of a whole are, but for some that are missing."""
    found = _numbers(bare(path.rpartition("/")[2]) for path in paths)
    return len(set(found)) == len(paths) and found[-1] - found[0] < 2 * len(paths)


def _missing(names: list[str]) -> list[int]:
    found = _numbers(map(bare, names))
    return sorted(set(range(found[0], found[-1] + 1)) - set(found))
