"""Folders of masks beside folders of images: pictures of where something is, which are no images of anything."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from raytl.core.names import printable, so_many
from raytl.tasks.formats import is_image
from raytl.tasks.readers.listing import Listing
from raytl.tasks.readers.tree import Tree

_MASKS = re.compile(
    r"(binary[_ -]?|segmentation[_ -]?)?masks?|trimaps?|segmentations?(class|object)?|ground[_ -]?truths?|gt"
    r"|annotations?",
    re.IGNORECASE,
)
IMAGES = re.compile(r"(jpe?g|png|raw|rgb)?[_ -]?(images?|imgs?|photos?|pictures?|originals?)|rgb", re.IGNORECASE)
_ALIKE = 0.8
"""Of the files in a folder of masks, the share at least that is named like an image beside it."""
_WORD = re.compile(r"[_ -]?(mask|segmentation|seg|gt|trimap)$", re.IGNORECASE)


def leave_masks_out(tree: Tree, listing: Listing | None = None) -> None:
    """Take the images in folders of masks out of a tree, and say so where there is a listing to say it in.

    Folders named like masks, whose files have the names of images beside them in a folder named like images; where
    another folder of images is beside these two they may be classes all the same. So is a class that is called
    ``mask`` beside one called ``no_mask``.
    """
    start, left = len(tree.path.rstrip("/")) + 1, list(_folders_of_masks(tree))
    count = sum(folder.images() for folder in left)
    for folder in left:
        _without_images(folder)
    if left and listing is not None:
        files = so_many(count, "file", "files")
        where = printable(left[0].path[start:]) + (", …" if len(left) > 1 else "")
        listing.announce_warning(
            f"{files} in {where} are named like the images beside them and taken for masks; left out"
        )


def _folders_of_masks(tree: Tree) -> Iterator[Tree]:
    full = {name: folder for name, folder in tree.folders.items() if folder.images()}
    known = all(IMAGES.fullmatch(name) or _MASKS.fullmatch(name) for name in full)
    beside = [folder for name, folder in full.items() if IMAGES.fullmatch(name)]
    images = {_stem(path) for folder in beside for path in _files(folder)} if known else set()
    for name, folder in full.items():
        stems = [_stem(path) for path in _files(folder)] if images and _MASKS.fullmatch(name) else []
        if stems and sum(stem in images for stem in stems) >= _ALIKE * len(stems):
            yield folder
        else:
            yield from _folders_of_masks(folder)


def _without_images(folder: Tree) -> None:
    folder.files = [path for path in folder.files if not is_image(path)]
    for below in folder.folders.values():
        _without_images(below)


def _files(folder: Tree) -> list[str]:
    return [path for path in folder.below() if is_image(path)]


def _stem(path: str) -> str:
    return _WORD.sub("", PurePosixPath(path).stem).lower()
