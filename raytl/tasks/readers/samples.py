"""Images with a file of each one's label beside them, and folders of tar files of such, as WebDataset writes both."""

from __future__ import annotations

import json
import posixpath
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from raytl.core.errors import UserError
from raytl.core.names import few, printable, so_many
from raytl.tasks.formats import is_image
from raytl.tasks.items import FileItem
from raytl.tasks.readers.archive import Archive
from raytl.tasks.readers.columns import LABEL_COLUMNS
from raytl.tasks.readers.layouts import may_be_table
from raytl.tasks.readers.listing import Listing, Place
from raytl.tasks.readers.split_names import shard_split
from raytl.tasks.readers.tars import ENDINGS, bare
from raytl.tasks.readers.tree import Tree

BY_FILES = "images with a file of each one's label"
_KINDS = (".cls", ".txt", ".json")
_PART = re.compile(
    r"[^.]*\.(.*[._-])?((semantic|instance|panoptic)?[_-]?(seg|segm|segmentation|mask|masks|label|labels|gt|annotation)"
    r"|trimap|target|depth|disparity|normals|flow|heatmap|saliency|alpha|matte|edges?|canny|overlay|bbox|boxes)"
    r"[_-]?\d*",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\d+")
_NUMBERS = re.compile(r"[-+.\deE]+([ ,;\t]+[-+.\deE]+)+")  # a box, or several labels
_MOST_BYTES, _LONGEST, _MOST_WORDS = 64 * 2**10, 200, 5  # of such a file; characters and words of a label
_TRIED = 20  # files after which it is plain that they hold something else
_NAMED = 4
_OF = re.compile(r"(\d+)[-_]of[-_](\d+)$", re.IGNORECASE)
_MOST_SHARDS = 10**6


@dataclass(frozen=True)
class Beside:
    """labels: by the images' paths. where: in which files, in words. read: paths of these.

    groups: by path, the sample that an image is one of several of. parts: paths of masks and the like, which are parts
    of a sample but no images of it.
    """

    labels: dict[str, str]
    where: str
    read: set[str]
    groups: dict[str, str]
    parts: list[str]


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
    samples: dict[str, list[str]] = {}
    for image, path in named.items():
        samples.setdefault(path, []).append(image)
    parts = [image for images in samples.values() for image in _parts(images)]
    named = {image: path for image, path in named.items() if image not in set(parts)}
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
        if number >= _TRIED and not labels and kind == ".json" and key is None:
            return None
    again = 2 * len(set(labels.values())) <= len(labels)  # or they are captions
    if not labels or not (again or kind == ".cls"):
        return None
    where = f"the {kind} file beside each image"
    where = where if key is None else f"'{printable(key)}' in {where}"
    groups = {image: path for image, path in named.items() if len(samples[path]) > 1}
    several = {path for path, count in Counter(groups.values()).items() if count > 1}
    groups = {image: posixpath.splitext(path)[0] for image, path in groups.items() if path in several}
    return Beside(labels, where, set(named.values()), groups, parts)


def _parts(images: list[str]) -> list[str]:
    """Those of a sample's images that are named like masks, beside others that are not: ``7.seg.png``."""
    found = [image for image in images if _PART.fullmatch(posixpath.splitext(image)[0].rpartition("/")[2])]
    return found if len(found) < len(images) else []


def _label(told: Any) -> str | None:
    if isinstance(told, bool | float) or not isinstance(told, str | int):
        return None
    text = str(told).strip()
    plain = text and "\n" not in text and len(text) <= _LONGEST and len(text.split()) <= _MOST_WORDS
    return printable(text) if plain and not _NUMBERS.fullmatch(text) else None


def as_one(place: Place, tree: Tree) -> Place | None:
    """The inside of a folder's numbered tar files, ``data-000000.tar`` and on; None where it holds others, or images.

    Tables beside them are files beside what the tar files hold. tree: the folder's. They may be several sets where
    their names, or folders, speak of splits: ``train-000000.tar`` and so on, and ``val.tar``.
    """
    tars = [path for path in tree.below() if path.lower().endswith(ENDINGS)]
    if place.filesystem is not None or len(tars) < 2 or tree.images():
        return None
    sets: dict[str, list[str]] = {}
    for path in tars:
        name = path[len(place.path) :].lstrip("/")
        sets.setdefault(_NUMBER.sub("#", name), []).append(name)
    splits = {name: shard_split(name.replace("/", " ")) for name in sets}
    alone = [splits[name] for name, paths in sets.items() if len(paths) == 1 and not _numbers(paths)]
    if not all(_follow_each_other(paths) for paths in sets.values() if _numbers(paths)):
        return None
    if len(sets) > 1 and None in splits.values():
        return None
    if any(list(splits.values()).count(split) > 1 for split in alone):  # train.tar and train_masks.tar
        return None
    tables = [path for path in tree.below() if may_be_table(path)]
    return Place(Archive(place.path, place.shown, (*tars, *tables)), "/", place.shown)


def holds_images(place: Place) -> bool:
    """Whether there are any in a folder's tar files. Raises UserError where one cannot be read."""
    assert isinstance(place.filesystem, Archive)
    return any(map(is_image, place.filesystem.names()))


def say_shards(place: Place, listing: Listing) -> None:
    """Say that tar files are read as one, and which are missing between them."""
    assert isinstance(place.filesystem, Archive)
    shards = [path for path in place.filesystem.shards if path.lower().endswith(ENDINGS)]
    listing.announce(f"its {len(shards)} tar files are read as one")
    sets: dict[str, list[str]] = {}
    for path in shards:
        sets.setdefault(_NUMBER.sub("#", path), []).append(path.rpartition("/")[2])
    for names in sets.values():
        lost, told = _missing(names)
        if lost:
            parts = so_many(len(lost), "is", "are")
            between = f"between {printable(bare(min(names)))} and {printable(bare(max(names)))}"
            of = f"that {printable(bare(min(names)))} is one of" if told else between
            listing.announce_warning(f"of the tar files {of} {parts} not there ({few(lost, _NAMED)})")


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


def _missing(names: list[str]) -> tuple[list[str], bool]:
    """Numbers of files of one name that are not there, and whether the names tell how many there are."""
    counted = [found for name in names if (found := _OF.search(bare(name))) is not None]
    totals = {int(found[2]) for found in counted}
    if len(counted) == len(names) and len(totals) == 1 and max(totals) <= _MOST_SHARDS:
        there, total = {int(found[1]) for found in counted}, max(totals)
        either = [] if there & {0, total} else [f"0 or {total}"]  # by what they are counted from
        between = range(0 if 0 in there else 1, total + 1 if total in there else total)
        return [*map(str, sorted(set(between) - there)), *either], True
    numbers = _numbers(map(bare, names))
    lost = sorted(set(range(numbers[0], numbers[-1] + 1)) - set(numbers)) if numbers else []
    return list(map(str, lost)), False
