"""What images are like, in a few numbers that no training has touched.

A network's own features are no witness for whether new images differ: it was trained on the images that it would
compare them with, and knows those better. These statistics are the same for images that trained it and for others.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

SIDE = 64
"""Pixels; larger images are averaged down to about this first."""
GRID = 4
ORIENTATIONS = 8
WIDTH = 2 * 3 + 3 + ORIENTATIONS + GRID * GRID
AT_ONCE = 64
"""Images that are in memory as floating point numbers; there may be more of them than the memory holds."""


def image_statistics(images: np.ndarray) -> np.ndarray:
    """Statistics (n, :data:`WIDTH`), float32, of uint8 images (n, channels, s, s), channels 1 or 3.

    By channel mean and standard deviation; how rough they are at three scales (which noise raises and blur lowers); the
    directions of edges; and brightness on a coarse grid.
    """
    return _by_parts(_statistics, images, WIDTH)


def _by_parts(function: Callable[[np.ndarray], np.ndarray], images: np.ndarray, width: int) -> np.ndarray:
    """The function's rows (n, width) of all images, float32."""
    found = np.empty((len(images), width), dtype=np.float32)
    for first in range(0, len(images), AT_ONCE):
        found[first : first + AT_ONCE] = function(images[first : first + AT_ONCE])
    return found


def _statistics(images: np.ndarray) -> np.ndarray:
    pixels = _averaged(images)
    n = len(pixels)
    if pixels.shape[1] == 1:
        pixels = np.repeat(pixels, 3, axis=1)
    grey = pixels.mean(axis=1)
    found = [pixels.mean(axis=(2, 3)), pixels.std(axis=(2, 3))]
    layer = grey
    for _ in range(3):
        found.append(np.log1p(255.0 * _roughness(layer))[:, None])
        layer = _halved(layer)
    dy, dx = grey[:, 1:, :-1] - grey[:, :-1, :-1], grey[:, :-1, 1:] - grey[:, :-1, :-1]
    strength, angle = np.hypot(dx, dy), np.arctan2(dy, dx) % np.pi
    numbers = np.minimum((angle * (ORIENTATIONS / np.pi)).astype(np.int64), ORIENTATIONS - 1)
    total = strength.sum(axis=(1, 2)) + 1e-6
    found += [((strength * (numbers == o)).sum(axis=(1, 2)) / total)[:, None] for o in range(ORIENTATIONS)]
    rows = np.array_split(grey, GRID, axis=1)
    found += [
        part.mean(axis=(1, 2))[:, None] if part.size else np.zeros((n, 1))
        for row in rows
        for part in np.array_split(row, GRID, axis=2)
    ]
    return np.concatenate(found, axis=1)


def _averaged(images: np.ndarray) -> np.ndarray:
    """Float32 in [0, 1], by whole steps down to at most twice :data:`SIDE`."""
    step = max(1, images.shape[2] // SIDE)
    n, channels = images.shape[:2]
    side = images.shape[2] // step
    cut = images[:, :, : side * step, : side * step].astype(np.float32) / 255.0
    return np.asarray(cut.reshape(n, channels, side, step, side, step).mean(axis=(3, 5))) if step > 1 else cut


def _halved(grey: np.ndarray) -> np.ndarray:
    side = grey.shape[1] // 2 * 2
    if side < 4:
        return grey
    return np.asarray(grey[:, :side, :side].reshape(len(grey), side // 2, 2, side // 2, 2).mean(axis=(2, 4)))


def _roughness(grey: np.ndarray) -> np.ndarray:
    """Mean absolute second difference, both ways: (n,)."""
    if grey.shape[1] < 3:
        return np.zeros(len(grey), dtype=grey.dtype)
    down = np.abs(grey[:, 2:] - 2 * grey[:, 1:-1] + grey[:, :-2]).mean(axis=(1, 2))
    across = np.abs(grey[:, :, 2:] - 2 * grey[:, :, 1:-1] + grey[:, :, :-2]).mean(axis=(1, 2))
    return np.asarray((down + across) / 2)


THUMBNAIL = 8


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Grey thumbnails (n, 64), float32 in [0, 1], of uint8 images (n, channels, s, s)."""
    return _by_parts(_thumbnails, images, THUMBNAIL**2)


def _thumbnails(images: np.ndarray) -> np.ndarray:
    side = images.shape[2]
    grey = images.astype(np.float32).mean(axis=1) / 255.0
    borders = [i * side // THUMBNAIL for i in range(THUMBNAIL + 1)]
    edges = [(start, max(end, start + 1)) for start, end in itertools.pairwise(borders)]
    found = [grey[:, a:b, c:d].mean(axis=(1, 2)) for a, b in edges for c, d in edges]
    return np.stack(found, axis=1)
