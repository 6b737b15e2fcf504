"""From the bytes of an image file to pixels, the same way for training, prediction and serving.

JPEG, PNG, WebP, BMP, TIFF and GIF (first frame or page). What comes out is upright (EXIF orientation applied) and of
mode L or RGB.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from raytl.core.errors import UserError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif"})

# Pillow's own warning level: a larger header is a decompression bomb or a scan that nobody meant to feed to a network.
MAX_PIXELS = 89_478_485
# libjpeg decodes at 1/2, 1/4 or 1/8 for almost nothing; no network here reads more than this many pixels a side.
_DRAFT_SIDE = 1024

# What Pillow warns of (a damaged EXIF block, a huge header) is either harmless or becomes an error below; and a filter
# around each call, from several threads, would not be safe.
warnings.filterwarnings("ignore", module=r"PIL\.")

_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, MemoryError)
_BROKEN_BINARY = (struct.error, zlib.error, Image.DecompressionBombError)


@dataclass(frozen=True)
class Decoded:
    """One image and what its file said.

    image: upright, mode L or RGB. Of a JPEG whose sides are both 2048 px or more it is a reduced version, at least
        1024 px a side.
    width, height: upright size of the full image in pixels.
    mode: Pillow's mode before conversion (``I;16``, ``CMYK``, …).
    """

    image: Image.Image
    width: int
    height: int
    mode: str


def decode(data: bytes, name: str) -> Image.Image:
    """The upright image, mode L or RGB.

    16-bit greyscale is scaled by 1/257, whatever range the image uses, so that brightness stays comparable between
    images. Transparent pixels show white; black where the image would not be seen on white.
    name: what the bytes are called in messages.
    Raises UserError naming the item where the bytes are empty, no image of a known format, truncated or too large.
    """
    return decode_with_facts(data, name).image


def decode_with_facts(data: bytes, name: str) -> Decoded:
    """Like :func:`decode`, with the size and mode that the file declares."""
    if not data:
        raise UserError(f"{name}: the file is empty; replace it or leave it out")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            mode, (width, height) = image.mode, image.size
            if width * height > MAX_PIXELS:
                raise _too_large(name)
            _reduce(image)
            image.load()
            upright = _upright(image)
            if (upright.width > upright.height) != (image.width > image.height):
                width, height = height, width
            return Decoded(_to_l_or_rgb(upright), width, height, mode)
    except UnidentifiedImageError:
        raise UserError(f"{name}: not an image that can be read; give JPEG, PNG, WebP, BMP, TIFF or GIF") from None
    except Image.DecompressionBombError:
        raise _too_large(name) from None
    except (*_BROKEN, *_BROKEN_BINARY) as error:
        reason = str(error).strip().rstrip(".") or type(error).__name__
        raise UserError(f"{name}: the image is damaged ({reason}); replace it or leave it out") from None


def pixels_to_decode(data: bytes) -> int:
    """How many pixels :func:`decode` would have in memory, by what the file says of itself; 0 where it is no image.

    Reads the header only: some microseconds, whatever the size.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _reduce(image)
            return image.width * image.height
    except (*_BROKEN, *_BROKEN_BINARY):
        return 0


def is_greyscale(image: Image.Image) -> bool:
    """Whether an image of mode L or RGB holds no colour (channels at most 2 of 255 apart)."""
    if image.mode == "L":
        return True
    # A coloured photograph is told apart by a few of its pixels; only a grey one has to be looked at as a whole.
    sample = image.resize((16, 16), Image.Resampling.NEAREST)
    return _spread(sample) <= 2 and _spread(image) <= 2


def _reduce(image: Image.Image) -> None:
    """Let a large JPEG be decoded at a fraction of its size."""
    if image.format == "JPEG" and min(image.size) >= 2 * _DRAFT_SIDE:
        image.draft(None, (_DRAFT_SIDE, _DRAFT_SIDE))


def _spread(image: Image.Image) -> float:
    red, green, blue = image.split()
    return max(ImageChops.difference(red, green).getextrema()[1], ImageChops.difference(green, blue).getextrema()[1])  # type: ignore[type-var, return-value]


def _too_large(name: str) -> UserError:
    return UserError(f"{name}: the image has more than {MAX_PIXELS // 1_000_000} megapixels; scale it down first")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except (*_BROKEN, *_BROKEN_BINARY):
        return image  # a damaged EXIF block says nothing about the pixels


def _to_l_or_rgb(image: Image.Image) -> Image.Image:
    if image.mode in {"L", "RGB"} and "transparency" not in image.info:
        return image.copy()  # a copy, since the original closes with its file
    if image.mode == "1":
        return image.convert("L")
    if image.mode.startswith(("I", "F")):
        return _deep_to_l(image)
    if image.has_transparency_data:
        return _on_background(image.convert("LA" if image.mode in {"L", "LA", "La"} else "RGBA"))
    return image.convert("RGB")


def _deep_to_l(image: Image.Image) -> Image.Image:
    """More than 8 bits of grey to 8: by the range of the type, or of the values where the type has no natural range."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if image.mode.startswith("I;16"):
        top = 65535.0
    elif image.mode == "F" and low >= 0 and high <= 1:
        top = 1.0
    else:
        values = values - min(low, 0.0)
        top = max(high - min(low, 0.0), 1.0)
        top = next((limit for limit in (255.0, 65535.0) if top <= limit), top)
    return Image.fromarray(np.rint(values * (255.0 / top)).astype(np.uint8))


def _on_background(image: Image.Image) -> Image.Image:
    """Composite LA or RGBA on white, or on black where the shape would vanish on white (white glyphs on nothing)."""
    alpha = image.getchannel("A")
    opaque = image.convert(image.mode[:-1])
    on_white = Image.composite(opaque, Image.new(opaque.mode, opaque.size, "white"), alpha)
    darkest, brightest = on_white.convert("L").getextrema()
    if brightest - darkest >= 16:  # type: ignore[operator]
        return on_white
    return Image.composite(opaque, Image.new(opaque.mode, opaque.size, "black"), alpha)
