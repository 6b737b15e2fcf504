"""Folders of masks beside folders of images: pictures of where something is, which are no images of anything."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from raytl.tasks.readers.listing import Listing, printable
from raytl.tasks.readers.tree import Tree, is_image

_MASKS = re.compile(
    r"(binary[_ -]?|segmentation[_ -]?)?masks?|trimaps?|segmentations?(class|object)?|ground[_ -]?truths?|gt"
    r"|annotations?",
    re.IGNORECASE,
)
_IMAGES = re.compile(r"(jpe?g|png|raw|rgb)?[_ -]?(images?|imgs?|photos?|pictures?|originals?)|rgb", re.IGNORECASE)
_ALIKE = 0.8
"""Of the files in a folder of masks, the share at least that is named like an image beside it."""
_WORD = re.compile(r"[_ -]?(mask|segmentation|seg|gt|trimap)$", re.IGNORECASE)


def leave_masks_out(tree: Tree, listing: Listing) -> None:
    """Take folders of masks out of a tree and say so: named like masks, beside images whose names their files have.

    A class that is called ``mask``, beside one called ``no_mask``, is none of these: its neighbour is not called
    ``images``.
    """
    start, left = len(tree.path.rstrip("/")) + 1, []
    for above, name in list(_folders_of_masks(tree)):
        left.append(above.folders.pop(name))
    if left:
        count = sum(folder.images() for folder in left)
        files = "1 file" if count == 1 else f"{count} files"
        where = printable(left[0].path[start:]) + (", …" if len(left) > 1 else "")
        listing.announce_warning(
            f"{files} in {where} are named like the images beside them and taken for masks; left out"
        )


def _folders_of_masks(tree: Tree) -> Iterator[tuple[Tree, str]]:
    """The folder that each lies in, and its name there."""
    images = {
        _stem(path) for name, folder in tree.folders.items() if _IMAGES.fullmatch(name) for path in _files(folder)
    }
    for name, folder in tree.folders.items():
        if images and _MASKS.fullmatch(name):
            stems = [_stem(path) for path in _files(folder)]
            if stems and sum(stem in images for stem in stems) >= _ALIKE * len(stems):
                yield tree, name
                continue
        yield from _folders_of_masks(folder)


def _files(folder: Tree) -> list[str]:
    return [path for path in folder.below() if is_image(path)]


def _stem(path: str) -> str:
    return _WORD.sub("", PurePosixPath(path).stem).lower()
