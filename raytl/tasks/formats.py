"""Which files are images, by their endings, and which of these can be decoded here."""

from __future__ import annotations

import struct
import zlib

from PIL import Image

try:
    from pillow_heif import register_heif_opener

    register_heif_opener()
    HEIF: tuple[str, ...] = ("HEIF",)
except ImportError:
    HEIF = ()

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "JPEG2000", "PPM", "ICO", *HEIF)
HEIC_SUFFIXES = frozenset({".heic", ".heif", ".heics", ".hif"})
# Pictures of kinds that nothing here reads; whoever has them is told so.
FOREIGN_SUFFIXES = frozenset(
    {
        *(".jxl", ".svg", ".psd", ".exr", ".hdr", ".dcm", ".dicom", ".nii", ".nrrd", ".mha", ".jxr", ".wdp", ".ai"),
        *(
            ".eps",
            ".tga",
            ".pcx",
            ".dds",
            ".icns",
            ".xcf",
            ".fits",
            ".fit",
            ".czi",
            ".lif",
            ".nd2",
            ".svs",
            ".ndpi",
            ".mrxs",
        ),
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
HEIC_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"})
HEIC_NEEDED = "HEIC needs a package: pip install pillow-heif"
KNOWN = "give JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF or JPEG 2000"

# What Pillow raises for files that are damaged.
BROKEN = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, MemoryError),
    *(struct.error, zlib.error, Image.DecompressionBombError, RuntimeError),  # the last by Pillow's AVIF
)


def is_dicom(data: bytes) -> bool:
    """Whether bytes are those of a DICOM file, which often has no ending."""
    return data[128:132] == b"DICM"
