"""The built-in task: handwritten digits with five labels a class, and three source domains to choose from.

Real data, no download: the target comes with scikit-learn, the printed domains are rendered from the font files that
ship inside matplotlib, the textures are formulas.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from raytl.core.seeding import derive_seed
from raytl.tasks.build import Task
from raytl.tasks.given import DEMO
from raytl.tasks.images import Images, LabelledImages
from raytl.tasks.items import PixelsItem

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

DIGITS = "0123456789"
# Capitals, and the small letters whose shape is not that of their capital (the choice of EMNIST's balanced split).
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt"

_POOL = 1197  # of the 1,797 digits; the rest is the test split
_LABELS_PER_CLASS = 5
_SIDE = 32  # pixels of a source-domain image
_GLYPH = 64  # font size in pixels at which glyphs are drawn before they are jittered


def demo_task(seed: int = 0) -> Task:
    """Digits: 50 labelled, 1,147 unlabelled, 600 in the sealed test, and three source domains.

    seed: draws the five labelled images per class from the pool; all else is the same for all seeds.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # 8x8, 0..16
    labels = digits.target.astype(np.int64)
    items = [PixelsItem(f"digit {i}", image) for i, image in enumerate(pixels)]
    rng = np.random.default_rng(derive_seed("demo labels", seed))
    drawn = [rng.choice(np.flatnonzero(labels[:_POOL] == k), _LABELS_PER_CLASS, replace=False) for k in range(10)]
    labelled = np.sort(np.concatenate(drawn))
    rest = np.setdiff1d(np.arange(_POOL), labelled)

    everything = LabelledImages("digits", items, None, tuple(DIGITS), labels)
    task = Task(
        target=everything.subset(labelled),
        source_domain=[
            ("printed-digits", printed_digits()),
            ("printed-letters", printed_letters()),
            ("textures", textures()),
        ],
        unlabelled=Images("unlabelled digits", [items[i] for i in rest]),
        test=everything.subset(np.arange(_POOL, len(items))),
        name="digits",
        seed=seed,
    )
    task.given = {DEMO: seed}
    return task


@cache
def printed_digits() -> LabelledImages:
    """2,000 digits in the fonts of matplotlib, 32x32, white on black, mildly jittered."""
    return _printed("printed-digits", DIGITS, 200)


@cache
def printed_letters() -> LabelledImages:
    """2,590 letters of 37 classes, rendered like the digits."""
    return _printed("printed-letters", LETTERS, 70)


@cache
def textures() -> LabelledImages:
    """1,500 textures of ten kinds, 32x32: a source domain that has nothing to do with digits."""
    rng = np.random.default_rng(derive_seed("demo", "textures"))
    kinds = tuple(sorted(_TEXTURES))
    items, labels = [], []
    for label, kind in enumerate(kinds):
        for number in range(150):
            wave = _TEXTURES[kind](rng)
            grey = 0.5 + 0.5 * wave * rng.uniform(0.6, 1.0) + rng.normal(0.0, 0.05, wave.shape)
            items.append(PixelsItem(f"{kind} {number}", np.rint(np.clip(grey, 0, 1) * 255).astype(np.uint8)))
            labels.append(label)
    return LabelledImages("textures", items, None, kinds, np.array(labels, dtype=np.int64))


def _printed(name: str, characters: str, per_class: int) -> LabelledImages:
    rng = np.random.default_rng(derive_seed("demo", name))
    fonts = _usable_fonts(characters)
    glyphs = [[_cropped(_draw(font, character)) for font in fonts] for character in characters]
    items, labels = [], []
    for label, character in enumerate(characters):
        for number in range(per_class):
            glyph = glyphs[label][int(rng.integers(len(fonts)))]
            items.append(PixelsItem(f"{character} {number}", _jittered(glyph, rng)))
            labels.append(label)
    return LabelledImages(name, items, None, tuple(characters), np.array(labels, dtype=np.int64))


