"""What a TIFF file says of its bands: which are colours, and what else it holds."""

from __future__ import annotations

import io

import numpy as np
from PIL import TiffImagePlugin

from raytl.tasks.formats import BROKEN

# How many bands a TIFF's photometric interpretation is of: grey, grey, palette, inks; else three.
_COLOURS = {0: 1, 1: 1, 3: 1, 5: 4}
_OLD_JPEG = 6  # a TIFF so compressed is of three bands of colour, whatever it says of them
_TRANSPARENCY = (1, 2, 999)  # premultiplied, not, and as Corel Draw writes it


def tags_of(data: bytes) -> TiffImagePlugin.ImageFileDirectory_v2 | None:
    """What a TIFF that Pillow does not decode says of its first page; None of anything else."""
    if not data.startswith((b"II*\x00", b"MM\x00*")):
        return None
    try:
        file = io.BytesIO(data)
        tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
        file.seek(tags.next)
        tags.load(file)
        describe_bands(tags)  # values are read when they are asked for
    except BROKEN:
        return None
    return tags


def count_bands(tags: TiffImagePlugin.ImageFileDirectory_v2) -> int:
    """How many a TIFF has."""
    return int(tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1))


def describe_bands(tags: TiffImagePlugin.ImageFileDirectory_v2) -> str:
    """How many a TIFF has, and what to do about it, as a sentence."""
    number, bits = count_bands(tags), tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
    depth = bits[0] if isinstance(bits, tuple) else bits
    wanted = "three of its bands as an 8-bit RGB" if number > 2 else "one of its bands as an 8-bit greyscale"
    return f"a TIFF image of {number} bands of {depth} bits; write {wanted} image"


def has_bands_beside(tags: TiffImagePlugin.ImageFileDirectory_v2) -> bool:
    """Whether a TIFF has bands that are neither colours nor its one of transparency.

    Pillow drops them, or takes one that is said to be something else (infrared, say) for transparency. One of eight
    bits of which nothing is said is transparency: so OpenCV writes it.
    """
    if tags.get(TiffImagePlugin.COMPRESSION) == _OLD_JPEG:
        return False
    colours = _COLOURS.get(tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 0), 3)
    said = tags.get(TiffImagePlugin.EXTRASAMPLES, ())
    eight = set(np.atleast_1d(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))).tolist()) == {8}
    transparency = 1 if (said[0] in _TRANSPARENCY if said else eight) else 0
    return count_bands(tags) > colours + transparency
