"""Small pictures that are told apart easily, and folders of them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image


def picture(number: int, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> Image.Image:
    """A smooth random picture (smooth so that it survives JPEG); the same number gives the same picture."""
    channels = {"L": 1, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
    coarse = np.random.default_rng(number).integers(0, 256, (6, 6, channels), dtype=np.uint8)
    bands = [Image.fromarray(coarse[..., c]).resize(size, Image.Resampling.BICUBIC) for c in range(channels)]
    return bands[0] if mode == "L" else Image.merge(mode, bands)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def make_folder(root: Path, per_class: dict[str, int], *, mode: str = "RGB", first: int = 0) -> Path:
    """``class/0.png`` … under root, every picture different."""
    number = first
    for name, count in per_class.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            picture(number, mode=mode).save(root / name / f"{i}.png")
            number += 1
    return root


def empty_avif() -> bytes:
    """An AVIF file whose header is whole and whose pixels are zeros."""
    data = encoded(picture(0), "AVIF")
    start = data.index(b"mdat") + 4
    return data[:start] + bytes(len(data) - start)
