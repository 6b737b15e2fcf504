"""From an image of any size to the numbers a network eats; recorded with every model so that serving does the same."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

Resize = Literal["squash", "crop", "pad"]
_INTERPOLATION = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Preprocessing:
    """How one image becomes a network input.

    size: side of the square input, pixels.
    channels: 1 (greyscale) or 3 (RGB); images are converted as needed.
    resize: ``squash`` ignores the aspect ratio, ``crop`` scales the short side to size / crop_fraction and takes the
        centre, ``pad`` scales the long side and fills with black.
    interpolation: ``bilinear`` or ``bicubic``, both antialiased.
    mean, std: per channel, of values in [0, 1].
    """

    size: int = 224
    channels: int = 3
    resize: Resize = "squash"
    crop_fraction: float = 1.0
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def to_uint8(self, image: Image.Image) -> np.ndarray:
        """One decoded image (mode L or RGB) to a uint8 array of shape (channels, size, size)."""
        image = image.convert("L" if self.channels == 1 else "RGB")
        resample = _INTERPOLATION[self.interpolation]
        width, height = image.size
        if self.resize == "squash":
            image = image.resize((self.size, self.size), resample)
        elif self.resize == "crop":
            scale = round(self.size / self.crop_fraction) / min(width, height)
            image = image.resize(
                (max(self.size, round(width * scale)), max(self.size, round(height * scale))), resample
            )
            left, top = (image.width - self.size) // 2, (image.height - self.size) // 2
            image = image.crop((left, top, left + self.size, top + self.size))
        else:
            scale = self.size / max(width, height)
            image = image.resize((max(1, round(width * scale)), max(1, round(height * scale))), resample)
            canvas = Image.new(image.mode, (self.size, self.size))
            canvas.paste(image, ((self.size - image.width) // 2, (self.size - image.height) // 2))
            image = canvas
        array = np.asarray(image, dtype=np.uint8)
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
        """Plain values for a manifest."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Preprocessing:
        """Inverse of :meth:`to_json`."""
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})
