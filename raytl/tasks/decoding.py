"""From the bytes of an image file to pixels, the same way for training, prediction and serving.

JPEG, PNG, WebP, BMP, TIFF and GIF (first frame or page), AVIF, JPEG 2000, PPM and ICO (the largest), and HEIC where
pillow-heif is installed. What comes out is upright (EXIF orientation applied) and of mode L or RGB.

Decoding takes at most 12 bytes a pixel: 1.1 GB for the largest image that is let in, and those beyond 16 megapixels
are decoded one at a time.
"""

from __future__ import annotations

import io
import logging
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from PIL import Image, ImageChops, ImageOps, TiffImagePlugin, UnidentifiedImageError

from raytl.core.errors import UserError
from raytl.tasks import icons

try:
    from pillow_heif import register_heif_opener

    register_heif_opener()
    _HEIF: tuple[str, ...] = ("HEIF",)
except ImportError:
    _HEIF = ()

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "JPEG2000", "PPM", "ICO", *_HEIF)
HEIC_SUFFIXES = frozenset({".heic", ".heif", ".heics", ".hif"})
# Pictures of kinds that nothing here reads; whoever has them is told so.
FOREIGN_SUFFIXES = frozenset(
    {
        *(
            ".jxl",
            ".svg",
            ".psd",
            ".exr",
            ".hdr",
            ".dcm",
            ".dicom",
            ".nii",
            ".nrrd",
            ".mha",
            ".jxr",
            ".wdp",
            ".ai",
            ".eps",
        ),
        *(".tga", ".pcx", ".dds", ".icns", ".xcf", ".fits", ".fit", ".czi", ".lif", ".nd2", ".svs", ".ndpi", ".mrxs"),
        ".icloud",
        *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".raw"),
    }
)
# Files with these suffixes are meant to be images, whether they can be read or not.
SUFFIXES = (
    HEIC_SUFFIXES
    | FOREIGN_SUFFIXES
    | frozenset(
        {
            *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif"),
            *(".avif", ".ico", ".jp2", ".j2k", ".j2c", ".jpx", ".jpf", ".ppm", ".pgm", ".pbm", ".pnm", ".apng", ".jif"),
        }
    )
)
# Formats of films, and of documents of pages: others hold further images as thumbnails or sizes.
_OF_FRAMES = ("GIF", "WEBP", "PNG", "TIFF", "AVIF")
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"})
HEIC_NEEDED = "HEIC needs a package: pip install pillow-heif"
KNOWN = "give JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF or JPEG 2000"

# Pillow's own warning level: a larger header is a decompression bomb or a scan that nobody meant to feed to a network.
MAX_PIXELS = 89_478_485
# A side as long as no scanner makes it costs memory by itself: row pointers, weights of the resizing filter.
MAX_SIDE = 262_144
# libjpeg decodes at 1/2, 1/4 or 1/8 for almost nothing; no network here reads more than this many pixels a side.
_DRAFT_SIDE = 1024
_LARGE = 16_000_000  # pixels
_TILE = 1024  # pixels a side: what needs several copies on its way is done in such squares
_FRACTIONS = 16.0  # floating-point pixels that reach further are counts
# How many bands a TIFF's photometric interpretation is of: grey, grey, palette, inks; else three.
_TIFF_COLOURS = {0: 1, 1: 1, 3: 1, 5: 4}
_OLD_JPEG = 6  # a TIFF so compressed is of three bands of colour, whatever it says of them
_TIFF_TRANSPARENCY = (1, 2, 999)  # premultiplied, not, and as Corel Draw writes it
_one_at_a_time = threading.Lock()

# What Pillow warns of (a damaged EXIF block, a huge header) is either harmless or becomes an error below; and a filter
# around each call, from several threads, would not be safe.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)  # says of each file what our error says

