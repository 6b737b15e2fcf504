"""From an image of any size to the numbers a network eats; recorded with every model so that serving does the same."""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

Resize = Literal["squash", "crop", "pad"]
Box = tuple[float, float, float, float]
_INTERPOLATION = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_SUPPORT = {Image.Resampling.BILINEAR: 1.0, Image.Resampling.BICUBIC: 2.0}
_LONGEST = 16  # outputs: images up to this aspect ratio are resized whole, narrower ones cut first


@dataclass(frozen=True)
class Preprocessing:
    """How one image becomes a network input.

    size: side of the square input, pixels.
    channels: 1 (greyscale) or 3 (RGB); images are converted as needed.
    resize: ``squash`` ignores the aspect ratio, ``crop`` scales the short side to size / crop_fraction and takes the
        centre, ``pad`` scales the long side and fills with black.
    interpolation: ``bilinear`` or ``bicubic``, both antialiased.
    mean, std: per channel, of values in [0, 1].
    tiles: above 1, the image is not resized: so many pieces a side, spread evenly over it, lie side by side as they
        are in the decoded image. Noise, blur and fine structure do not survive being made smaller.
    """

    size: int = 224
    channels: int = 3
    resize: Resize = "squash"
    crop_fraction: float = 1.0
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    tiles: int = 1

    def to_uint8(self, image: Image.Image) -> np.ndarray:
        """One decoded image (mode L or RGB) to a uint8 array of shape (channels, size, size).

        Whatever the image's shape, this takes no more memory than 64 outputs beside one or two copies of the image:
        what is not going to be seen is cut off before it is enlarged.
        """
        if image.mode not in {"L", "RGB"} or (self.channels == 1 and image.mode == "RGB"):
            image = image.convert("L" if self.channels == 1 else "RGB")
        side, resample = (self.size, self.size), _INTERPOLATION[self.interpolation]
        if self.tiles > 1:
            image = _tiled(image, self.size // self.tiles, self.tiles, resample)
        elif self.resize == "squash":
            image = _resized(image, side, resample)
        elif self.resize == "crop":
            image = _centre(image, self.size, round(self.size / self.crop_fraction), resample)
        else:
            scale = self.size / max(image.size)
            whole = _resized(image, (max(1, round(image.width * scale)), max(1, round(image.height * scale))), resample)
            image = Image.new(image.mode, side)
            image.paste(whole, ((self.size - whole.width) // 2, (self.size - whole.height) // 2))
        # Grey to RGB only now: the three channels are the same at any size.
        array = np.asarray(image if self.channels == 1 else image.convert("RGB"), dtype=np.uint8)
        return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))

    def normalise(self, batch: Tensor) -> Tensor:
        """uint8 (n, channels, h, w) to float32 of the same shape: scaled to [0, 1], then standardised."""
        scale, shift = self.affine(batch)
        return batch.float() * scale + shift

    def affine(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """The per-channel (scale, shift), shapes (1, channels, 1, 1), of :meth:`normalise` on uint8 values."""
        import torch

        mean = torch.tensor(self.mean, device=like.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=like.device).view(1, -1, 1, 1)
        return 1.0 / (255.0 * std), -mean / std

    def to_json(self) -> dict[str, Any]:
        """Plain values for a manifest; without ``tiles`` where the image is seen whole, which every raytl reads."""
        return {name: value for name, value in asdict(self).items() if (name, value) != ("tiles", 1)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Preprocessing:
        """Inverse of :meth:`to_json`."""
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})


def _tiled(image: Image.Image, side: int, tiles: int, resample: Image.Resampling) -> Image.Image:
    """Pieces of ``side`` pixels; they overlap in a small image, and one narrower than a piece is enlarged."""
    reach = min(side, *image.size)  # of a piece, in the image's own pixels
    made = Image.new(image.mode, (tiles * side, tiles * side))
    for row, column in itertools.product(range(tiles), repeat=2):
        left, top = (
            (length - reach) * place / (tiles - 1) for length, place in zip(image.size, (column, row), strict=True)
        )
        if reach == side:
            left, top = round(left), round(top)
            piece = image.crop((left, top, left + side, top + side))
        else:
            box = (left, top, min(image.width, left + reach), min(image.height, top + reach))
            piece = image.resize((side, side), resample, box)
        made.paste(piece, (column * side, row * side))
    return made


def _centre(image: Image.Image, side: int, short_side: int, resample: Image.Resampling) -> Image.Image:
    """The middle square of ``side`` pixels of an image whose short side is made ``short_side`` pixels long."""
    scale = short_side / min(image.size)
    whole = [max(side, round(length * scale)) for length in image.size]
    first = [(length - side) // 2 for length in whole]
    if max(whole) <= _LONGEST * side:
        resized = image.resize((whole[0], whole[1]), resample)
        return resized.crop((first[0], first[1], first[0] + side, first[1] + side))
    # What the square shows is cut out before anything becomes larger, with the pixels around that have a part in it.
    low, high, starts, ends = [], [], [], []
    for length, new, begin in zip(image.size, whole, first, strict=True):
        start, end = begin * length / new, min(length, (begin + side) * length / new)
        around = math.ceil(_SUPPORT[resample] * max(1.0, length / new)) + 1
        low.append(max(0, math.floor(start) - around))
        high.append(min(length, math.ceil(end) + around))
        starts.append(start - low[-1])
        ends.append(end - low[-1])
    region = image.crop((low[0], low[1], high[0], high[1]))
    return _resized(region, (side, side), resample, (starts[0], starts[1], ends[0], ends[1]))


def _resized(
    image: Image.Image, side: tuple[int, int], resample: Image.Resampling, box: Box | None = None
) -> Image.Image:
    """Resized with antialiasing, and without more memory than a few outputs."""
    if box is None and image.height > _LONGEST * side[1] and image.width < side[0]:
        # The plain way makes the width first, as tall as the input.
        image = image.resize((image.width, side[1]), resample)
    return image.resize(side, resample, box)
