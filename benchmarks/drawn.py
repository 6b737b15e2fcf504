"""Pictures that the tasks are made of: letters and icons from the fonts inside matplotlib, and changes to images."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from raytl.tasks import LabelledImages
from raytl.tasks.items import PixelsItem

CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ICONS = {
    "anchor": "⚓", "cloud": "☁", "cup": "☕", "envelope": "✉", "flag": "⚑", "gear": "⚙", "heart": "♥",
    "phone": "☎", "plane": "✈", "scissors": "✂", "star": "★", "sun": "☀", "umbrella": "☂",
}  # fmt: skip
SANS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSansMono-Bold", "cmss10", "cmtt10",
)  # fmt: skip
SERIFS = ("DejaVuSerif", "DejaVuSerif-Italic", "STIXGeneral", "STIXGeneralBol", "cmr10")
OTHER_SERIFS = ("DejaVuSerif-Bold", "DejaVuSerif-BoldItalic", "STIXGeneralItalic", "STIXGeneralBolIta", "cmb10")
"""Faces that no training image of a task is drawn in whose training images are drawn in :data:`SERIFS`."""

_GLYPH = 64  # font size in pixels at which glyphs are drawn before they are bent
_SEGMENTS = {  # of a digit on a display: top, upper left, upper right, middle, lower left, lower right, bottom
    "0": "1110111", "1": "0010010", "2": "1011101", "3": "1011011", "4": "0111010",
    "5": "1101011", "6": "1101111", "7": "1010010", "8": "1111111", "9": "1111011",
}  # fmt: skip


@cache
def letters(name: str, faces: tuple[str, ...], per_class: int) -> LabelledImages:
    """Capital letters in ``faces``, 32x32, white on black, each bent a little; grouped by face."""
    return _drawn(name, {letter: [_glyph(face, letter) for face in faces] for letter in CAPITALS}, per_class)


@cache
def display_digits(per_class: int = 60) -> LabelledImages:
    """Digits of seven segments, bent like the letters."""
    return _drawn("display-digits", {digit: [_display(digit)] for digit in _SEGMENTS}, per_class)


@cache
def icons(style: str, per_class: int) -> LabelledImages:
    """Icons of 13 kinds, 48x48 RGB, in one style: a key of :data:`STYLES`."""
    faces = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono")
    glyphs = {name: [_glyph(face, sign) for face in faces] for name, sign in ICONS.items()}
    return _drawn(
        f"icons-{style}", glyphs, per_class, side=48, finish=STYLES[style], turn=180 if style == "turned" else 12
    )


def _drawn(
    name: str,
    glyphs: dict[str, list[Image.Image]],
    per_class: int,
    *,
    side: int = 32,
    turn: float = 12,
    finish: Callable[[Image.Image, np.random.Generator], np.ndarray] | None = None,
) -> LabelledImages:
    """``per_class`` bent versions of each sign, its glyphs in turn. turn: at most so many degrees."""
    rng = np.random.default_rng(hash_of(name))
    items, labels, groups = [], [], []
    for label, (sign, versions) in enumerate(glyphs.items()):
        for number in range(per_class):
            image = _bent(versions[number % len(versions)], rng, side, turn)
            pixels = finish(image, rng) if finish else np.asarray(image)
            items.append(PixelsItem(f"{sign} {number}", pixels.astype(np.uint8)))
            labels.append(label)
            groups.append(number % len(versions))
    return LabelledImages(name, items, np.array(groups), tuple(glyphs), np.array(labels, dtype=np.int64))


def hash_of(*parts: object) -> int:
    """A seed that is the same in every process."""
    return zlib.crc32("/".join(map(str, parts)).encode())


def _glyph(face: str, sign: str) -> Image.Image:
    font = ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", f"{face}.ttf"), _GLYPH)
    image = Image.new("L", (2 * _GLYPH, 2 * _GLYPH))
    ImageDraw.Draw(image).text((_GLYPH, _GLYPH), sign, fill=255, font=font, anchor="mm")
    return image.crop(image.getbbox())


def _display(digit: str) -> Image.Image:
    image = Image.new("L", (44, 76))
    draw = ImageDraw.Draw(image)
    boxes = [
        (8, 0, 36, 8),
        (0, 8, 8, 34),
        (36, 8, 44, 34),
        (8, 34, 36, 42),
        (0, 42, 8, 68),
        (36, 42, 44, 68),
        (8, 68, 36, 76),
    ]
    for box, lit in zip(boxes, _SEGMENTS[digit], strict=True):
        if lit == "1":
            draw.rectangle(box, fill=255)
    return image


def _bent(glyph: Image.Image, rng: np.random.Generator, side: int, turn: float) -> Image.Image:
    """Fit a glyph to a square of ``side`` pixels under one random affine map."""
    canvas = 2 * side  # drawn at twice the size and averaged, for smooth edges
    scale = canvas * rng.uniform(0.6, 0.85) / max(glyph.size)
    wide, high = scale * rng.uniform(0.85, 1.15), scale
    angle, shear = np.deg2rad(rng.uniform(-turn, turn)), rng.uniform(-0.2, 0.2)
    rotate = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    inverse = np.linalg.inv(rotate @ np.array([[1, shear], [0, 1]]) @ np.diag([wide, high]))
    centre = canvas / 2 + rng.uniform(-0.06, 0.06, 2) * canvas
    shift = np.array([glyph.width / 2, glyph.height / 2]) - inverse @ centre
    matrix = (*inverse[0], shift[0], *inverse[1], shift[1])
    bent = glyph.transform((canvas, canvas), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    return bent.reduce(2)


# --- styles of the icons: a white sign on black in, RGB out ----------------------------------------------------------


def _filled(sign: Image.Image, rng: np.random.Generator) -> np.ndarray:
    return 255 - np.repeat(np.asarray(sign)[..., None], 3, axis=2)


def _outline(sign: Image.Image, rng: np.random.Generator) -> np.ndarray:
    edge = np.asarray(sign.filter(ImageFilter.MaxFilter(3))).astype(int) - np.asarray(
        sign.filter(ImageFilter.MinFilter(3))
    )
    return 255 - np.repeat(np.clip(edge, 0, 255)[..., None], 3, axis=2)


def _coloured(sign: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """One colour on another, no nearer than can be told apart, under noise."""
    back = rng.uniform(0, 255, 3)
    fore = rng.uniform(0, 255, 3)
    while np.abs(fore - back).sum() < 200:
        fore = rng.uniform(0, 255, 3)
    cover = np.asarray(sign)[..., None] / 255
    return np.clip(back + cover * (fore - back) + rng.normal(0, 18, (*cover.shape[:2], 3)), 0, 255)


STYLES: dict[str, Callable[[Image.Image, np.random.Generator], np.ndarray]] = {
    "filled": _filled,
    "outline": _outline,
    "turned": _filled,
    "coloured": _coloured,
}


# --- what is done to images ------------------------------------------------------------------------------------------


def changed(images: LabelledImages, name: str, change: Callable[[np.ndarray], np.ndarray]) -> LabelledImages:
    """Every image's pixels through ``change``."""
    items = [PixelsItem(item.name, change(np.asarray(item.open()))) for item in images.items]
    return LabelledImages(name, items, images.groups, images.classes, images.labels)