def _usable_fonts(characters: str) -> list[FreeTypeFont]:
    """The fonts of matplotlib that really have all the characters, in the order of their file names."""
    import matplotlib

    usable = []
    for path in sorted(Path(matplotlib.get_data_path(), "fonts", "ttf").glob("*.ttf")):
        # Symbol fonts put other signs at the places of digits and letters, which no look at the file can tell.
        if path.name.startswith(("LastResort", "cmex", "cmsy")) or "Display" in path.name:
            continue
        font = ImageFont.truetype(path, _GLYPH)
        missing = {_draw(font, unassigned).tobytes() for unassigned in ("\ue123", "\uf7fe")}
        drawn = {_draw(font, character).tobytes() for character in characters}
        blank = Image.new("L", (_GLYPH * 3 // 2,) * 2).tobytes()
        if len(drawn) == len(characters) and not drawn & (missing | {blank}):
            usable.append(font)
    return usable


def _draw(font: FreeTypeFont, character: str) -> Image.Image:
    side = _GLYPH * 3 // 2
    image = Image.new("L", (side, side))
    ImageDraw.Draw(image).text((side // 2, side // 2), character, fill=255, font=font, anchor="mm")
    return image


def _cropped(image: Image.Image) -> Image.Image:
    return image.crop(image.getbbox())


def _jittered(glyph: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """Fit the glyph to the image's height and bend it by one random affine map; uint8 (32, 32)."""
    side = 2 * _SIDE  # drawn at twice the size and averaged, for smooth edges
    height = side * rng.uniform(0.78, 1.0)
    width = min(height * glyph.width / glyph.height * rng.uniform(0.85, 1.25), side * 0.95)
    angle, shear = np.deg2rad(rng.uniform(-12, 12)), rng.uniform(-0.2, 0.2)
    rotate = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    scale = np.diag([width / glyph.width, height / glyph.height])
    inverse = np.linalg.inv(rotate @ np.array([[1, shear], [0, 1]]) @ scale)
    centre = side / 2 + rng.uniform(-0.05, 0.05, 2) * side
    shift = np.array([glyph.width / 2, glyph.height / 2]) - inverse @ centre
    matrix = (*inverse[0], shift[0], *inverse[1], shift[1])
    bent = glyph.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    return np.asarray(bent.reduce(2), dtype=np.uint8)


_V, _U = np.mgrid[0:_SIDE, 0:_SIDE].astype(np.float64)


def _along(rng: np.random.Generator, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Phases along and across a direction near ``angle``, in radians per pixel of a random frequency."""
    angle += rng.uniform(-0.2, 0.2)
    frequency, (first, second) = rng.uniform(0.25, 0.65), rng.uniform(0, 2 * np.pi, 2)
    along = frequency * (_U * np.cos(angle) + _V * np.sin(angle)) + first
    return along, frequency * (-_U * np.sin(angle) + _V * np.cos(angle)) + second


def _stripes(rng: np.random.Generator, angle: float) -> np.ndarray:
    return np.asarray(np.sin(_along(rng, angle)[0]))


def _grid(rng: np.random.Generator) -> np.ndarray:
    along, across = _along(rng, 0.0)
    return np.asarray(np.sin(along) * np.sin(across))


def _dots(rng: np.random.Generator) -> np.ndarray:
    image = np.full((_SIDE, _SIDE), -1.0)
    image[rng.integers(_SIDE, size=40), rng.integers(_SIDE, size=40)] = 1.0
    return image


def _rings(rng: np.random.Generator) -> np.ndarray:
    x, y = rng.uniform(0.2, 0.8, 2) * _SIDE
    return np.asarray(np.sin(rng.uniform(0.4, 1.0) * np.hypot(_U - x, _V - y) + rng.uniform(0, 2 * np.pi)))


def _gradient(rng: np.random.Generator) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi)
    x, y = rng.uniform(0.2, 0.8, 2) * _SIDE
    ramp = (_U - x) * np.cos(angle) + (_V - y) * np.sin(angle)
    return np.asarray(np.tanh(ramp * rng.uniform(0.05, 0.4)))


_TEXTURES = {
    "stripes-vertical": lambda rng: _stripes(rng, 0.0),
    "stripes-horizontal": lambda rng: _stripes(rng, np.pi / 2),
    "stripes-diagonal": lambda rng: _stripes(rng, np.pi / 4),
    "grid": _grid,
    "checkers": lambda rng: np.sign(_grid(rng)),
    "noise": lambda rng: rng.normal(size=(_SIDE, _SIDE)),
    "blocks": lambda rng: np.kron(rng.normal(size=(_SIDE // 4, _SIDE // 4)), np.ones((4, 4))),
    "dots": _dots,
    "rings": _rings,
    "gradient": _gradient,
}
