"""What one look at every image tells: size, mode, colour, and what to find duplicates by."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import isqrt
from typing import TypeVar

import numpy as np
from PIL import Image, ImageChops

from raytl.core.hashing import hash_bytes
from raytl.core.machine import cores
from raytl.tasks.decoding import is_greyscale
from raytl.tasks.images import ImageItem, Images
from raytl.tasks.rows import RowItem

THUMBNAIL = 16
_EVEN, _FRAME = 12, 32
"""Grey levels that the edges of a frame may differ by in themselves, and from which on something differs from them:
JPEG leaves traces beside what it frames."""
_FRAMED = 0.95  # of the area, that what is in a frame may have at most
_ROUND = 4096  # batches that are handed over at once, as one that waits takes memory too

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Facts:
    """About one image.

    width, height: pixels; mode: Pillow's, as the file has it; thumbnail: uint8 (16, 16), grey; colour: mean red, green
    and blue; pixels: hash of what was decoded, the same for any lossless encoding; kind: Pillow's name of the file's
    format, empty for images in memory; several: whether its file has further frames or pages; content: what there is
    within a frame of one colour, such as bars that made it a square, without a hash; None where there is no frame.
    """

    width: int
    height: int
    mode: str
    greyscale: bool
    thumbnail: np.ndarray = field(repr=False)
    colour: tuple[float, float, float]
    pixels: str = field(repr=False)
    kind: str = ""
    several: bool = False
    content: Facts | None = field(default=None, repr=False)


def facts_of(
    image: Image.Image,
    *,
    width: int = 0,
    height: int = 0,
    mode: str = "",
    kind: str = "",
    several: bool = False,
) -> Facts:
    """Facts about a decoded image; size and mode are the image's own unless its file is known to say otherwise."""
    thumbnail, colour = _small(image)
    greyscale = is_greyscale(image)
    content = image.convert("L") if greyscale else image
    box = _within_frame(content)
    framed = None
    if box is not None:
        inside = content.crop(box)
        framed = Facts(inside.width, inside.height, mode or image.mode, greyscale, *_small(inside), pixels="")
    return Facts(
        width=width or image.width,
        height=height or image.height,
        mode=mode or image.mode,
        greyscale=greyscale,
        thumbnail=thumbnail,
        colour=colour,
        pixels=hash_bytes(str((content.mode, content.size)).encode(), content.tobytes()),
        kind=kind,
        several=several,
        content=framed,
    )


def _small(image: Image.Image) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Thumbnail and mean colour."""
    # Bicubic: of Pillow's filters the one whose thumbnails change least when the picture is rescaled before.
    small = image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BICUBIC)
    red, green, blue = np.asarray(small.convert("RGB"), dtype=np.float64).mean(axis=(0, 1)).tolist()
    return np.asarray(small.convert("L")), (red, green, blue)


def _within_frame(image: Image.Image) -> tuple[int, int, int, int] | None:
    """Left, upper, right and lower end of what is not of the colour of two opposite edges; None without such a frame.

    Neither where next to nothing is in it, nor where it is a pixel or two wide: that hides no copy.
    """
    width, height = image.size
    if min(width, height) < THUMBNAIL:
        return None
    ends = (((0, 0, width, 1), (0, height - 1, width, height)), ((0, 0, 1, height), (width - 1, 0, width, height)))
    for pair in ends:
        lines = np.concatenate([np.asarray(image.crop(edge)).reshape(-1, len(image.getbands())) for edge in pair])
        if np.ptp(lines.astype(np.int16), axis=0).max() > _EVEN:
            continue
        colour = tuple(int(value) for value in np.median(lines, axis=0))
        step = max(1, isqrt(width * height >> 20))  # a large image is looked at in less memory than it has itself
        seen = image.reduce(step) if step > 1 else image
        plain = Image.new(seen.mode, seen.size, colour if len(colour) > 1 else colour[0])
        box = ImageChops.difference(seen, plain).point(lambda level: 255 * (level > _FRAME)).getbbox()
        if box is None:
            return None
        box = (box[0] * step, box[1] * step, min(box[2] * step, width), min(box[3] * step, height))
        inside = (box[2] - box[0], box[3] - box[1])
        if min(inside) >= THUMBNAIL and inside[0] * inside[1] < _FRAMED * width * height:
            return box
    return None


def survey(images: Images) -> list[Facts]:
    """Facts about images that are at hand already. Raises UserError for one that cannot be decoded."""

    def look(item: ImageItem) -> Facts:
        return facts_of(item.open())

    return threaded(look, images.items, in_order=any(isinstance(item, RowItem) for item in images.items))


def threaded(function: Callable[[A], B], values: Iterable[A], *, in_order: bool = False) -> list[B]:
    """``[function(value) for value in values]`` on threads: Pillow decodes, and files are read, without the GIL.

    in_order: whether each is begun when those before it were, as where they lie one behind the other.
    """
    todo = list(values)
    workers = min(16, 2 * cores())
    # In batches: handing over a small image costs more than decoding it.
    size = 1 if in_order else max(1, min(64, len(todo) // (4 * workers)))
    batches = [todo[start : start + size] for start in range(0, len(todo), size)]
    rounds = [batches[start : start + _ROUND] for start in range(0, len(batches), _ROUND)]
    with ThreadPoolExecutor(workers) as pool:
        return [
            result
            for some in rounds
            for results in pool.map(lambda batch: [function(value) for value in batch], some)
            for result in results
        ]
