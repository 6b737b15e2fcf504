"""From the bytes of an image file to pixels, the same way for training, prediction and serving.

JPEG, PNG, WebP, BMP, TIFF and GIF (first frame or page), AVIF, JPEG 2000, PPM and ICO (the largest), and HEIC where
pillow-heif is installed. What comes out is upright (EXIF orientation applied) and of mode L or RGB.

Decoding takes at most 12 bytes a pixel: 1.1 GB for the largest image that is let in, and those beyond 16 megapixels
are decoded one at a time.
"""

from __future__ import annotations

import io
import logging
import threading
import warnings
from contextlib import nullcontext
from dataclasses import dataclass

from PIL import Image, ImageChops, ImageOps, TiffImagePlugin, UnidentifiedImageError

from raytl.core.errors import UserError
from raytl.tasks import icons
from raytl.tasks.eight_bits import to_l_or_rgb
from raytl.tasks.formats import (
    BROKEN,
    DICOM,
    FORMATS,
    HEIC_BRANDS,
    HEIC_NEEDED,
    HEIF,
    KNOWN,
    is_dicom,
    why_unread,
)
from raytl.tasks.tiff import count_bands, describe_bands, has_bands_beside, tags_of

# Formats of films, and of documents of pages: others hold further images as thumbnails or sizes.
_OF_FRAMES = ("GIF", "WEBP", "PNG", "TIFF", "AVIF")
# Pillow's own warning level: a larger header is a decompression bomb or a scan that nobody meant to feed to a network.
MAX_PIXELS = 89_478_485
# A side as long as no scanner makes it costs memory by itself: row pointers, weights of the resizing filter.
MAX_SIDE = 262_144
# libjpeg decodes at 1/2, 1/4 or 1/8 for almost nothing; no network here reads more than this many pixels a side.
_DRAFT_SIDE = 1024
_LARGE = 16_000_000  # pixels
_one_at_a_time = threading.Lock()

# What Pillow warns of (a damaged EXIF block, a huge header) is either harmless or becomes an error below; and a filter
# around each call, from several threads, would not be safe.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)  # says of each file what our error says


@dataclass(frozen=True)
class Decoded:
    """One image and what its file said.

    image: upright, mode L or RGB. Of a JPEG whose sides are both 2048 px or more, and of any other such image beyond
        16 megapixels, it is a reduced version, at least 1024 px a side.
    width, height: upright size of the full image in pixels.
    mode: Pillow's mode before conversion (``I;16``, ``CMYK``, …). kind: Pillow's name of the file's format.
    several: whether the file holds further frames or pages, of which this is the first.
    """

    image: Image.Image
    width: int
    height: int
    mode: str
    kind: str
    several: bool


class LargeImageError(Exception):
    """An image was not decoded: it has more pixels than it was allowed. pixels: that it would have in memory."""

    def __init__(self, pixels: int) -> None:
        super().__init__(f"{pixels} pixels")
        self.pixels = pixels


def decode(data: bytes, name: str, most_pixels: int | None = None) -> Image.Image:
    """The upright image, mode L or RGB.

    16-bit greyscale is scaled by 1/257, whatever range the image uses, so that brightness stays comparable between
    images. Transparent pixels show white; black where the image would not be seen on white.
    name: what the bytes are called in messages. most_pixels: in memory, as :func:`pixels_to_decode` counts them.
    Raises UserError naming the item where the bytes are empty, no image of a known format, truncated or too large, and
    LargeImageError where it has more than ``most_pixels``.
    """
    return decode_with_facts(data, name, most_pixels).image


