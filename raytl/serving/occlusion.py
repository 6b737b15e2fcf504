"""What counted for an answer: occlusion sensitivity (Zeiler & Fergus, 2014, https://arxiv.org/abs/1311.2901).

A square of the image is covered with the image's mean colour, and how much less probable the label is then says how
much the square counted. Nothing is asked of the network but its probabilities, so it works for all of them. What it
shows is what this network reacts to, not what is true; a part that matters only together with another one, or that is
as the mean colour, does not show.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator

import numpy as np

GRID = 8
"""Squares a side; their covers are twice as wide, so that neighbours overlap."""
_COARSE = 4
_AT_ONCE = 8  # covered images in one go: requests for predictions get in between
_MOST_VALUES = 8 * 3 * 512 * 512  # of them together

Compute = Callable[[np.ndarray], Awaitable[np.ndarray]]


async def occlusion(image: np.ndarray, label: int, compute: Compute, patience_s: float) -> tuple[float, np.ndarray]:
    """The probability of a label, and by how much covering each square lowers it, float64 (g, g), top row first.

    image: uint8 (channels, s, s). compute: from uint8 (n, channels, s, s) to probabilities (n, k). patience_s: the grid
    is 4 x 4 where 8 x 8 would take longer. At most 81 images are computed.
    """
    start = time.monotonic()
    whole = float((await compute(image[None]))[0, label])
    drops = whole - await _covered(image, label, compute, min(_COARSE, image.shape[1]))
    took = time.monotonic() - start
    if image.shape[1] >= GRID and took * (1 + (GRID / _COARSE) ** 2) < patience_s:
        drops = whole - await _covered(image, label, compute, GRID)
    return whole, drops


async def _covered(image: np.ndarray, label: int, compute: Compute, grid: int) -> np.ndarray:
    """The label's probability with each square covered, (grid, grid)."""
    squares = list(_squares(image.shape[1], grid))
    fill = np.rint(image.mean(axis=(1, 2))).astype(np.uint8)[:, None, None]
    step = max(1, min(_AT_ONCE, _MOST_VALUES // image.size))
    rows = []
    for first in range(0, len(squares), step):
        part = squares[first : first + step]
        batch = np.repeat(image[None], len(part), axis=0)
        for covered, (down, across) in zip(batch, part, strict=True):
            covered[:, down, across] = fill
        rows.append((await compute(batch))[:, label])
        await asyncio.sleep(0)
    return np.concatenate(rows).astype(np.float64).reshape(grid, grid)


def _squares(side: int, grid: int) -> Iterator[tuple[slice, slice]]:
    """The covers, row by row: twice as wide as a cell of the grid, around its centre, cut off at the border."""
    edges = [
        slice(max(0, round((cell - 0.5) * side / grid)), min(side, round((cell + 1.5) * side / grid)))
        for cell in range(grid)
    ]
    return ((down, across) for down in edges for across in edges)
