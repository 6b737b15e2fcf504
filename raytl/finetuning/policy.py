"""What an augmentation policy does to a batch: one resampling, then colours, on whatever device the batch is on.

Cached views are kept under a hash of this file: a change here makes them anew.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample


@dataclass(frozen=True)
class Policy:
    """How far each image may be changed, independently of the others in its batch. A zero leaves that change out.

    rotation: degrees to either side; translation: share of the side; scale, stretch: relative size and aspect ratio;
    shear: slope. crop: of a part of the image that is shown in its place, how much smaller its side may be, as a share.
    flip: whether half of the images are mirrored left to right. mirrored_edges: what comes in from outside the image is
    its mirror image (photos) rather than its background. brightness, contrast, saturation: relative. erase: side of the
    largest square blotted out, as a share of the side.
    """

    rotation: float = 0.0
    translation: float = 0.0
    scale: float = 0.0
    stretch: float = 0.0
    shear: float = 0.0
    crop: float = 0.0
    flip: bool = False
    mirrored_edges: bool = False
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    erase: float = 0.0

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The augmented batch. The same generator state gives the same batch."""
        background = _background(images)
        out = self._move(images, background, generator)
        if self.erase:
            out = self._erase(out, background, generator)
        if self.contrast or self.brightness or self.saturation:
            out = self._colour(out, background, generator)
        return out.clamp(0.0, 1.0)

    def _move(self, images: Tensor, background: Tensor, generator: torch.Generator) -> Tensor:
        n = len(images)
        angle, dx, dy, scale, stretch, shear, mirror = _signed(images, generator, 7)
        angle = angle * math.radians(self.rotation)
        shown = 1 - self.crop * (1 + scale) / 2
        width = (1 + self.scale * scale) * shown
        height = width * (1 + self.stretch * stretch)
        if self.flip:
            width = torch.where(mirror < 0, -width, width)
        cos, sin = angle.cos(), angle.sin()
        # Grid coordinates run from -1 to 1, so a share of the side counts twice.
        far = 2 * self.translation + (1 - shown)
        row_x = torch.stack([cos * width, (self.shear * shear - sin) * height, far * dx], dim=1)
        row_y = torch.stack([sin * width, cos * height, far * dy], dim=1)
        theta = torch.stack([row_x, row_y], dim=1).view(n, 2, 3)
        grid: Tensor = affine_grid(theta, list(images.shape), align_corners=False)
        # Parts are enlarged, which a straight line between pixels would blur.
        mode = "bicubic" if self.crop else "bilinear"
        if self.mirrored_edges:
            mirrored: Tensor = grid_sample(images, grid, mode=mode, padding_mode="reflection", align_corners=False)
            return mirrored
        # Zero padding around the background level fills with the background: black stays black, paper stays white.
        moved: Tensor = grid_sample(images - background, grid, mode=mode, align_corners=False) + background
        return moved

    def _colour(self, images: Tensor, background: Tensor, generator: torch.Generator) -> Tensor:
        brightness, contrast, saturation = (draw.view(-1, 1, 1, 1) for draw in _signed(images, generator, 3))
        # Contrast about the background and brightness by a factor: neither lifts a black background.
        out: Tensor = background + (images - background) * (1 + self.contrast * contrast)
        out = out * (1 + self.brightness * brightness)
        if images.shape[1] == 3:
            grey = out.mean(dim=1, keepdim=True)
            out = grey + (out - grey) * (1 + self.saturation * saturation)
        return out

    def _erase(self, images: Tensor, background: Tensor, generator: torch.Generator) -> Tensor:
        x, y, side = (draw.view(-1, 1, 1, 1) for draw in _signed(images, generator, 3))
        half = self.erase * (1 + side) / 2  # half a side in coordinates from -1 to 1 is a share of the side
        h, w = images.shape[-2:]
        rows = (torch.arange(h, device=images.device, dtype=images.dtype) * 2 + 1) / h - 1
        columns = (torch.arange(w, device=images.device, dtype=images.dtype) * 2 + 1) / w - 1
        inside = ((rows.view(1, 1, h, 1) - y).abs() < half) & ((columns.view(1, 1, 1, w) - x).abs() < half)
        return torch.where(inside, background, images)


def _signed(images: Tensor, generator: torch.Generator, count: int) -> Tensor:
    """Uniform draws from [-1, 1), shape (count, n), on the images' device; drawn where the generator lives."""
    draws = torch.rand((count, len(images)), generator=generator, device=generator.device, dtype=images.dtype)
    return draws.to(images.device) * 2 - 1


def _background(images: Tensor) -> Tensor:
    """The median of each image's outermost pixels per channel, shape (n, c, 1, 1)."""
    ring = [images[..., 0, :], images[..., -1, :], images[..., :, 0], images[..., :, -1]]
    return torch.cat(ring, dim=-1).median(dim=-1).values[..., None, None]