def decode_with_facts(data: bytes, name: str, most_pixels: int | None = None) -> Decoded:
    """Like :func:`decode`, with the size and mode that the file declares."""
    if not data:
        raise UserError(f"{name}: the file is empty; replace it or leave it out")
    try:
        if data.startswith(icons.MAGIC):
            data = icons.largest(data)
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            mode, (width, height) = image.mode, image.size
            if isinstance(image, TiffImagePlugin.TiffImageFile) and has_bands_beside(image.tag_v2):
                raise UserError(f"{name}: {describe_bands(image.tag_v2)}")
            if width * height > MAX_PIXELS:
                raise _too_large(name)
            if max(width, height) > MAX_SIDE:
                raise UserError(f"{name}: the image is {max(width, height):,} pixels long; cut it into pieces first")
            _draft(image)
            if most_pixels is not None and image.width * image.height > most_pixels:
                raise LargeImageError(image.width * image.height)
            with _one_at_a_time if image.width * image.height > _LARGE else nullcontext():
                image.load()
                upright = _upright(image)
                if (upright.width > upright.height) != (image.width > image.height):
                    width, height = height, width
                reduced = _reduced(to_l_or_rgb(upright))
                return Decoded(reduced, width, height, mode, image.format or "", _has_several(image))
    except UnidentifiedImageError:
        raise UserError(_unknown(data, name)) from None
    except Image.DecompressionBombError:
        raise _too_large(name) from None
    except BROKEN as error:
        reason = str(error).strip().rstrip(".") or type(error).__name__
        raise UserError(f"{name}: the image is damaged ({reason}); replace it or leave it out") from None


def pixels_to_decode(data: bytes) -> int:
    """How many pixels :func:`decode` would have in memory, by what the file says of itself; 0 where it is no image.

    Reads the header only: some microseconds, whatever the size.
    """
    try:
        data = icons.largest(data) if data.startswith(icons.MAGIC) else data
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _draft(image)
            return image.width * image.height
    except BROKEN:
        return 0


def is_greyscale(image: Image.Image) -> bool:
    """Whether an image of mode L or RGB holds no colour (channels at most 2 of 255 apart)."""
    if image.mode == "L":
        return True
    # A coloured photograph is told apart by a few of its pixels; only a grey one has to be looked at as a whole.
    sample = image.resize((16, 16), Image.Resampling.NEAREST)
    return _spread(sample) <= 2 and _spread(image) <= 2


def _draft(image: Image.Image) -> None:
    """Let a large JPEG be decoded at a fraction of its size."""
    if image.format == "JPEG" and min(image.size) >= 2 * _DRAFT_SIDE:
        image.draft(None, (_DRAFT_SIDE, _DRAFT_SIDE))


def _spread(image: Image.Image) -> float:
    red, green, blue = image.split()
    return max(ImageChops.difference(red, green).getextrema()[1], ImageChops.difference(green, blue).getextrema()[1])  # type: ignore[type-var, return-value]


def _too_large(name: str) -> UserError:
    return UserError(f"{name}: the image has more than {MAX_PIXELS // 1_000_000} megapixels; scale it down first")


def _unknown(data: bytes, name: str) -> str:
    """Why bytes are no image of a known format."""
    if data[4:8] == b"ftyp" and data[8:12] in HEIC_BRANDS and not HEIF:
        return f"{name}: {HEIC_NEEDED}"
    if data.startswith(b"version https://git-lfs"):
        return f"{name}: a pointer of Git LFS, not the image; fetch it with git lfs pull"
    if data[:200].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return f"{name}: a web page, not an image; download it again"
    if is_dicom(data):
        return f"{name}: {DICOM}"
    tags = tags_of(data)
    if tags is not None and count_bands(tags) > 1:
        return f"{name}: {describe_bands(tags)}"
    return f"{name}: {why_unread(name) or f'not an image that can be read; {KNOWN}'}"


def _upright(image: Image.Image) -> Image.Image:
    """A copy, since the original closes with its file."""
    try:
        return ImageOps.exif_transpose(image)
    except BROKEN:
        return image.copy()  # a damaged EXIF block says nothing about the pixels


def _has_several(image: Image.Image) -> bool:
    """Whether a file holds more than the frame that was decoded; looking for it moves the file's position."""
    try:
        return image.format in _OF_FRAMES and bool(getattr(image, "is_animated", False))
    except BROKEN:
        return False  # a damaged second frame says nothing about the first


def _reduced(image: Image.Image) -> Image.Image:
    """Beyond 16 megapixels the means of square blocks, as libjpeg reduces, at least 1024 px a side."""
    if image.width * image.height <= _LARGE or min(image.size) < 2 * _DRAFT_SIDE:
        return image
    return image.reduce(min(image.size) // _DRAFT_SIDE)
