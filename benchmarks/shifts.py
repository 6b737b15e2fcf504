"""What images without labels may have gone through: shifts that no export tries by itself."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy import ndimage

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def _hidden(share: float) -> Change:
    def change(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        side = max(1, round(share * len(pixels)))
        y, x = rng.integers(0, len(pixels) - side + 1, 2)
        pixels = pixels.copy()
        pixels[y : y + side, x : x + side] = 128
        return pixels

    return change


def _salted(share: float) -> Change:
    def change(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        drawn = rng.random(pixels.shape)
        return np.where(drawn < share / 2, 0, np.where(drawn > 1 - share / 2, 255, pixels)).astype(np.uint8)

    return change


def _smeared(share: float) -> Change:
    def change(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        width = max(2, round(share * pixels.shape[1]))
        return ndimage.uniform_filter1d(pixels.astype(float), width, axis=1).astype(np.uint8)

    return change


def _thicker(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.asarray(ndimage.grey_dilation(pixels, size=(2, 2)))


def _thinner(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.asarray(ndimage.grey_erosion(pixels, size=(2, 2)))


def _posterised(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (np.floor(pixels / 256 * 3) * 127.5).astype(np.uint8)


def striped(strength: float) -> Change:
    def change(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        lit = pixels.astype(float)
        lit[::3] += strength * 255
        return np.clip(lit, 0, 255).astype(np.uint8)

    return change


def _slanted(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    image, lean = Image.fromarray(pixels), rng.uniform(-0.35, 0.35)
    matrix = (1, lean, -lean * image.height / 2, 0, 1, 0)
    return np.asarray(image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR))


def _zoomed(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    image, cut = Image.fromarray(pixels), 0.1 * len(pixels)
    box = (cut, cut, image.width - cut, image.height - cut)
    return np.asarray(image.resize(image.size, Image.Resampling.BILINEAR, box))


def _mirrored(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.ascontiguousarray(pixels[:, ::-1])


def _inverted(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return 255 - pixels


def _compressed(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "JPEG", quality=5)
    return np.asarray(Image.open(written))


def _tilted(share: float) -> Change:
    """Seen from aside: each corner is up to so much of a side elsewhere."""

    def change(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        image = Image.fromarray(pixels)
        rows, wanted = [], []
        for corner in np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * image.size:
            x, y = corner
            u, v = corner + rng.uniform(-share, share, 2) * image.size
            rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
            wanted += [u, v]
        found = tuple(np.linalg.solve(np.array(rows, dtype=float), np.array(wanted)))
        return np.asarray(image.transform(image.size, Image.Transform.PERSPECTIVE, found, Image.Resampling.BILINEAR))

    return change


def _behind_bars(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    apart = max(4, pixels.shape[1] // 6)
    first, wide, barred = int(rng.integers(apart)), max(1, round(0.3 * apart)), pixels.copy()
    for column in range(wide):
        barred[:, (first + column) % apart :: apart] = 128
    return barred


def _other_ground(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Clouds wherever an image is as it is at its edge."""
    clouds = ndimage.gaussian_filter(rng.normal(0, 1, pixels.shape), rng.uniform(0.5, 4))
    clouds = 255 * (clouds - clouds.min()) / (np.ptp(clouds) + 1e-9)
    ground = float(np.median(np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])))
    cover = np.clip(np.abs(pixels - ground) / 100, 0, 1)
    return np.clip(cover * pixels + (1 - cover) * (ground + 0.5 * (clouds - ground)), 0, 255).astype(np.uint8)


def _moire(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    angle, wave = rng.uniform(0, np.pi), rng.uniform(1.8, 4)
    lit = 50 * np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / wave)
    return np.clip(pixels + lit, 0, 255).astype(np.uint8)


def _photographed(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A photograph of a print: paler, from aside, not quite sharp, noisy."""
    seen = _tilted(0.08)(np.clip(30 + 0.75 * pixels, 0, 255).astype(np.uint8), rng)
    return np.clip(ndimage.gaussian_filter(seen.astype(float), 0.7) + rng.normal(0, 8, seen.shape), 0, 255).astype(
        np.uint8
    )


def _lines_lost(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.random(pixels.shape[0])[:, None] < 0.3, 0, pixels).astype(np.uint8)


CHANGES: dict[str, Change] = {
    "hidden*": _hidden(0.25),
    "more hidden*": _hidden(0.4),
    "salted": _salted(0.05),
    "more salted": _salted(0.15),
    "smeared": _smeared(0.1),
    "more smeared": _smeared(0.3),
    "thicker": _thicker,
    "thinner": _thinner,
    "posterised": _posterised,
    "striped": striped(0.1),
    "more striped": striped(0.25),
    "slanted": _slanted,
    "zoomed*": _zoomed,
    "mirrored*": _mirrored,
    "inverted": _inverted,
    "compressed": _compressed,
    "tilted": _tilted(0.12),
    "more tilted": _tilted(0.25),
    "behind bars": _behind_bars,
    "other ground*": _other_ground,
    "moire": _moire,
    "photographed": _photographed,
    "lines lost": _lines_lost,
}