_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, MemoryError)
_BROKEN_BINARY = (struct.error, zlib.error, Image.DecompressionBombError, RuntimeError)  # the last by Pillow's AVIF


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
            if isinstance(image, TiffImagePlugin.TiffImageFile) and _has_bands_beside(image.tag_v2):
                raise UserError(f"{name}: {_bands(image.tag_v2)}")
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
    except (*_BROKEN, *_BROKEN_BINARY) as error:
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
    except (*_BROKEN, *_BROKEN_BINARY):
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
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS and not _HEIF:
        return f"{name}: cannot be read ({HEIC_NEEDED}); install it or convert the image"
    if data.startswith(b"version https://git-lfs"):
        return f"{name}: a pointer of Git LFS, not the image; fetch it with git lfs pull"
    if data[:200].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return f"{name}: a web page, not an image; download it again"
    if is_dicom(data):
        return f"{name}: DICOM images are not read; convert them to PNG"
    suffix = PurePosixPath(name).suffix.lower()
    if suffix == ".icloud":
        return f"{name}: it is still in iCloud; download it"
    tags = _tiff_tags(data)
    if tags is not None and _count(tags) > 1:
        return f"{name}: {_bands(tags)}"
    if suffix in HEIC_SUFFIXES and not _HEIF:
        return f"{name}: cannot be read ({HEIC_NEEDED}); install it or convert the image"
    if suffix in FOREIGN_SUFFIXES:
        return f"{name}: {suffix} images are not read; convert them to PNG or JPEG"
    return f"{name}: not an image that can be read; {KNOWN}"


def is_dicom(data: bytes) -> bool:
    """Whether bytes are those of a DICOM file, which often has no ending."""
    return data[128:132] == b"DICM"


def _tiff_tags(data: bytes) -> TiffImagePlugin.ImageFileDirectory_v2 | None:
    """What a TIFF that Pillow does not decode says of its first page; None of anything else."""
    if not data.startswith((b"II*\x00", b"MM\x00*")):
        return None
    try:
        file = io.BytesIO(data)
        tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
        file.seek(tags.next)
        tags.load(file)
        _bands(tags)  # values are read when they are asked for
    except (*_BROKEN, *_BROKEN_BINARY):
        return None
    return tags


def _count(tags: TiffImagePlugin.ImageFileDirectory_v2) -> int:
    return int(tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1))


def _bands(tags: TiffImagePlugin.ImageFileDirectory_v2) -> str:
    """How many a TIFF has, and what to do about it."""
    count, bits = _count(tags), tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
    depth = bits[0] if isinstance(bits, tuple) else bits
    wanted = "three of its bands as an 8-bit RGB" if count > 2 else "one of its bands as an 8-bit greyscale"
    return f"a TIFF image of {count} bands of {depth} bits; write {wanted} image"


def _has_bands_beside(tags: TiffImagePlugin.ImageFileDirectory_v2) -> bool:
    """Whether a TIFF has bands that are neither colours nor its one of transparency.

    Pillow drops them, or takes one that is said to be something else (infrared, say) for transparency. One of eight
    bits of which nothing is said is transparency: so OpenCV writes it.
    """
    if tags.get(TiffImagePlugin.COMPRESSION) == _OLD_JPEG:
        return False
    colours = _TIFF_COLOURS.get(tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 0), 3)
    said = tags.get(TiffImagePlugin.EXTRASAMPLES, ())
    eight = set(np.atleast_1d(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))).tolist()) == {8}
    transparency = 1 if (said[0] in _TIFF_TRANSPARENCY if said else eight) else 0
    return _count(tags) > colours + transparency


def _upright(image: Image.Image) -> Image.Image:
    """A copy, since the original closes with its file."""
    try:
        return ImageOps.exif_transpose(image)
    except (*_BROKEN, *_BROKEN_BINARY):
        return image.copy()  # a damaged EXIF block says nothing about the pixels


def _has_several(image: Image.Image) -> bool:
    """Whether a file holds more than the frame that was decoded; looking for it moves the file's position."""
    try:
        return image.format in _OF_FRAMES and bool(getattr(image, "is_animated", False))
    except (*_BROKEN, *_BROKEN_BINARY):
        return False  # a damaged second frame says nothing about the first


def _reduced(image: Image.Image) -> Image.Image:
    """Beyond 16 megapixels the means of square blocks, as libjpeg reduces, at least 1024 px a side."""
    if image.width * image.height <= _LARGE or min(image.size) < 2 * _DRAFT_SIDE:
        return image
    return image.reduce(min(image.size) // _DRAFT_SIDE)


def to_l_or_rgb(image: Image.Image) -> Image.Image:
    """An image that is decoded already as :func:`decode` gives it: transparency and more than 8 bits alike."""
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