def inverted(pixels: np.ndarray) -> np.ndarray:
    """Black for white."""
    return 255 - pixels


def halved(pixels: np.ndarray) -> np.ndarray:
    """Half as many pixels each way, averaged."""
    high, wide = pixels.shape[0] // 2, pixels.shape[1] // 2
    return np.rint(pixels.reshape(high, 2, wide, 2).mean((1, 3))).astype(np.uint8)


def permuted(images: LabelledImages, name: str) -> LabelledImages:
    """The same images and label names, each name on another class's images."""
    order = np.roll(np.arange(len(images.classes)), 1 + len(images.classes) // 3)
    return LabelledImages(name, images.items, images.groups, images.classes, order[images.labels])


def renamed(images: LabelledImages, name: str, groups: Sequence[Sequence[str]], names: Sequence[str]) -> LabelledImages:
    """Classes thrown together: those in ``groups[i]`` become ``names[i]``; the others' images are left out."""
    place = {old: new for new, olds in enumerate(groups) for old in olds}
    kept = [i for i, label in enumerate(images.labels) if images.classes[label] in place]
    labels = np.array([place[images.classes[images.labels[i]]] for i in kept], dtype=np.int64)
    return LabelledImages(name, [images.items[i] for i in kept], None, tuple(names), labels)
