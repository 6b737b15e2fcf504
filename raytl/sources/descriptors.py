"""Features of an image that nobody trained: its pixels, its colours, its edges. Modules without parameters.

Every module reads images whose values lie in [-1, 1], shape (n, c, s, s) with c 1 or 3 and s the side it was made for,
and yields (n, d), where ``d`` is its ``feature_dim``. Only differentiable operations that every exporter knows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PIXELS_SIDE = 16
"""Side of the thumbnail, pixels."""
COLOUR_CELLS = 3
"""Cells per side: enough to tell sky from ground."""
COLOUR_SIDE = 64
"""Larger images are averaged to this side before their colours are counted."""
GREY_BINS, RGB_BINS = 16, 4
"""Levels of grey; levels of each of red, green and blue, which make 64 colours."""
GRADIENT_CELLS = 8
"""Cells per side, of at least :data:`GRADIENT_CELL_SIDE` pixels each."""
GRADIENT_CELL_SIDE = 4
GRADIENT_SIDE = 128
"""Larger images are averaged to this side before their gradients are taken."""
ORIENTATIONS = 9
"""Bins of the unsigned orientation, as in Dalal & Triggs."""
_TIE = 1 / 255**2
"""Squares of gradients differ by at least so much where pixels have one of 256 levels; by less, the first channel's
counts."""


def area_weights(size: int, cells: int) -> Tensor:
    """Rows that average ``size`` values in ``cells`` equal parts, shape (cells, size).

    A value across a border is shared. Unlike adaptive pooling it is exact for every size, and to any exporter a product
    of matrices.
    """
    edges = torch.arange(cells + 1, dtype=torch.float64) * size / cells
    left = torch.arange(size, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], left + 1) - torch.maximum(edges[:-1, None], left)
    return (overlap.clamp(min=0) * cells / size).float()


class AreaPool(nn.Module):
    """Mean over equal parts of height and width: (n, c, size, size) to (n, c, cells, cells); identity where equal."""

    weights: Tensor

    def __init__(self, size: int, cells: int) -> None:
        super().__init__()
        self.cells = cells
        self._same = size == cells
        self.register_buffer("weights", area_weights(size, cells), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The means."""
        return x if self._same else self.weights @ x @ self.weights.T


class Pixels(nn.Module):
    """The image as a thumbnail of :data:`PIXELS_SIDE` pixels, or as it is where it is smaller."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.pool = AreaPool(size, min(PIXELS_SIDE, size))
        self.feature_dim = channels * self.pool.cells**2

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, s, s) to (n, d)."""
        features: Tensor = self.pool(x).flatten(1)
        return features


class Colour(nn.Module):
    """How often each colour (or grey) occurs in each of 3x3 cells.

    A pixel counts for the two nearest levels of each channel, linearly, so that colours near a border between bins do
    not jump. The root of each share is taken, which compares histograms by Hellinger's distance (Arandjelović &
    Zisserman, 2012): each cell is a vector of length 1.
    """

    levels: Tensor

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        side = COLOUR_CELLS * min(COLOUR_SIDE // COLOUR_CELLS, math.ceil(size / COLOUR_CELLS))
        bins = GREY_BINS if channels == 1 else RGB_BINS
        self.pool = AreaPool(size, side)
        self.feature_dim = bins**channels * COLOUR_CELLS**2
        self.register_buffer("levels", torch.arange(bins).float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, s, s) to (n, d)."""
        bins = len(self.levels)
        cell = self.pool.cells // COLOUR_CELLS
        x = (self.pool(x) + 1) / 2 * (bins - 1)
        x = x.unflatten(3, (COLOUR_CELLS, cell)).unflatten(2, (COLOUR_CELLS, cell))
        x = x.permute(0, 2, 4, 1, 3, 5).flatten(1, 2).flatten(3)  # (n, cells, c, pixels of a cell)
        votes = F.relu(1 - (x[:, :, :, None] - self.levels[:, None]).abs())  # (n, cells, c, bins, pixels)
        joint = votes[:, :, 0]
        for channel in range(1, x.shape[2] - 1):
            joint = (joint[:, :, :, None] * votes[:, :, channel, None]).flatten(2, 3)
        # The last channel by a product of matrices, which never holds a number per pixel and colour.
        last = votes[:, :, -1] if x.shape[2] > 1 else torch.ones_like(joint[:, :, :1])
        share = joint @ last.transpose(2, 3) / cell**2
        return (share + 1e-4).sqrt().flatten(1)


class Gradients(nn.Module):
    """Histograms of oriented gradients (Dalal & Triggs, 2005), one per cell, normalised by their neighbourhood.

    Of the channels, each pixel's strongest gradient counts. It votes with its magnitude for the nearest of nine
    orientations, softly and without arctangents: by the angle's cosine, doubled because opposite directions are one
    orientation. A cell is divided by the root mean square over the 3x3 cells around it rather than by that of each of
    four overlapping blocks, which would say everything four times.
    """

    directions: Tensor
    deduction: Tensor

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        cells = max(2, min(GRADIENT_CELLS, size // GRADIENT_CELL_SIDE))
        side = min(size, GRADIENT_SIDE)
        self.shrink = AreaPool(size, side)
        self.pool = AreaPool(side, cells)
        self.feature_dim = ORIENTATIONS * cells**2
        angles = torch.arange(ORIENTATIONS) * (2 * math.pi / ORIENTATIONS)
        self.register_buffer("directions", torch.stack([angles.cos(), angles.sin()], dim=1), persistent=False)
        self.register_buffer("deduction", (torch.arange(channels) * _TIE / channels)[:, None, None], persistent=False)
        self._reach = math.cos(2 * math.pi / ORIENTATIONS)  # where the next orientation has all the votes

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, s, s) to (n, d)."""
        x = F.pad(self.shrink(x), (1, 1, 1, 1), mode="replicate")
        across = (x[:, :, 1:-1, 2:] - x[:, :, 1:-1, :-2]) / 2
        down = (x[:, :, 2:, 1:-1] - x[:, :, :-2, 1:-1]) / 2
        # Channels whose levels differ equally are common, and the last bits of a float must not tell which one counts.
        strongest = (across.square() + down.square() - self.deduction).argmax(1, keepdim=True)
        across, down = across.gather(1, strongest), down.gather(1, strongest)
        # Where nothing changes it is to be 1e-4 and not 0. In hundredths: what is added below 1e-7 exporters leave out.
        magnitude = ((100 * across).square() + (100 * down).square() + 1e-4).sqrt() / 100
        doubled = torch.cat([across.square() - down.square(), 2 * across * down], dim=1) / magnitude
        along = torch.einsum("bd,ndhw->nbhw", self.directions, doubled)
        votes = F.relu(along - self._reach * magnitude) / (1 - self._reach)
        cells = self.pool(votes)
        energy = F.avg_pool2d(cells.square().sum(1, keepdim=True), 3, 1, 1, count_include_pad=False)
        # Flat regions keep their noise small: 0.01 is a gradient of one grey level in 255 per pixel.
        features: Tensor = (cells / (energy + 0.01**2).sqrt()).flatten(1)
        return features


DESCRIPTORS: dict[str, type[Pixels] | type[Colour] | type[Gradients]] = {
    "pixels": Pixels,
    "colour": Colour,
    "gradients": Gradients,
}
