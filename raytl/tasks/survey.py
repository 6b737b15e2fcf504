"""What one look at every image tells: size, mode, colour, and what to find duplicates by."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from PIL import Image

from raytl.core.hashing import hash_bytes
from raytl.core.machine import cores
from raytl.tasks.decoding import is_greyscale
from raytl.tasks.images import ImageItem, Images
from raytl.tasks.rows import RowItem

THUMBNAIL = 16
_ROUND = 4096  # batches that are handed over at once, as one that waits takes memory too

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Facts:
    """About one image.

    width, height: pixels; mode: Pillow's, as the file has it; thumbnail: uint8 (16, 16), grey; colour: mean red, green
    and blue; pixels: hash of what was decoded, the same for any lossless encoding; kind: Pillow's name of the file's
    format, empty for images in memory; several: whether its file has further frames or pages.
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
    # Bicubic: of Pillow's filters the one whose thumbnails change least when the picture is rescaled before.
    small = image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BICUBIC)
    red, green, blue = np.asarray(small.convert("RGB"), dtype=np.float64).mean(axis=(0, 1)).tolist()
    greyscale = is_greyscale(image)
    content = image.convert("L") if greyscale else image
    return Facts(
        width=width or image.width,
        height=height or image.height,
        mode=mode or image.mode,
        greyscale=greyscale,
        thumbnail=np.asarray(small.convert("L")),
        colour=(red, green, blue),
        pixels=hash_bytes(str((content.mode, content.size)).encode(), content.tobytes()),
        kind=kind,
        several=several,
    )


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
