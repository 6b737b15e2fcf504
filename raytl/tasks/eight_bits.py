"""Pixels of any kind to 8 bits of grey or colour: deeper ones, fractions, and what lies behind transparent ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

_TILE = 1024  # pixels a side: what needs several copies on its way is done in such squares
_FRACTIONS = 16.0  # floating-point pixels that reach further are counts


def to_l_or_rgb(image: Image.Image) -> Image.Image:
    """A decoded image as :func:`raytl.tasks.decoding.decode` gives it: transparency and more than 8 bits alike."""
    if image.mode in {"L", "RGB"} and "transparency" not in image.info:
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode.startswith(("I", "F")):
        return _deep_to_l(image)
    if image.has_transparency_data:
        return _on_background(image, "LA" if image.mode in {"L", "LA", "La"} else "RGBA")
    return image.convert("RGB")


def _deep_to_l(image: Image.Image) -> Image.Image:
    """More than 8 bits of grey to 8: by the range of the type, or of the values where the type has no natural range.

    Fractions have one of a few ranges, so that images of a kind remain comparable.
    """

    def values(tile: Image.Image) -> np.ndarray:
        return np.nan_to_num(np.asarray(tile, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)

    extrema = [(float(found.min()), float(found.max())) for found in map(values, _tiles(image))]
    low, high = min(low for low, _ in extrema), max(high for _, high in extrema)
    shift = 0.0
    if image.mode.startswith("I;16"):
        top = 65535.0
    elif (
        image.mode == "F"
        and low >= -_FRACTIONS
        and high <= _FRACTIONS
        and not all(map(_is_whole, map(values, _tiles(image))))
    ):
        shift, top = _range_of_fractions(low, high)
    else:
        shift = min(low, 0.0)
        top = max(high - shift, 1.0)
        top = next((limit for limit in (255.0, 65535.0) if top <= limit), top)

    def scaled(tile: Image.Image) -> Image.Image:
        return Image.fromarray(np.rint(((values(tile) - shift) * (255.0 / top)).clip(0, 255)).astype(np.uint8))

    return _by_tiles(image, "L", scaled)


def _range_of_fractions(low: float, high: float) -> tuple[float, float]:
    """What becomes black, and how far above it is white. Resampling leaves a little beyond; outliers are cut off."""
    if low >= -0.05:
        return 0.0, 1.0 if high <= 1.25 else _FRACTIONS
    if low >= -1.25 and high <= 1.25:
        return -1.0, 2.0
    return -4.0, 8.0  # as of values less their mean, over their deviation


def _is_whole(values: np.ndarray) -> bool:
    return bool((values == np.rint(values)).all())


def _on_background(image: Image.Image, mode: str) -> Image.Image:
    """Composite on white, or on black where the shape would vanish on white (white glyphs on nothing).

    mode: LA or RGBA, to convert to first.
    """

    def laid_on(colour: str) -> Callable[[Image.Image], Image.Image]:
        def laid(tile: Image.Image) -> Image.Image:
            tile = tile.convert(mode)
            opaque = tile.convert(mode[:-1])
            return Image.composite(opaque, Image.new(opaque.mode, opaque.size, colour), tile.getchannel("A"))

        return laid

    on_white = _by_tiles(image, mode[:-1], laid_on("white"))
    extrema = [tile.convert("L").getextrema() for tile in _tiles(on_white)]
    darkest, brightest = min(low for low, _ in extrema), max(high for _, high in extrema)  # type: ignore[type-var]
    if brightest - darkest >= 16:  # type: ignore[operator]
        return on_white
    del on_white
    return _by_tiles(image, mode[:-1], laid_on("black"))


def _boxes(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    for top in range(0, image.height, _TILE):
        for left in range(0, image.width, _TILE):
            yield left, top, min(left + _TILE, image.width), min(top + _TILE, image.height)


def _tiles(image: Image.Image) -> Iterator[Image.Image]:
    return (image.crop(box) for box in _boxes(image))


def _by_tiles(image: Image.Image, mode: str, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """``convert`` of an image, done in squares."""
    whole = Image.new(mode, image.size)
    for box in _boxes(image):
        whole.paste(convert(image.crop(box)), box)
    return whole
