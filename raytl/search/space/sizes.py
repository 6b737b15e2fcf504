"""How a source model is shown images beside the space's own way: to their edges, at more pixels, in pieces."""

from __future__ import annotations

from raytl import sources
from raytl.sources import SourceInfo
from raytl.tasks import TrainingData
from raytl.training.material import round_up

LARGER = (224, 160, 128)
"""Sides in pixels of which a larger one is tried than a space asks for."""
CLOSER = (320, 448)
"""Sides that are tried beyond what a network was made for."""
PIECES = ((3, 96), (3, 128))
"""How many pieces of an image a side are tried, and the side of each in pixels."""
LEAST_LARGER = 1.25
"""Times the side before it that is worth trying."""
LEAST_CLOSER = 1.33
"""Times the side of all pieces that images must have: in smaller ones nearly all of them is seen whole."""
_OF_ONE_SIZE = ("pretrain:", "scratch:", "plain:")


def squashed(uri: str, known: SourceInfo, most: int) -> str | None:
    """A source model that is shown the middle of images, at as many pixels with all of them in view; None of others.

    most: as for :func:`larger`; where that is 0, images are shown in no other way than the space's.
    """
    if not most or not known.pretrained or not known.crops or uri.startswith(_OF_ONE_SIZE):
        return None
    return sources.at_size(uri, known.image_size, squash=True)


def larger(uri: str, known: SourceInfo, data: TrainingData, most: int) -> list[tuple[str, float]]:
    """A source model at more pixels than in its space, and how many times as many; the most first.

    Published weights, up to the side that they were made for and that the space allows, as far as the target's images
    have that much to show. known: what is known of the model at the space's size. most: side in pixels that the space
    allows.
    """
    most = _most_pixels(uri, known, data, most)
    own = sources.info(uri, channels=data.channels).image_size if most else 0
    wished = (_whole_patches(size, known) for size in LARGER)
    sides = [size for size in wished if LEAST_LARGER * known.image_size <= size <= min(own, most)]
    return [(sources.at_size(uri, size), (size / known.image_size) ** 2) for size in sides]


def closer(uri: str, known: SourceInfo, data: TrainingData, most: int) -> list[tuple[str, float]]:
    """A source model at more pixels than it was made for, and on pieces of the images as they are; the fewest first.

    Pieces only of images of which they are not nearly all there is to see. Otherwise as :func:`larger`.
    """
    most = _most_pixels(uri, known, data, most)
    own = sources.info(uri, channels=data.channels).image_size if most else 0
    wished = (_whole_patches(size, known) for size in CLOSER)
    sides = [(size, 1) for size in wished if LEAST_LARGER * max(own, known.image_size) <= size <= most]
    shown = (data.piece_side or 0) / LEAST_CLOSER
    pieces = [(tiles * side, tiles) for tiles, side in PIECES if _whole_patches(tiles * side, known) == tiles * side]
    sides += [(size, tiles) for size, tiles in pieces if size <= min(most, shown)]
    return [(sources.at_size(uri, size, tiles), (size / known.image_size) ** 2) for size, tiles in sorted(sides)]


def _whole_patches(side: int, known: SourceInfo) -> int:
    """The largest side up to a wished one that the network takes: it may see images in patches only."""
    return side - side % known.patch if known.patch else side


def _most_pixels(uri: str, known: SourceInfo, data: TrainingData, most: int) -> int:
    """The largest side that a source model may be tried at; 0 where it takes only one."""
    side = data.target_side
    if not known.pretrained or known.fixed_size or side is None or uri.startswith(_OF_ONE_SIZE):
        return 0
    return min(round_up(side), most)
