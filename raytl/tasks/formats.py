"""Which files are images, by their endings, and which of these can be decoded here."""

from __future__ import annotations

import struct
import zlib
from pathlib import PurePosixPath

from PIL import Image

try:
    from pillow_heif import register_heif_opener

    register_heif_opener()
    HEIF: tuple[str, ...] = ("HEIF",)
except ImportError:
    HEIF = ()

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "JPEG2000", "PPM", "ICO", *HEIF)
_HEIC = frozenset({".heic", ".heif", ".heics", ".hif"})
_DICOM, _VOLUMES = frozenset({".dcm", ".dicom"}), frozenset({".nii", ".nii.gz", ".nrrd", ".mha"})
_PACKED = ".nii.gz"
# Pictures of kinds that nothing here reads; whoever has them is told so.
_FOREIGN = frozenset(
    {
        *(*_DICOM, *_VOLUMES, ".jxl", ".svg", ".psd", ".exr", ".hdr", ".jxr", ".wdp", ".ai"),
        *(".eps", ".tga", ".pcx", ".dds", ".icns", ".xcf", ".fits", ".fit", ".czi", ".lif", ".nd2", ".svs", ".ndpi"),
        *(".mrxs", ".icloud"),
        *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".raw"),
    }
)
_SUFFIXES = (
    _HEIC
    | _FOREIGN
    | frozenset(
        {
            *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif"),
            *(".avif", ".ico", ".jp2", ".j2k", ".j2c", ".jpx", ".jpf", ".ppm", ".pgm", ".pbm", ".pnm", ".apng", ".jif"),
        }
    )
)
HEIC_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"})
HEIC_NEEDED = "cannot be read (HEIC needs a package: pip install pillow-heif); install it or convert the image"
DICOM = "DICOM images are not read; convert them to PNG"
KNOWN = "give JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF or JPEG 2000"

# What Pillow raises for files that are damaged.
BROKEN = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, MemoryError),
    *(struct.error, zlib.error, Image.DecompressionBombError, RuntimeError),  # the last by Pillow's AVIF
)


def is_image(path: str) -> bool:
    """Whether a file's name has an ending of images, whether they can be read or not."""
    return _ending(path) in _SUFFIXES


def why_unread(path: str) -> str:
    """Why images with the ending of a file's name cannot be read, and what to do; empty where they may be."""
    ending = _ending(path)
    if ending in _DICOM:
        return DICOM
    if ending in _VOLUMES:
        return f"{ending} files hold volumes, which are not read; write their slices as PNG"
    if ending == ".icloud":
        return "it is still in iCloud; download it"
    if ending in _HEIC and not HEIF:
        return HEIC_NEEDED
    return f"{ending} images are not read; convert them to PNG or JPEG" if ending in _FOREIGN else ""


def _ending(path: str) -> str:
    return _PACKED if path.lower().endswith(_PACKED) else PurePosixPath(path).suffix.lower()


def is_dicom(data: bytes) -> bool:
    """Whether bytes are those of a DICOM file, which often has no ending."""
    return data[128:132] == b"DICM"
